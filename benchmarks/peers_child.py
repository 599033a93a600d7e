"""Child process of `peers.py`: one task in one interpreter, which needs nothing of this project.

The project's own converter alone is imported where its task runs. A job is JSON on the command
line; the answer is a JSON file, as converters print whatever they like.
"""

import json
import sys
import traceback
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np

# Exporter -> opset; the first one leaves batch norms as they are, the second is torch's default.
EXPORTERS = {"torchscript": 17, "dynamo": 18}
_AUXILIARY = ("googlenet", "inception_v3")


def _torch_net(job: dict[str, Any]) -> Any:
    """Return torchvision's network with the weights that the parent drew."""
    from safetensors.torch import load_file
    from torchvision import models

    options = {"aux_logits": True, "transform_input": False, "init_weights": False}
    chosen = options if job["network"] in _AUXILIARY else {}
    net = models.get_model(job["network"], weights=None, **chosen).eval()
    net.load_state_dict(load_file(Path(job["folder"], "weights.safetensors")))
    return net


def _example(job: dict[str, Any]) -> Any:
    import torch

    return torch.from_numpy(_proof(job)[0])


def _proof(job: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    with np.load(Path(job["folder"], "proof.npz")) as arrays:
        return arrays["images"], arrays["outputs/logits"]


def _export(job: dict[str, Any]) -> dict[str, Any]:
    """Write an ONNX file with a symbolic batch."""
    import torch

    name, net, images = job["exporter"], _torch_net(job), _example(job)
    options: dict[str, Any] = {"dynamic_shapes": [{0: torch.export.Dim("batch")}]}
    if name == "torchscript":
        keep = torch.onnx.TrainingMode.PRESERVE
        options = {"dynamic_axes": {"images": {0: "batch"}}, "training": keep}
    torch.onnx.export(
        net,
        (images,),
        Path(job["folder"], f"{name}.onnx"),
        dynamo=name == "dynamo",
        external_data=False,
        opset_version=EXPORTERS[name],
        input_names=["images"],
        output_names=["logits"],
        **options,
    )
    return {}


def _onnx2keras(job: dict[str, Any]) -> Any:
    graph = import_module("onnx").load(job["onnx"])
    last = job["variant"] == "channels_last"
    convert = import_module("onnx2keras").onnx_to_keras
    return convert(graph, ["images"], change_ordering=last, verbose=False)


def _onnx2tf(job: dict[str, Any]) -> Any:
    folder, direct = Path(job["file"]).with_suffix(""), job["variant"] == "flatbuffer_direct"
    model = import_module("onnx2tf").convert(
        input_onnx_file_path=job["onnx"],
        output_folder_path=str(folder),
        output_keras_v3=direct,  # which then is all that there is
        tflite_backend=job["variant"],
        verbosity="error",
    )
    if direct:
        next(folder.glob("*_v3.keras")).rename(job["file"])
        model = import_module("tf_keras").models.load_model(job["file"], compile=False)
    return model


def _nobuco(job: dict[str, Any]) -> Any:
    images = _example(job)
    shapes = {images: (None, *images.shape[1:])}
    convert = import_module("nobuco").pytorch_to_keras
    return convert(_torch_net(job), [images], input_shapes=shapes)


def _keras_hub(job: dict[str, Any]) -> Any:
    """Let KerasHub take the weights for timm's, whose names it knows; some are torchvision's."""
    preset = Path(job["folder"], "preset")
    preset.mkdir(exist_ok=True)
    (preset / "model.safetensors").write_bytes(
        Path(job["folder"], "weights.safetensors").read_bytes()
    )
    content = {"architecture": job["network"], "num_classes": len(_proof(job)[1][0])}
    (preset / "config.json").write_text(json.dumps(content))
    models = import_module("keras_hub").models
    return models.ImageClassifier.from_preset(str(preset), preprocessor=None)


def _wrapper(job: dict[str, Any]) -> Any:
    import keras

    images, logits = _proof(job)
    layer = keras.layers.TorchModuleWrapper(_torch_net(job), output_shape=(None, logits.shape[1]))
    return keras.Sequential([keras.Input(images.shape[1:]), layer])


def _porting(job: dict[str, Any]) -> Any:
    import keras

    from porting.conversion.network import Network
    from porting.conversion.networks import save_network

    save_network(Network.from_json(job["own"]), Path(job["file"]))
    return keras.saving.load_model(job["file"])


_CONVERTERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "porting": _porting,
    "onnx2keras": _onnx2keras,
    "onnx2tf": _onnx2tf,
    "nobuco": _nobuco,
    "keras-hub": _keras_hub,
    "TorchModuleWrapper": _wrapper,
}
_PACKAGES = {"porting": "keras-alexnet", "TorchModuleWrapper": "keras"}


def _gap(compute: Callable[[np.ndarray], Any], model: Any, job: dict[str, Any]) -> float:
    """Return the largest difference from torch's logits, relative to the largest of them."""
    images, wanted = _proof(job)
    if model.input_shape[1] != images.shape[1]:
        images = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    found = compute(images)
    found = list(found.values()) if isinstance(found, dict) else found
    found = found[0] if isinstance(found, list | tuple) else found
    found = found.detach() if hasattr(found, "detach") else found
    return float(np.abs(np.asarray(found) - wanted).max() / np.abs(wanted).max())


def _convert(job: dict[str, Any]) -> dict[str, Any]:
    """Convert, compare, count, save, and then call the model as a layer is called."""
    model = _CONVERTERS[job["peer"]](job)
    layers = list(model._flatten_layers())
    parts = [p for layer in layers for p in (layer.module.modules() if _wraps(layer) else [layer])]
    answer = {
        "gap": _gap(model.predict_on_batch, model, job),
        "trainable": sum(int(np.prod(v.shape)) for v in model.trainable_weights),
        "norms": sum("BatchNorm" in type(part).__name__ for part in parts),
        "version": metadata.version(_PACKAGES.get(job["peer"], job["peer"])),
        "keras": _keras_of(model),
    }
    # Some write every weight as a text, which may outlast the patience of the parent.
    _tell(job, answer | {"unsaved": ""})
    try:
        if not Path(job["file"]).exists():
            model.save(job["file"])
    except Exception as error:  # whatever a converter's layers raise
        answer["unsaved"] = _one_line(error)
    answer["plain"] = _gap(model, model, job)
    return answer


def _wraps(layer: Any) -> bool:
    return type(layer).__name__ == "TorchModuleWrapper"


def _keras_of(model: Any) -> str:
    package = next(c.__module__ for c in type(model).__mro__ if c.__name__ == "Model")
    name = package.partition(".")[0].replace("_", "-")
    return f"{name} {metadata.version(name)}"


def _open(job: dict[str, Any]) -> dict[str, Any]:
    """Open files as anyone would, and compare; an error is the result for that file."""
    import keras

    found: dict[str, Any] = {}
    for row, file in job["files"].items():
        try:
            model = keras.saving.load_model(file)
            found[row] = _gap(model.predict_on_batch, model, job)
        except Exception as error:  # whatever a file that is not meant for Keras makes it raise
            found[row] = _one_line(error)
        keras.backend.clear_session()
    return found


def _tell(job: dict[str, Any], answer: dict[str, Any]) -> None:
    Path(job["answer"]).write_text(json.dumps(answer))


def _one_line(error: BaseException) -> str:
    """Return the first line of what an error came from, or the one in which Keras tells it."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = "Exception encountered: "
    told = [line.removeprefix(cause) for line in lines if line.startswith(cause)] or lines or [""]
    return f"{type(error).__name__}: {told[0]}"[:300]


def main() -> None:
    """Do the job; a converter that ends the process leaves no answer."""
    job = json.loads(sys.argv[1])
    tasks = {"export": _export, "convert": _convert, "open": _open}
    try:
        answer = tasks[job["task"]](job)
    except Exception as error:  # whatever a converter raises on what it cannot do
        traceback.print_exc()
        answer = {"error": _one_line(error)}
    _tell(job, answer)


if __name__ == "__main__":
    main()
