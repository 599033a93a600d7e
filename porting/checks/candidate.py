"""Child process: the Keras model of a check on one backend, layer by layer.

The file is loaded as Keras loads it. For other sizes and the other data format the same network is
built anew and takes over the loaded weights. Writes two `.npz` per data format, named and laid out
as the reference's: the forward pass, and the gradients of the Keras variables.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np

from keras_alexnet.core.backend import load_keras, require
from keras_alexnet.core.children import enter_child, report_progress
from keras_alexnet.data.preprocessing import normalize
from keras_alexnet.models.interface import data_formats, named_outputs, takes_pixels
from keras_alexnet.models.weights import copy_by_name, load_model
from keras_alexnet.specs.shared import TRANSFORM_INPUT_OFFSET, TRANSFORM_INPUT_SCALE
from porting.checks.gradients import weight_gradients
from porting.checks.inputs import InputSet, gradient_labels
from porting.checks.precision import float64_allowed, full_precision
from porting.weights.counterpart import Counterpart
from porting.weights.layouts import nchw_to_nhwc, nhwc_to_nchw
from porting.weights.recognition import Architecture, architecture_of
from porting.weights.transfer import unfilled_model

_BATCH = 32
# Keras colours its messages for terminals.
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def main(job: dict[str, Any]) -> None:
    """Run one backend's part of a check."""
    keras = load_keras()
    full_precision(keras.backend.backend())
    model = load_model(job["candidate"])
    variants = _Variants(model, Counterpart.from_json(job["counterpart"]))
    inputs = {fields["name"]: InputSet.from_json(fields) for fields in job["inputs"]}
    versions = {name: require(name).__version__ for name in ("keras", job["backend"])}

    def write(output: str, compute: Callable[[], dict[str, np.ndarray]]) -> None:
        try:
            results = compute()
        except Exception as error:
            # This part cannot run; the others can. The error is the proof.
            message = _COLOURS.sub("", str(error)).strip()
            results = {"error": np.array(f"{type(error).__name__}: {message[:2000]}")}
        np.savez(output, versions=np.array(json.dumps(versions)), **results)  # type: ignore[arg-type]

    for data_format, output in job["outputs"].items():
        write(output, partial(_forward, variants, inputs.values(), data_format, job))
    for data_format, output in job["gradient_outputs"].items():
        write(output, partial(_gradients, variants, inputs[job["gradients"]], data_format, job))


class _Variants:
    """The loaded model at other input sizes and in the other data format, weights shared."""

    def __init__(self, model: Any, counterpart: Counterpart) -> None:
        self.architecture: Architecture = architecture_of(model)
        self._counterpart = counterpart
        (self.data_format,) = data_formats(model.layers)
        self.preprocessing = takes_pixels(model)
        self.transform_input = any(layer.name == "transform_input" for layer in model.layers)
        self._model = model
        self._latest: tuple[Any, Any] = (None, None)
        self._recorder: tuple[Any, Any] = (None, None)

    def get(self, size: tuple[int, int], data_format: str) -> Any:
        """Return the model for images of `size` in `data_format`."""
        if data_format == self.data_format and self.architecture.size == size:
            return self._model
        if self._latest[0] != (size, data_format):
            model = self.build(
                size,
                data_format,
                include_preprocessing=self.preprocessing,
                transform_input=self.transform_input,
                dtype=self._model.dtype_policy,
            )
            self._latest = ((size, data_format), model)
        return self._latest[1]

    def recorder(self, size: tuple[int, int], data_format: str) -> Any:
        """Return what computes the compared layers, by their torch names, and the input."""
        if self._recorder[0] != (size, data_format):
            model, counterpart = self.get(size, data_format), self._counterpart
            nodes = {
                f"layer/{pair.module}": model.get_layer(pair.layer).output
                for pair in counterpart.pairs
            }
            nodes["input"] = model.get_layer(counterpart.first_layer).input
            self._recorder = ((size, data_format), load_keras().Model(model.input, nodes))
        return self._recorder[1]

    def build(self, size: tuple[int, int], data_format: str, **options: Any) -> Any:
        """Return a new model with the loaded weights."""
        channels, last = self.architecture.channels, data_format == "channels_last"
        variant = unfilled_model(
            self.architecture.spec,
            classes=self.architecture.classes,
            aux_heads=self.architecture.aux_heads,
            input_shape=(*size, channels) if last else (channels, *size),
            data_format=data_format,
            **options,
        )
        copy_by_name(self._model, variant)
        return variant


def _forward(
    variants: _Variants, sets: Iterable[InputSet], data_format: str, job: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Return the pixels, logits and layers of all input sets."""
    results: dict[str, np.ndarray] = {}
    for inputs in sets:
        report_progress(f"{data_format}: {inputs.name}")
        model = variants.get(inputs.size, data_format)
        pixels = inputs.pixels()
        images = pixels if variants.preprocessing else normalize(pixels, inputs.preprocessing)
        images = _placed(images, data_format)
        results[f"pixels/{inputs.name}"] = pixels
        logits = model.predict(images, batch_size=_BATCH, verbose=0)
        for output, value in named_outputs(logits).items():
            results[f"logits/{inputs.name}/{output}"] = _float32(value)

        report_progress(f"{data_format}: {inputs.name}, layers")
        recorder = variants.recorder(inputs.size, data_format)
        for name, value in recorder.predict_on_batch(images[: job["layer_images"]]).items():
            kind, *module = name.split("/", maxsplit=1)
            array = _float32(value)
            to_last = array.ndim == 4 and data_format == "channels_first"
            key = "/".join([kind, inputs.name, *module])
            results[key] = nchw_to_nhwc(array) if to_last else array
    return results


def _gradients(
    variants: _Variants, inputs: InputSet, data_format: str, job: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Return the gradient of every weight, computed in float64 from the normalised images."""
    report_progress(f"{data_format}: gradients")
    pixels = inputs.pixels()[: job["layer_images"]]
    images = normalize(pixels, inputs.preprocessing).astype(np.float64)
    if variants.transform_input:
        images = images * TRANSFORM_INPUT_SCALE + TRANSFORM_INPUT_OFFSET
    labels = gradient_labels(len(images), variants.architecture.classes)
    with float64_allowed(job["backend"]):
        model = variants.build(inputs.size, data_format, transform_input=False, dtype="float64")
        gradients = weight_gradients(job["backend"], model, _placed(images, data_format), labels)
    return {
        f"gradient/{variable.path}": gradient
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True)
    }


def _placed(images: np.ndarray, data_format: str) -> np.ndarray:
    """Return images (N, H, W, C) in a data format."""
    return images if data_format == "channels_last" else np.ascontiguousarray(nhwc_to_nchw(images))


def _float32(value: Any) -> np.ndarray:
    return np.asarray(value).astype(np.float32, copy=False)


if __name__ == "__main__":
    enter_child(main)
