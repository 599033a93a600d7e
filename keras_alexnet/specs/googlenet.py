"""GoogLeNet: torchvision's, the lab's, the paper's and Caffe's.

All four share the widths of the nine Inception blocks (Szegedy et al. 2014, table 1). They differ
in what a convolution comes with, in the third branch and in the names.
"""

from keras_alexnet.lrn import lrn_from_caffe
from keras_alexnet.specs.inception import (
    CAFFE_NAMES,
    Style,
    basic_conv,
    blocks,
    caffe_conv,
    conv_relu,
    lab_conv,
)
from keras_alexnet.specs.schema import (
    LRN,
    AdaptiveAvgPool,
    AuxHead,
    AvgPool,
    Dense,
    Dropout,
    Flatten,
    Init,
    MaxPool,
    ModelSpec,
    ReLU,
    Row,
)
from keras_alexnet.specs.shared import (
    CAFFE_CLASSIFIER_INIT,
    CAFFE_GOOGLENET_INIT,
    IMAGENET,
    TORCH_INIT,
    TORCHVISION_GOOGLENET_INIT,
    caffe_preprocessing,
)

TORCHVISION = Style(
    basic_conv,
    third=((3, 1),),  # called "5x5" there
    pool3=MaxPool("maxpool3", 3, 2, ceil=True),
    pool4=MaxPool("maxpool4", 2, 2, ceil=True),
)
LAB = Style(
    lab_conv,
    third=((3, 1), (3, 1)),
    pool3=MaxPool("maxpool3", 3, 2, padding=1),
    pool4=MaxPool("maxpool4", 3, 2, padding=1),
)
PAPER = Style(
    conv_relu,
    third=((5, 2),),
    pool3=MaxPool("maxpool3", 3, 2, ceil=True),
    pool4=MaxPool("maxpool4", 3, 2, ceil=True),
)
CAFFE = Style(
    caffe_conv,
    third=((5, 2),),
    pool3=MaxPool("pool3.3x3_s2", 3, 2, ceil=True),
    pool4=MaxPool("pool4.3x3_s2", 3, 2, ceil=True),
    block="inception_",
    names=CAFFE_NAMES,
)


def _torchvision_aux(name: str, *, reads: str) -> AuxHead:
    """Mirror torchvision's `InceptionAux`; pool, flatten and ReLU are calls without module."""
    return AuxHead(
        name,
        reads,
        (
            AdaptiveAvgPool(f"{name}.pool", 4, module=None),
            *basic_conv(f"{name}.conv", 128),
            Flatten(f"{name}.flatten", module=None),
            Dense(f"{name}.fc1", 1024),
            ReLU(f"{name}.relu", module=None),
            Dropout(f"{name}.dropout", 0.7),
            Dense(f"{name}.fc2", None),
        ),
    )


def _plain_aux(name: str, *, reads: str, init: Init | None = None) -> AuxHead:
    """Return the paper's auxiliary classifier, which the lab has too: no batch norm."""
    return AuxHead(
        name,
        reads,
        (
            AvgPool(f"{name}.pool", 5, 3),
            *conv_relu(f"{name}.conv", 128),
            Flatten(f"{name}.flatten", module=None),
            Dense(f"{name}.fc1", 1024),
            ReLU(f"{name}.relu"),
            Dropout(f"{name}.dropout", 0.7),
            Dense(f"{name}.fc2", None, init),
        ),
    )


def _caffe_aux(name: str, *, reads: str) -> AuxHead:
    """Return the same classifier under Caffe's names."""
    return AuxHead(
        name,
        reads,
        (
            AvgPool(f"{name}.ave_pool", 5, 3),
            *caffe_conv(f"{name}.conv", 128),
            Flatten(f"{name}.flatten", module=None),
            Dense(f"{name}.fc", 1024),
            ReLU(f"{name}.relu_fc"),
            Dropout(f"{name}.drop_fc", 0.7),
            Dense(f"{name}.classifier", None, CAFFE_CLASSIFIER_INIT),
        ),
    )


def _global_head(init: Init | None = None) -> tuple[Row, ...]:
    """Return the global average and the classifier.

    At 224 x 224 the last map is 7 x 7, the window that the paper and Caffe write.
    """
    return (
        AdaptiveAvgPool("avgpool", 1),
        Flatten("flatten", module=None),
        Dropout("dropout"),
        Dense("fc", None, init),
    )


GOOGLENET = ModelSpec(
    name="googlenet",
    origin="torchvision",
    reference="torchvision.models.googlenet (Szegedy et al. 2014 with batch norm)",
    body=(
        *basic_conv("conv1", 64, kernel=7, stride=2, padding=3),
        MaxPool("maxpool1", 3, 2, ceil=True),
        *basic_conv("conv2", 64),
        *basic_conv("conv3", 192, kernel=3, padding=1),
        MaxPool("maxpool2", 3, 2, ceil=True),
        *blocks(TORCHVISION),
    ),
    head=_global_head(),
    aux=(
        _torchvision_aux("aux1", reads="inception4a"),
        _torchvision_aux("aux2", reads="inception4d"),
    ),
    stage_rows=("conv1.relu", "conv3.relu", "inception3b", "inception4e", "inception5b"),
    dropout_rate=0.2,
    init=TORCHVISION_GOOGLENET_INIT,
    preprocessing=IMAGENET,
    transform_input=True,
    weights=("IMAGENET1K_V1",),
)

GOOGLENET_LAB = ModelSpec(
    name="googlenet_lab",
    origin="report",
    reference="AlexNet vs GoogLeNet lab: batch norm and biases, two 3x3 for the 5x5, LRN",
    body=(
        *conv_relu("conv1", 64, kernel=7, stride=2, padding=3),
        MaxPool("maxpool1", 3, 2, padding=1),
        LRN("norm1", size=5, alpha=1e-4, beta=0.75, k=2.0),
        *conv_relu("conv2", 64),
        *conv_relu("conv3", 192, kernel=3, padding=1),
        LRN("norm2", size=5, alpha=1e-4, beta=0.75, k=2.0),
        MaxPool("maxpool2", 3, 2, padding=1),
        *blocks(LAB),
    ),
    head=_global_head(),
    aux=(_plain_aux("aux1", reads="inception4a"), _plain_aux("aux2", reads="inception4d")),
    stage_rows=("conv1.relu", "norm2", "inception3b", "inception4e", "inception5b"),
    classes=10,
    dropout_rate=0.4,
    init=TORCH_INIT,
    preprocessing=IMAGENET,
)

GOOGLENET_PAPER = ModelSpec(
    name="googlenet_paper",
    origin="paper",
    reference="Szegedy et al. 2014, arXiv:1409.4842; new weights drawn as Caffe's, it gives none",
    body=(
        *conv_relu("conv1", 64, kernel=7, stride=2, padding=3),
        MaxPool("maxpool1", 3, 2, ceil=True),
        LRN("norm1", size=5, alpha=1e-4, beta=0.75, k=1.0),
        *conv_relu("conv2", 64),
        *conv_relu("conv3", 192, kernel=3, padding=1),
        LRN("norm2", size=5, alpha=1e-4, beta=0.75, k=1.0),
        MaxPool("maxpool2", 3, 2, ceil=True),
        *blocks(PAPER),
    ),
    head=_global_head(CAFFE_CLASSIFIER_INIT),
    aux=(
        _plain_aux("aux1", reads="inception4a", init=CAFFE_CLASSIFIER_INIT),
        _plain_aux("aux2", reads="inception4d", init=CAFFE_CLASSIFIER_INIT),
    ),
    stage_rows=("conv1.relu", "norm2", "inception3b", "inception4e", "inception5b"),
    dropout_rate=0.4,
    init=CAFFE_GOOGLENET_INIT,
    preprocessing=IMAGENET,
)

GOOGLENET_CAFFE = ModelSpec(
    name="googlenet_caffe",
    origin="Caffe",
    reference="BVLC's bvlc_googlenet: the paper's network under Caffe's layer names",
    body=(
        *caffe_conv("conv1.7x7_s2", 64, kernel=7, stride=2, padding=3),
        MaxPool("pool1.3x3_s2", 3, 2, ceil=True),
        LRN("pool1.norm1", **lrn_from_caffe(local_size=5, alpha=1e-4, beta=0.75)),
        *caffe_conv("conv2.3x3_reduce", 64),
        *caffe_conv("conv2.3x3", 192, kernel=3, padding=1),
        LRN("conv2.norm2", **lrn_from_caffe(local_size=5, alpha=1e-4, beta=0.75)),
        MaxPool("pool2.3x3_s2", 3, 2, ceil=True),
        *blocks(CAFFE),
    ),
    head=(
        AdaptiveAvgPool("pool5.7x7_s1", 1),
        Dropout("pool5.drop_7x7_s1"),
        Flatten("flatten", module=None),
        Dense("loss3.classifier", None, CAFFE_CLASSIFIER_INIT),
    ),
    aux=(_caffe_aux("loss1", reads="inception_4a"), _caffe_aux("loss2", reads="inception_4d")),
    stage_rows=("conv1.relu_7x7_s2", "conv2.norm2", "inception_3b", "inception_4e", "inception_5b"),
    dropout_rate=0.4,
    init=CAFFE_GOOGLENET_INIT,
    preprocessing=caffe_preprocessing(224, mean=(104.0, 117.0, 123.0)),
)
