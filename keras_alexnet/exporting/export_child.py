"""Child process: loads a `.keras` file on the backend that can, computes with it, exports it."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from keras_alexnet.core.backend import require
from keras_alexnet.core.children import enter_child
from keras_alexnet.errors import ModelFileError
from keras_alexnet.exporting.formats import FORMATS, ExportFormat
from keras_alexnet.exporting.samples import fixed_inputs, load, samples
from keras_alexnet.models.interface import alone_or_list
from keras_alexnet.models.record import ModelInput, read_record

Shape = tuple[int | None, ...]  # of a batch; None where any number will do

# Weights that an ONNX file holds beside its graph: a protobuf ends at 2 GiB.
_ONNX_BYTES = 2_000_000_000


def export(job: dict[str, Any]) -> dict[str, Any]:
    """Export a model and write samples with the model's outputs for them.

    The job names `model`, `format`, `output`, `batch_size` (None: dynamic), `samples` (a `.npz` to
    write: `SET/input/NAME` and `SET/output/NAME`), and for int8 of TFLite `calibration`, image
    files for the only input.

    Returns:
        `inputs` (name -> `ModelInput`), `outputs` (names in the file's order), `versions`, and
        `sensitive`, the names of the layers that int8 harms.
    """
    from keras_alexnet.layers import LocalResponseNormalization, keras
    from keras_alexnet.models.fast.quicken import restore
    from keras_alexnet.models.weights import load_model

    # On TensorFlow this splits grouped convolutions, which no converter knows as XLA has them.
    model = load_model(job["model"])
    # A model that was never called is none that Keras exports; `_reference` calls it.
    inputs = fixed_inputs(model, read_record(job["model"]))
    _check_precision(model)
    names, tensors = _outputs(model)
    _reference(model, names, inputs, job["samples"])
    format_ = FORMATS[job["format"]]
    if format_.quantizers is not None:
        # Quantisers take a product of matrices, but not the sum that is faster on TensorFlow.
        restore(model, keras.layers.Dense)
    if format_.positional:
        # A list has the same order everywhere; the order of a dict is each converter's own.
        model = keras.Model(model.inputs, tensors, name=model.name)
        model(alone_or_list([np.zeros((1, *e.image_shape), np.float32) for e in inputs.values()]))
    shapes = {name: (job["batch_size"], *takes.image_shape) for name, takes in inputs.items()}
    if format_.name == "onnx":
        _write_onnx(model, job["output"], names, shapes)
    else:
        specs = [keras.InputSpec(shape=s, dtype="float32", name=n) for n, s in shapes.items()]
        model.export(
            job["output"],
            format=format_.keras_name,
            verbose=False,
            input_signature=[alone_or_list(specs)],
            **_options(format_, inputs, job),
        )
    if format_.name == "openvino":
        _name_openvino(job["output"], names, shapes)
    versions = {name: require(name).__version__ for name in ("keras", format_.backend)}
    # LRN squares its input, whose range int8 then cannot hold.
    sensitive = [e.name for e in model.layers if isinstance(e, LocalResponseNormalization)]
    takes = {name: asdict(each) for name, each in inputs.items()}
    return {"inputs": takes, "outputs": names, "versions": versions, "sensitive": sensitive}


def _check_precision(model: Any) -> None:
    policies = {layer.compute_dtype for layer in model.layers} - {"float32"}
    if policies:
        raise ModelFileError(
            f"{model.name} computes in {', '.join(sorted(policies))}; only float32 models are "
            "exported. Build it with dtype='float32', set its weights, and save that"
        )


def _outputs(model: Any) -> tuple[list[str], list[Any]]:
    """Return the names of a model's outputs and their tensors, in the order of Keras' trees."""
    structure = getattr(model, "output", model.outputs[0])
    if isinstance(structure, dict):
        names = sorted(structure)
        return names, [structure[name] for name in names]
    if isinstance(structure, list | tuple):
        raise ModelFileError(
            f"{model.name} has a list of outputs; several outputs must be a dict of them by name"
        )
    return ["logits"], [structure]


def _reference(model: Any, names: list[str], inputs: Mapping[str, ModelInput], path: str) -> None:
    """Write the samples and what the model makes of them; a ModelFileError if it is not finite."""
    from keras_alexnet.layers import keras

    arrays: dict[str, np.ndarray] = {}
    for key, given in samples(inputs).items():
        arrays |= {f"{key}/input/{name}": array for name, array in given.items()}
        result = model(alone_or_list(list(given.values())), training=False)
        values = result if isinstance(result, dict) else {names[0]: result}
        for name in names:
            value = np.asarray(keras.ops.convert_to_numpy(values[name]))
            if not np.isfinite(value).all():
                raise ModelFileError(f"{model.name}: its output {name!r} is not finite")
            arrays[f"{key}/output/{name}"] = value
    np.savez(path, **arrays)  # type: ignore[arg-type]


def _options(
    format_: ExportFormat, inputs: Mapping[str, ModelInput], job: dict[str, Any]
) -> dict[str, Any]:
    """Return what Keras' exporter of the format takes beside the rest."""
    if format_.name == "torch" and job["batch_size"] is None:
        # Keras then samples a batch of 2: torch takes a 1 for a constant.
        batch = {0: require("torch").export.Dim("batch")}
        return {"dynamic_shapes": [(alone_or_list([batch] * len(inputs)),)]}
    if format_.name == "tflite" and job.get("calibration"):
        lite, (takes,) = require("tensorflow").lite, inputs.values()

        def representative() -> Any:
            for path in job["calibration"]:
                images = load(takes, [path])
                yield [np.repeat(images, job["batch_size"] or 1, axis=0)]

        return {
            "optimizations": [lite.Optimize.DEFAULT],
            "representative_dataset": representative,
            "target_spec": {"supported_ops": [lite.OpsSet.TFLITE_BUILTINS_INT8]},
        }
    return {}


def _write_onnx(model: Any, path: str, names: list[str], shapes: Mapping[str, Shape]) -> None:
    """Write an ONNX file by torch's exporter, which names the inputs and outputs."""
    _check_size(model)
    torch = require("torch")

    class Called(torch.nn.Module):  # type: ignore[name-defined]
        """The model as torch calls one: with each input for itself."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *given: Any) -> Any:
            return self.model(alone_or_list(list(given)))

    # Torch takes a batch of 1 for a constant.
    examples = tuple(torch.zeros((batch or 2, *rest)) for batch, *rest in shapes.values())
    batch = torch.export.Dim("batch")
    free = tuple({0: batch} for shape in shapes.values() if shape[0] is None)
    program = torch.onnx.export(
        Called().eval(),
        examples,
        dynamo=True,
        input_names=list(shapes),
        output_names=names,
        dynamic_shapes=(free,) if free else None,
        verbose=False,
    )
    # Its own `save` puts the weights of large models into a second file.
    require("onnx").save(program.model_proto, path)


def _check_size(model: Any) -> None:
    """Refuse a model that one file does not hold, before minutes are spent on it."""
    size = sum(4 * math.prod(variable.shape) for variable in model.variables)
    if size > _ONNX_BYTES:
        raise ModelFileError(
            f"{model.name} has {size / 1e9:.1f} GB of weights; an ONNX file holds "
            f"{_ONNX_BYTES / 1e9:.1f} GB. Use --format openvino, torch or saved_model"
        )


def _name_openvino(path: str, names: list[str], shapes: Mapping[str, Shape]) -> None:
    """Name the inputs and outputs of an OpenVINO file, drop further outputs, write it anew."""
    openvino = require("openvino")
    model = openvino.Core().read_model(path)
    for each, given in zip(model.inputs, shapes, strict=True):
        each.tensor.set_names({given})
    model.reshape({name: [-1 if n is None else n for n in shape] for name, shape in shapes.items()})
    # The converter also makes outputs of what tf.custom_gradient wraps, as in our LRN. Those that
    # are meant have TensorFlow's names of a function's results, in their order.
    ours = {f"Identity{f'_{i}' if i else ''}:0": name for i, name in enumerate(names)}
    for output in list(model.outputs):
        name = next((ours.pop(known) for known in output.names if known in ours), None)
        if name is None:
            model.remove_result(output.get_node())
        else:
            output.tensor.set_names({name})
    if ours:
        raise ValueError(f"OpenVINO's converter lost the outputs {', '.join(ours.values())}")
    new = Path(path).with_name(f"named-{Path(path).name}")
    # The weights of the model that was read are mapped from its file, which must stay meanwhile.
    openvino.save_model(model, new, compress_to_fp16=False)
    del model
    for suffix in (".bin", ".xml"):
        new.with_suffix(suffix).replace(Path(path).with_suffix(suffix))


if __name__ == "__main__":
    enter_child(export)
