"""Child process: the Keras model of a check on one backend, layer by layer.

The file is loaded as Keras loads it. For other sizes and the other data format the same network is
built anew and takes over the loaded weights. Writes two `.npz` per data format, named and laid out
as the reference's: the forward pass, and the gradients of the Keras variables. Before a check it
can make the file: importing Keras takes longer than that.
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from keras_alexnet.core.backend import load_keras, require
from keras_alexnet.core.children import enter_child, report_progress
from keras_alexnet.data.preprocessing import normalize
from keras_alexnet.models.interface import (
    data_formats,
    is_channels_first,
    is_preprocessing,
    named_outputs,
    takes_pixels,
)
from keras_alexnet.models.weights import copy_by_name
from keras_alexnet.specs.preprocessing import Preprocessing
from keras_alexnet.specs.shared import TRANSFORM_INPUT_OFFSET, TRANSFORM_INPUT_SCALE
from porting.checks.gradients import weight_gradients
from porting.checks.inputs import InputSet
from porting.checks.precision import float64_allowed, full_precision
from porting.conversion.convert import convert, load_model
from porting.graph.builder import build
from porting.graph.plan import Plan
from porting.weights.counterpart import Counterpart
from porting.weights.layouts import as_model_input, nchw_to_nhwc, nhwc_to_nchw
from porting.weights.recognition import Architecture, architecture_of, variables_of
from porting.weights.table import Size
from porting.weights.transfer import counterpart_of, fill, to_state_dict, unfilled_model

_BATCH = 32
# Keras colours its messages for terminals.
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def main(job: dict[str, Any]) -> None:
    """Run one backend's part of a check, or make the file for one."""
    if "conversion" in job:
        convert(**job["conversion"])
    else:
        _compute(job)


def _compute(job: dict[str, Any]) -> None:
    keras = load_keras()
    full_precision(keras.backend.backend())
    model = load_model(job["candidate"])
    variants: _Variants
    if job["plan"] is None:
        variants = _SpecVariants(model, Counterpart.from_json(job["counterpart"]))
    else:
        variants = _GraphVariants(model, Plan.load(job["plan"]))
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


@dataclass(frozen=True)
class _Settings:
    """How a variant is built: what it does to its images first, and Keras' dtype policy."""

    preprocessing: Preprocessing | None = None
    transform_input: bool = False
    dtype: Any = None


class _Variants(ABC):
    """The loaded model at other input sizes and in the other data format, weights shared."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.preprocessing = takes_pixels(model)
        self.transform_input = any(layer.name == "transform_input" for layer in model.layers)
        self._latest: tuple[Any, Any] = (None, None)
        self._recorder: tuple[Any, Any] = (None, None)

    @abstractmethod
    def is_own(self, size: Size, data_format: str) -> bool:
        """Return whether the loaded model itself takes images of this size and format."""

    @abstractmethod
    def counterpart(self, data_format: str) -> Counterpart:
        """Return what of a variant corresponds to what of the torch network."""

    @abstractmethod
    def build(self, size: Size, data_format: str, settings: _Settings) -> Any:
        """Return a new model with the loaded weights."""

    def get(self, inputs: InputSet, data_format: str) -> Any:
        """Return the model for images of a set in a data format."""
        if self.is_own(inputs.size, data_format):
            return self.model
        if self._latest[0] != (inputs.size, data_format):
            settings = _Settings(
                inputs.preprocessing if self.preprocessing else None,
                self.transform_input,
                self.model.dtype_policy,
            )
            model = self.build(inputs.size, data_format, settings)
            self._latest = ((inputs.size, data_format), model)
        return self._latest[1]

    def recorder(self, inputs: InputSet, data_format: str) -> Any:
        """Return what computes the compared layers, by their torch names, and the input."""
        key = (inputs.size, data_format)
        if self._recorder[0] != key:
            model, counterpart = self.get(inputs, data_format), self.counterpart(data_format)
            made = {operation.name: operation for operation in model.operations}
            nodes = {f"layer/{pair.module}": made[pair.layer].output for pair in counterpart.pairs}
            normalised = [layer.output for layer in model.layers if is_preprocessing(layer)]
            nodes["input"] = (
                made[counterpart.first_layer].input
                if counterpart.first_layer is not None
                else normalised[-1]
                if normalised
                else model.inputs[0]
            )
            self._recorder = (key, load_keras().Model(model.input, nodes))
        return self._recorder[1]


class _SpecVariants(_Variants):
    """A model of one of our architectures."""

    def __init__(self, model: Any, counterpart: Counterpart) -> None:
        super().__init__(model)
        self._architecture: Architecture = architecture_of(model)
        self._counterpart = counterpart
        (self._data_format,) = data_formats(model.layers)

    def is_own(self, size: Size, data_format: str) -> bool:
        return data_format == self._data_format and self._architecture.size == size

    def counterpart(self, data_format: str) -> Counterpart:
        return self._counterpart

    def build(self, size: Size, data_format: str, settings: _Settings) -> Any:
        channels, last = self._architecture.channels, data_format == "channels_last"
        variant = unfilled_model(
            self._architecture.spec,
            classes=self._architecture.classes,
            aux_heads=self._architecture.aux_heads,
            input_shape=(*size, channels) if last else (channels, *size),
            data_format=data_format,
            include_preprocessing=settings.preprocessing is not None,
            transform_input=settings.transform_input,
            dtype=settings.dtype,
        )
        copy_by_name(self.model, variant)
        return variant


class _GraphVariants(_Variants):
    """A model that was made of a torch network's graph, at the one size of its plan."""

    def __init__(self, model: Any, plan: Plan) -> None:
        super().__init__(model)
        self._plan = plan
        self._first = is_channels_first(model)
        self._counterparts: dict[str, Counterpart] = {}

    def is_own(self, size: Size, data_format: str) -> bool:
        return (data_format == "channels_first") == self._first

    def counterpart(self, data_format: str) -> Counterpart:
        if (data_format == "channels_first") == self._first:
            return counterpart_of(self.model)
        return self._counterparts[data_format]

    def build(self, size: Size, data_format: str, settings: _Settings) -> Any:
        built = build(self._plan, data_format, settings.dtype, settings.preprocessing)
        # By torch's keys: the rows behind a flatten have another order in the other data format.
        held = {put.key for put in built.counterpart.puts}
        arrays = to_state_dict(self.model, framework="numpy")
        fill(
            variables_of(built.model),
            built.counterpart,
            {key: array for key, array in arrays.items() if key in held},
        )
        self._counterparts[data_format] = built.counterpart
        return built.model


def _forward(
    variants: _Variants, sets: Iterable[InputSet], data_format: str, job: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Return the pixels, logits and layers of all input sets."""
    results: dict[str, np.ndarray] = {}
    for inputs in sets:
        report_progress(f"{data_format}: {inputs.name}")
        model = variants.get(inputs, data_format)
        pixels = inputs.pixels()
        images = pixels if variants.preprocessing else normalize(pixels, inputs.preprocessing)
        given = _given(images, inputs, data_format)
        results[f"pixels/{inputs.name}"] = pixels
        logits = model.predict(given, batch_size=_BATCH, verbose=0)
        returned = named_outputs(logits)
        for output in variants.counterpart(data_format).outputs:
            if output.name in returned:
                results[f"logits/{inputs.name}/{output.name}"] = output.to_torch(
                    _float32(returned[output.name]), data_format
                )

        report_progress(f"{data_format}: {inputs.name}, layers")
        recorder = variants.recorder(inputs, data_format)
        transforms = {
            f"layer/{pair.module}": pair.transform
            for pair in variants.counterpart(data_format).pairs
        }
        few = load_keras().tree.map_structure(lambda each: each[: job["layer_images"]], given)
        for name, value in recorder.predict_on_batch(few).items():
            kind, *module = name.split("/", maxsplit=1)
            array, transform = _float32(value), transforms.get(name)
            if transform is not None:
                array = transform.to_torch(array)
            elif array.ndim == 4 and data_format == "channels_first":
                array = nchw_to_nhwc(array)
            results["/".join([kind, inputs.name, *module])] = array
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
    with float64_allowed(job["backend"]):
        model = variants.build(inputs.size, data_format, _Settings(dtype="float64"))
        given = _given(images, inputs, data_format)
        gradients = weight_gradients(job["backend"], model, given)
    found = {
        variable.path: gradient
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True)
    }
    return {
        f"gradient/{put.key}": put.to_torch(found[put.variable])
        for put in variants.counterpart(data_format).puts
        if put.variable in found
    }


def _given(images: np.ndarray, inputs: InputSet, data_format: str) -> Any:
    """Return what a model takes: images (N, H, W, C) in a data format, and what is beside them.

    It is as much of the set as there are images, in their precision.
    """
    others = (each[: len(images)] for each in inputs.others())
    return as_model_input([nhwc_to_nchw(images), *others], data_format, images.dtype)


def _float32(value: Any) -> np.ndarray:
    return np.asarray(value).astype(np.float32, copy=False)


if __name__ == "__main__":
    enter_child(main)
