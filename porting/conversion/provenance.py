"""The record of a converted model: what was converted, from where, by which versions, for what."""

import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from keras_alexnet.core.machine import installed_versions
from keras_alexnet.specs.preprocessing import Preprocessing
from porting.conversion.network import Network
from porting.conversion.sources import Source
from porting.errors import UsageError
from porting.graph.builder import Built
from porting.torch_side.weights_info import WeightsInfo
from porting.weights.transfer import carried_by, counterpart_of

_PACKAGES = ("keras-alexnet", "keras", "torch", "torchvision", "timm", "numpy")


def record_of(
    source: Source,
    model: Any,
    include_preprocessing: bool,
    aux_heads: bool,
    labels: Sequence[str] | None,
) -> dict[str, Any]:
    """Return the record of a converted model, as `keras_alexnet.models.record.save_model` takes it.

    `model` has the weights of `source`; the other arguments are those of `convert.convert`.

    Raises:
        UsageError: The weights need another preprocessing than the model includes.
    """
    info, preprocessing = source.info, source.spec.preprocessing
    if info is not None:
        preprocessing = Preprocessing.from_record(info.preprocessing)
        if include_preprocessing and preprocessing != source.spec.preprocessing:
            raise UsageError(
                f"torchvision's {info.name} needs {preprocessing}, which the model cannot include"
            )
    return {
        "model": {
            "name": source.spec.name,
            "classes": source.classes,
            "include_preprocessing": include_preprocessing,
            "transform_input": source.transform_input,
            "aux_heads": aux_heads,
            "input_shape": list(model.input_shape[1:]),
        },
        "source": {
            "file": source.path.name,
            "sha256": source.digest,
            **_announced(info),
            "notes": list(source.checkpoint.notes),
        },
        "preprocessing": asdict(preprocessing),
        "labels": list(labels) if labels is not None else None,
        "num_batches_tracked": counters_of(model),
        "versions": _versions(),
    }


def graph_record(
    network: Network,
    built: Built,
    *,
    include_preprocessing: bool,
    labels: Sequence[str] | None,
    gap: float | None,
) -> dict[str, Any]:
    """Return the record of a model that was made of any torch network.

    `gap` is how far its logits were from torch's, relative to the largest, None where nobody
    compared them; the other arguments are those of `networks.save_network`.
    """
    info = network.info if network.official is not None else None
    preprocessing = network.preprocessing
    return {
        "model": {
            "name": network.target.name,
            "target": network.target.title,
            "classes": network.classes,
            "outputs": [output.name for output in built.counterpart.outputs],
            "include_preprocessing": include_preprocessing,
            **_inputs_of(built.model),
        },
        "source": {
            "file": network.weights.name if network.digest else None,
            "sha256": network.digest,
            **_announced(info),
            "notes": list(network.notes),
            "unused": [entry.key for entry in built.counterpart.carried if not entry.counter],
        },
        "preprocessing": asdict(preprocessing) if preprocessing else None,
        "labels": list(labels) if labels is not None else None,
        "num_batches_tracked": counters_of(built.model),
        "proof": {"logits": gap},
        "counterpart": built.counterpart.to_json(),
        "versions": _versions(),
    }


def _inputs_of(model: Any) -> dict[str, Any]:
    if len(model.inputs) == 1:
        return {"input_shape": list(model.input_shape[1:])}
    return {"inputs": {each.name: list(each.shape[1:]) for each in model.inputs}}


def _announced(info: WeightsInfo | None) -> dict[str, Any]:
    """Return what torchvision says of its own weights."""
    return {
        "weights": info.name if info else None,
        "url": info.url if info else None,
        "metrics": info.metrics if info else None,
    }


def counters_of(model: Any) -> dict[str, int]:
    """Return the counters of batches kept beside a model, as JSON holds them."""
    kept = carried_by(model)
    counted = [entry.key for entry in counterpart_of(model).carried if entry.counter]
    return {key: int(kept[key]) for key in counted if key in kept}


def _versions() -> dict[str, str | None]:
    return {
        **dict.fromkeys(_PACKAGES),
        **installed_versions(_PACKAGES),
        "backend": os.environ.get("KERAS_BACKEND", ""),
    }
