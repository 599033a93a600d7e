"""Child process: the Keras model of a check on one backend, layer by layer.

The file is loaded with Keras alone. For other sizes and the other data format the same network is
built anew and takes over the loaded weights. Writes one `.npz` per data format, named and laid out
as the reference's; gradients are those of the Keras variables.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_alexnet.backend import load_keras, require
from keras_alexnet.preprocessing import normalize
from porting.children import enter_child
from porting.inputs import AUX_LOSS_WEIGHT, InputSet, gradient_labels
from porting.layouts import nchw_to_nhwc, nhwc_to_nchw
from porting.maps import first_weighted_layer, layer_pairs
from porting.transfer import Architecture, architecture_of

_BATCH = 32


def main(job: dict[str, Any]) -> None:
    """Run one backend's part of a check."""
    keras = load_keras()
    _full_precision(keras.backend.backend())
    model = keras.saving.load_model(job["candidate"], compile=False)
    variants = _Variants(model)
    for data_format, output in job["outputs"].items():
        results: dict[str, np.ndarray] = {}
        try:
            for fields in job["inputs"]:
                inputs = InputSet(**{**fields, "size": tuple(fields["size"])})
                results |= _run(variants, inputs, data_format, job)
        except Exception as error:
            # This cell cannot run; the others can. The error is the proof.
            message = str(error).strip() or type(error).__name__
            results = {"error": np.array(f"{type(error).__name__}: {message[:2000]}")}
        results["versions"] = np.array(
            json.dumps({name: require(name).__version__ for name in ("keras", job["backend"])})
        )
        np.savez(output, **results)  # type: ignore[arg-type]


class _Variants:
    """The loaded model at other input sizes and in the other data format, weights shared."""

    def __init__(self, model: Any) -> None:
        names = {layer.name for layer in model.layers}
        convolution = next(layer for layer in model.layers if hasattr(layer, "data_format"))
        self.architecture: Architecture = architecture_of(model)
        self.data_format: str = convolution.data_format
        self.preprocessing = "preprocessing_scale" in names
        self.transform_input = "transform_input" in names
        self._model = model
        self._size = self._size_of(model.input_shape)
        self._latest: tuple[Any, Any] = (None, None)

    def _size_of(self, shape: tuple[int | None, ...]) -> tuple[int | None, int | None]:
        axes = (1, 2) if self.data_format == "channels_last" else (2, 3)
        return shape[axes[0]], shape[axes[1]]

    def get(self, size: tuple[int, int], data_format: str) -> Any:
        """Return the model for images of `size` in `data_format`."""
        if data_format == self.data_format and self._size == size:
            return self._model
        if self._latest[0] != (size, data_format):
            self._latest = ((size, data_format), self._build(size, data_format))
        return self._latest[1]

    def _build(self, size: tuple[int, int], data_format: str) -> Any:
        from keras_alexnet import create_model

        options: dict[str, Any] = {}
        if self.architecture.spec.aux:
            options["aux_heads"] = self.architecture.aux_heads
        if self.architecture.spec.transform_input:
            options["transform_input"] = self.transform_input
        variant = create_model(
            self.architecture.spec.name,
            classes=self.architecture.classes,
            input_shape=(*size, 3) if data_format == "channels_last" else (3, *size),
            include_preprocessing=self.preprocessing,
            data_format=data_format,
            dtype=self._model.dtype_policy,
            **options,
        )
        for layer in variant.layers:
            if layer.weights:
                layer.set_weights(self._model.get_layer(layer.name).get_weights())
        return variant


def _run(
    variants: _Variants, inputs: InputSet, data_format: str, job: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Return the results of one input set."""
    keras = load_keras()
    architecture = variants.architecture
    model = variants.get(inputs.size, data_format)
    pixels = inputs.pixels()
    images = pixels if variants.preprocessing else normalize(pixels)
    if data_format == "channels_first":
        images = np.ascontiguousarray(nhwc_to_nchw(images))

    results = {f"pixels/{inputs.name}": pixels}
    logits = model.predict(images, batch_size=_BATCH, verbose=0)
    for output, value in _named(logits).items():
        results[f"logits/{inputs.name}/{output}"] = _float32(value)

    few = images[: job["layer_images"]]
    pairs = layer_pairs(architecture.spec, aux_heads=architecture.aux_heads)
    nodes = {f"layer/{inputs.name}/{p.module}": model.get_layer(p.layer).output for p in pairs}
    first = model.get_layer(first_weighted_layer(architecture.spec))
    nodes[f"input/{inputs.name}"] = first.input
    recorder = keras.Model(model.inputs, nodes)
    for name, value in recorder(keras.ops.convert_to_tensor(few), training=False).items():
        array = _float32(keras.ops.convert_to_numpy(value))
        to_last = array.ndim == 4 and data_format == "channels_first"
        results[name] = nchw_to_nhwc(array) if to_last else array

    if job["gradients"] == inputs.name:
        labels = gradient_labels(len(few), architecture.classes)
        gradients = _GRADIENTS[job["backend"]](model, few, labels)
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
            results[f"gradient/{variable.path}"] = _float32(gradient)
    return results


def _named(outputs: Any) -> dict[str, Any]:
    return outputs if isinstance(outputs, dict) else {"logits": outputs}


def _float32(value: Any) -> np.ndarray:
    return np.asarray(value).astype(np.float32, copy=False)


def _loss(outputs: Any, labels: np.ndarray) -> Any:
    keras = load_keras()
    total = 0.0
    for output, logits in _named(outputs).items():
        losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        total += keras.ops.mean(losses) * (1 if output == "logits" else AUX_LOSS_WEIGHT)
    return total


def _tensorflow_gradients(model: Any, images: np.ndarray, labels: np.ndarray) -> list[Any]:
    tf = require("tensorflow")
    with tf.GradientTape() as tape:
        loss = _loss(model(images, training=False), labels)
    variables = [variable.value for variable in model.trainable_variables]
    return [gradient.numpy() for gradient in tape.gradient(loss, variables)]


def _torch_gradients(model: Any, images: np.ndarray, labels: np.ndarray) -> list[Any]:
    keras = load_keras()
    _loss(model(keras.ops.convert_to_tensor(images), training=False), labels).backward()
    return [variable.value.grad.cpu().numpy() for variable in model.trainable_variables]


def _jax_gradients(model: Any, images: np.ndarray, labels: np.ndarray) -> list[Any]:
    jax = require("jax")
    fixed = [variable.value for variable in model.non_trainable_variables]

    def loss(trainable: list[Any]) -> Any:
        outputs, _ = model.stateless_call(trainable, fixed, images, training=False)
        return _loss(outputs, labels)

    trainable = [variable.value for variable in model.trainable_variables]
    return list(jax.jit(jax.grad(loss))(trainable))


_GRADIENTS = {
    "tensorflow": _tensorflow_gradients,
    "torch": _torch_gradients,
    "jax": _jax_gradients,
}


def _full_precision(backend: str) -> None:
    """Switch off TF32 and its like, which break agreement at 1e-5."""
    if backend == "tensorflow":
        require("tensorflow").config.experimental.enable_tensor_float_32_execution(False)
    elif backend == "torch":
        torch = require("torch")
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
    else:
        require("jax").config.update("jax_default_matmul_precision", "highest")


if __name__ == "__main__":
    enter_child(main)
