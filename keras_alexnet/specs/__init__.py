"""Every architecture by name: tables, in the vocabulary of `schema`, and their shapes.

A spec's tables are made when it is looked up for the first time. Imports no framework, only `lrn`
and `errors`.
"""

import importlib
from collections.abc import Iterator, Mapping

from keras_alexnet.errors import UnknownModelError, similar
from keras_alexnet.specs.schema import ModelSpec

# Name -> module and constant, in the order in which people see them.
_HOMES = {
    "alexnet": "alexnet.ALEXNET",
    "alexnet_lrn": "alexnet_reports.ALEXNET_LRN",
    "alexnet_bn_cifar100": "alexnet_reports.ALEXNET_BN_CIFAR100",
    "alexnet_paper": "alexnet.ALEXNET_PAPER",
    "alexnet_caffe": "alexnet.ALEXNET_CAFFE",
    "caffenet": "alexnet.CAFFENET",
    "alexnet_cifar": "alexnet_reports.ALEXNET_CIFAR",
    "alexnet_keras": "alexnet_reports.ALEXNET_KERAS",
    "alexnet_wide": "alexnet_reports.ALEXNET_WIDE",
    "lenet5": "lenet.LENET5",
    "googlenet": "googlenet.GOOGLENET",
    "googlenet_lab": "googlenet.GOOGLENET_LAB",
    "googlenet_paper": "googlenet.GOOGLENET_PAPER",
    "googlenet_caffe": "googlenet.GOOGLENET_CAFFE",
}


class _Specs(Mapping[str, ModelSpec]):
    """Name -> spec. One network needs one module of them, and a list of the names none."""

    def __getitem__(self, name: str) -> ModelSpec:
        module, constant = _HOMES[name].split(".")
        return getattr(importlib.import_module(f"{__name__}.{module}"), constant)

    def __contains__(self, name: object) -> bool:
        return name in _HOMES

    def __iter__(self) -> Iterator[str]:
        return iter(_HOMES)

    def __len__(self) -> int:
        return len(_HOMES)


SPECS: Mapping[str, ModelSpec] = _Specs()


def find_spec(name: str) -> ModelSpec:
    """Return the spec of a model.

    Raises:
        UnknownModelError: No model has this name; the message names the nearest one.
    """
    if name not in SPECS:
        hint = similar(name, SPECS, 1)
        raise UnknownModelError(f"unknown model {name!r}.{hint} Known: {', '.join(SPECS)}")
    return SPECS[name]
