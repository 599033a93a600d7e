"""Every architecture by name."""

import difflib
from collections.abc import Mapping

from keras_alexnet.errors import UnknownModelError
from keras_alexnet.schema import ModelSpec
from keras_alexnet.specs.alexnet import ALEXNET, ALEXNET_CAFFE, ALEXNET_PAPER
from keras_alexnet.specs.alexnet_reports import (
    ALEXNET_BN_CIFAR100,
    ALEXNET_CIFAR,
    ALEXNET_KERAS,
    ALEXNET_LRN,
    ALEXNET_WIDE,
)
from keras_alexnet.specs.googlenet import (
    GOOGLENET,
    GOOGLENET_CAFFE,
    GOOGLENET_LAB,
    GOOGLENET_PAPER,
)
from keras_alexnet.specs.lenet import LENET5

SPECS: Mapping[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        ALEXNET,
        ALEXNET_LRN,
        ALEXNET_BN_CIFAR100,
        ALEXNET_PAPER,
        ALEXNET_CAFFE,
        ALEXNET_CIFAR,
        ALEXNET_KERAS,
        ALEXNET_WIDE,
        LENET5,
        GOOGLENET,
        GOOGLENET_LAB,
        GOOGLENET_PAPER,
        GOOGLENET_CAFFE,
    )
}


def find_spec(name: str) -> ModelSpec:
    """Return the spec of a model.

    Raises:
        UnknownModelError: No model has this name; the message names the nearest one.
    """
    if name not in SPECS:
        near = difflib.get_close_matches(name, SPECS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UnknownModelError(f"unknown model {name!r}.{hint} Known: {', '.join(SPECS)}")
    return SPECS[name]
