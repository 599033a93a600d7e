"""AlexNet: torchvision's, the paper's, Caffe's, and CaffeNet.

The paper's is written as torchvision writes its own, a `Sequential` called `features` and one
called `classifier`; Caffe's has Caffe's layer names.
"""

from dataclasses import replace

from keras_alexnet.lrn import lrn_from_tensorflow
from keras_alexnet.specs.schema import (
    LRN,
    AdaptiveAvgPool,
    Conv,
    Dense,
    Dropout,
    Flatten,
    Init,
    MaxPool,
    ModelSpec,
    Normal,
    ReLU,
    Row,
)
from keras_alexnet.specs.shared import IMAGENET, TORCH_INIT, caffe_preprocessing


def dropout_first(hidden: Init | None = None) -> tuple[Row, ...]:
    """Return the paper's classifier: dropout before both hidden layers."""
    return (
        Flatten("flatten", module=None),
        Dropout("classifier.0"),
        Dense("classifier.1", 4096, hidden),
        ReLU("classifier.2"),
        Dropout("classifier.3"),
        Dense("classifier.4", 4096, hidden),
        ReLU("classifier.5"),
        Dense("classifier.6", None),
    )


def caffe_names(hidden: Init | None = None) -> tuple[Row, ...]:
    """Return a classifier under Caffe's names: dropout behind both hidden layers."""
    return (
        Flatten("flatten", module=None),
        Dense("fc6", 4096, hidden),
        ReLU("relu6"),
        Dropout("drop6"),
        Dense("fc7", 4096, hidden),
        ReLU("relu7"),
        Dropout("drop7"),
        Dense("fc8", None),
    )


ALEXNET = ModelSpec(
    name="alexnet",
    origin="torchvision",
    reference="torchvision.models.alexnet (Krizhevsky 2014, arXiv:1404.5997)",
    body=(
        Conv("features.0", 64, kernel=11, stride=4, padding=2),
        ReLU("features.1"),
        MaxPool("features.2", 3, 2),
        Conv("features.3", 192, kernel=5, padding=2),
        ReLU("features.4"),
        MaxPool("features.5", 3, 2),
        Conv("features.6", 384, kernel=3, padding=1),
        ReLU("features.7"),
        Conv("features.8", 256, kernel=3, padding=1),
        ReLU("features.9"),
        Conv("features.10", 256, kernel=3, padding=1),
        ReLU("features.11"),
        MaxPool("features.12", 3, 2),
    ),
    head=(AdaptiveAvgPool("avgpool", 6), *dropout_first()),
    stage_rows=("features.1", "features.4", "features.11", "features.12"),
    dropout_rate=0.5,
    init=TORCH_INIT,
    preprocessing=IMAGENET,
    weights=("IMAGENET1K_V1",),
)

# Section 5 of the paper: every weight from a normal distribution with deviation .01, biases of 1
# in the layers named there, which give the ReLUs positive inputs in the beginning.
_PAPER = Init(Normal(0.01), bias=0.0)
_PAPER_POSITIVE = Init(Normal(0.01), bias=1.0)

ALEXNET_PAPER = ModelSpec(
    name="alexnet_paper",
    origin="paper",
    reference="Krizhevsky, Sutskever, Hinton 2012, with torch's LRN, whose alpha is divided by 5",
    body=(
        Conv("features.0", 96, kernel=11, stride=4, padding=2),
        ReLU("features.1"),
        LRN("features.2", size=5, alpha=1e-4, beta=0.75, k=2.0),
        MaxPool("features.3", 3, 2),
        Conv("features.4", 256, kernel=5, padding=2, groups=2, init=_PAPER_POSITIVE),
        ReLU("features.5"),
        LRN("features.6", size=5, alpha=1e-4, beta=0.75, k=2.0),
        MaxPool("features.7", 3, 2),
        Conv("features.8", 384, kernel=3, padding=1),
        ReLU("features.9"),
        Conv("features.10", 384, kernel=3, padding=1, groups=2, init=_PAPER_POSITIVE),
        ReLU("features.11"),
        Conv("features.12", 256, kernel=3, padding=1, groups=2, init=_PAPER_POSITIVE),
        ReLU("features.13"),
        MaxPool("features.14", 3, 2),
    ),
    head=dropout_first(_PAPER_POSITIVE),
    stage_rows=("features.2", "features.6", "features.13", "features.14"),
    dropout_rate=0.5,
    init=_PAPER,
    preprocessing=IMAGENET,
)

# BVLC's bvlc_alexnet/train_val.prototxt.
_CAFFE = Init(Normal(0.01), bias=0.0)
_CAFFE_POSITIVE = Init(Normal(0.01), bias=0.1)
_CAFFE_HIDDEN = Init(Normal(0.005), bias=0.1)
# TensorFlow's parameters, as those who published bvlc_alexnet.npy give them.
_CAFFE_LRN = lrn_from_tensorflow(depth_radius=2, bias=1.0, alpha=2e-5, beta=0.75)

ALEXNET_CAFFE = ModelSpec(
    name="alexnet_caffe",
    origin="Caffe",
    reference="BVLC's bvlc_alexnet, whose weights are known as bvlc_alexnet.npy",
    body=(
        Conv("conv1", 96, kernel=11, stride=4),
        ReLU("relu1"),
        LRN("norm1", **_CAFFE_LRN),
        MaxPool("pool1", 3, 2),
        Conv("conv2", 256, kernel=5, padding=2, groups=2, init=_CAFFE_POSITIVE),
        ReLU("relu2"),
        LRN("norm2", **_CAFFE_LRN),
        MaxPool("pool2", 3, 2),
        Conv("conv3", 384, kernel=3, padding=1),
        ReLU("relu3"),
        Conv("conv4", 384, kernel=3, padding=1, groups=2, init=_CAFFE_POSITIVE),
        ReLU("relu4"),
        Conv("conv5", 256, kernel=3, padding=1, groups=2, init=_CAFFE_POSITIVE),
        ReLU("relu5"),
        MaxPool("pool5", 3, 2),
    ),
    head=caffe_names(_CAFFE_HIDDEN),
    stage_rows=("norm1", "norm2", "relu5", "pool5"),
    dropout_rate=0.5,
    init=_CAFFE,
    preprocessing=caffe_preprocessing(227, mean=(104.0, 117.0, 124.0)),
)

# BVLC's bvlc_reference_caffenet/train_val.prototxt: biases of 1 where AlexNet's are .1.
_CAFFENET_POSITIVE = Init(Normal(0.01), bias=1.0)

CAFFENET = replace(
    ALEXNET_CAFFE,
    name="caffenet",
    reference="BVLC's bvlc_reference_caffenet: AlexNet that pools before it normalises",
    body=(
        Conv("conv1", 96, kernel=11, stride=4),
        ReLU("relu1"),
        MaxPool("pool1", 3, 2),
        LRN("norm1", **_CAFFE_LRN),
        Conv("conv2", 256, kernel=5, padding=2, groups=2, init=_CAFFENET_POSITIVE),
        ReLU("relu2"),
        MaxPool("pool2", 3, 2),
        LRN("norm2", **_CAFFE_LRN),
        Conv("conv3", 384, kernel=3, padding=1),
        ReLU("relu3"),
        Conv("conv4", 384, kernel=3, padding=1, groups=2, init=_CAFFENET_POSITIVE),
        ReLU("relu4"),
        Conv("conv5", 256, kernel=3, padding=1, groups=2, init=_CAFFENET_POSITIVE),
        ReLU("relu5"),
        MaxPool("pool5", 3, 2),
    ),
    head=caffe_names(Init(Normal(0.005), bias=1.0)),
    stage_rows=("relu1", "relu2", "relu5", "pool5"),
    preprocessing=caffe_preprocessing(227, mean=(104.0, 117.0, 123.0)),
)
