"""The AlexNets of the reports.

The PyTorch ones are written as torchvision writes its own, a `Sequential` called `features` and one
called `classifier`; the Keras one has Caffe's layer names.
"""

from keras_alexnet.specs.alexnet import caffe_names, dropout_first
from keras_alexnet.specs.preprocessing import Preprocessing
from keras_alexnet.specs.schema import (
    LRN,
    AdaptiveAvgPool,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    MaxPool,
    ModelSpec,
    ReLU,
    Row,
)
from keras_alexnet.specs.shared import IMAGENET, KERAS_INIT, TORCH_INIT


def _dropout_behind() -> tuple[Row, ...]:
    """Return the reports' classifier: dropout behind both hidden layers."""
    return (
        Flatten("flatten", module=None),
        Dense("classifier.0", 4096),
        ReLU("classifier.1"),
        Dropout("classifier.2"),
        Dense("classifier.3", 4096),
        ReLU("classifier.4"),
        Dropout("classifier.5"),
        Dense("classifier.6", None),
    )


ALEXNET_LRN = ModelSpec(
    name="alexnet_lrn",
    origin="report",
    reference="AlexNet vs GoogLeNet lab: torchvision's AlexNet with LRN behind convs 1 and 2",
    body=(
        Conv("features.0", 64, kernel=11, stride=4, padding=2),
        ReLU("features.1"),
        LRN("features.2", size=5, alpha=1e-4, beta=0.75, k=2.0),
        MaxPool("features.3", 3, 2),
        Conv("features.4", 192, kernel=5, padding=2),
        ReLU("features.5"),
        LRN("features.6", size=5, alpha=1e-4, beta=0.75, k=2.0),
        MaxPool("features.7", 3, 2),
        Conv("features.8", 384, kernel=3, padding=1),
        ReLU("features.9"),
        Conv("features.10", 256, kernel=3, padding=1),
        ReLU("features.11"),
        Conv("features.12", 256, kernel=3, padding=1),
        ReLU("features.13"),
        MaxPool("features.14", 3, 2),
    ),
    head=(AdaptiveAvgPool("avgpool", 6), *dropout_first()),
    stage_rows=("features.2", "features.6", "features.13", "features.14"),
    classes=10,
    dropout_rate=0.5,
    init=TORCH_INIT,
    preprocessing=IMAGENET,
)

ALEXNET_BN_CIFAR100 = ModelSpec(
    name="alexnet_bn_cifar100",
    origin="report",
    reference="CIFAR-100 AlexNet study; its ReLU on the logits is classifier_activation='relu'",
    body=(
        Conv("features.0", 96, kernel=11, stride=4),
        BatchNorm("features.1"),
        ReLU("features.2"),
        MaxPool("features.3", 3, 2),
        Conv("features.4", 256, kernel=5, padding=2),
        ReLU("features.5"),
        MaxPool("features.6", 3, 2),
        Conv("features.7", 384, kernel=3, padding=1),
        ReLU("features.8"),
        Conv("features.9", 384, kernel=3, padding=1),
        ReLU("features.10"),
        Conv("features.11", 256, kernel=3, padding=1),
        ReLU("features.12"),
        MaxPool("features.13", 3, 2),
    ),
    head=_dropout_behind(),
    stage_rows=("features.2", "features.5", "features.12", "features.13"),
    classes=100,
    dropout_rate=0.5,
    init=TORCH_INIT,
    preprocessing=Preprocessing(
        230, (227, 227), mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010)
    ),
)

ALEXNET_CIFAR = ModelSpec(
    name="alexnet_cifar",
    origin="report",
    reference="CIFAR-10 AlexNet with batch norm, on the logits too",
    body=(
        Conv("features.0", 64, kernel=3, padding=2),
        BatchNorm("features.1"),
        ReLU("features.2"),
        MaxPool("features.3", 2, 2),
        Conv("features.4", 192, kernel=3, padding=2),
        BatchNorm("features.5"),
        ReLU("features.6"),
        MaxPool("features.7", 2, 2),
        Conv("features.8", 384, kernel=3, padding=1),
        BatchNorm("features.9"),
        ReLU("features.10"),
        Conv("features.11", 256, kernel=3, padding=1),
        BatchNorm("features.12"),
        ReLU("features.13"),
        Conv("features.14", 256, kernel=3, padding=1),
        BatchNorm("features.15"),
        ReLU("features.16"),
        MaxPool("features.17", 3, 2),
    ),
    head=(
        Flatten("flatten", module=None),
        Dropout("classifier.0"),
        Dense("classifier.1", 2048),
        BatchNorm("classifier.2"),
        ReLU("classifier.3"),
        Dropout("classifier.4"),
        Dense("classifier.5", 2048),
        BatchNorm("classifier.6"),
        ReLU("classifier.7"),
        Dense("classifier.8", None),
        BatchNorm("classifier.9"),
    ),
    stage_rows=("features.2", "features.6", "features.16", "features.17"),
    classes=10,
    dropout_rate=0.2,
    init=TORCH_INIT,
    preprocessing=Preprocessing(
        32, (32, 32), mean=(0.491, 0.482, 0.447), std=(0.247, 0.243, 0.262)
    ),
)

# Section G of the reports resizes to 224 x 224 and scales to [0, 1].
_UNIT_RANGE = Preprocessing(224, (224, 224), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

ALEXNET_KERAS = ModelSpec(
    name="alexnet_keras",
    origin="report",
    reference="AlexNet in Keras ('same' padding); its softmax is classifier_activation='softmax'",
    body=(
        Conv("conv1", 96, kernel=11, stride=4, padding="same"),
        ReLU("relu1"),
        MaxPool("pool1", 3, 2),
        Conv("conv2", 256, kernel=5, padding="same"),
        ReLU("relu2"),
        MaxPool("pool2", 3, 2),
        Conv("conv3", 384, kernel=3, padding="same"),
        ReLU("relu3"),
        Conv("conv4", 384, kernel=3, padding="same"),
        ReLU("relu4"),
        Conv("conv5", 256, kernel=3, padding="same"),
        ReLU("relu5"),
        MaxPool("pool5", 3, 2),
    ),
    head=caffe_names(),
    stage_rows=("relu1", "relu2", "relu5", "pool5"),
    classes=10,
    dropout_rate=0.5,
    init=KERAS_INIT,
    preprocessing=_UNIT_RANGE,
)

ALEXNET_WIDE = ModelSpec(
    name="alexnet_wide",
    origin="report",
    reference="PyTorch twin of the AlexNet in Keras",
    body=(
        Conv("features.0", 96, kernel=11, stride=4, padding=2),
        ReLU("features.1"),
        MaxPool("features.2", 3, 2),
        Conv("features.3", 256, kernel=5, padding=2),
        ReLU("features.4"),
        MaxPool("features.5", 3, 2),
        Conv("features.6", 384, kernel=3, padding=1),
        ReLU("features.7"),
        Conv("features.8", 384, kernel=3, padding=1),
        ReLU("features.9"),
        Conv("features.10", 256, kernel=3, padding=1),
        ReLU("features.11"),
        MaxPool("features.12", 3, 2),
    ),
    head=_dropout_behind(),
    stage_rows=("features.1", "features.4", "features.11", "features.12"),
    classes=10,
    dropout_rate=0.5,
    init=TORCH_INIT,
    preprocessing=_UNIT_RANGE,
)
