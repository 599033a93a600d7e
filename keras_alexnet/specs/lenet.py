"""LeNet-5 as the CIFAR-100 study shows it."""

from keras_alexnet.specs.preprocessing import Preprocessing
from keras_alexnet.specs.schema import AvgPool, Conv, Dense, Flatten, ModelSpec, Sigmoid
from keras_alexnet.specs.shared import TORCH_INIT

LENET5 = ModelSpec(
    name="lenet5",
    origin="report",
    reference="LeCun et al. 1998, with sigmoids, as the CIFAR-100 AlexNet study quotes it",
    body=(
        Conv("features.0", 6, kernel=5, padding=2),
        Sigmoid("features.1"),
        AvgPool("features.2", 2, 2),
        Conv("features.3", 16, kernel=5),
        Sigmoid("features.4"),
        AvgPool("features.5", 2, 2),
    ),
    head=(
        Flatten("flatten", module=None),
        Dense("classifier.0", 120),
        Sigmoid("classifier.1"),
        Dense("classifier.2", 84),
        Sigmoid("classifier.3"),
        Dense("classifier.4", None),
    ),
    stage_rows=("features.1", "features.4", "features.5"),
    classes=10,
    dropout_rate=0.0,
    init=TORCH_INIT,
    preprocessing=Preprocessing(28, (28, 28), mean=(0.0,), std=(1.0,), channels="L"),
)
