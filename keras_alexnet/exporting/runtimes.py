"""Child process: runs exported files with their own runtimes, without Keras.

Each opener returns a function from float32 batches by the inputs' names, in the model's order, to
the outputs by name.
"""

import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from keras_alexnet.core.backend import require
from keras_alexnet.core.children import enter_child
from keras_alexnet.errors import ModelFileError
from keras_alexnet.exporting.formats import FORMATS
from keras_alexnet.exporting.samples import load
from keras_alexnet.models.interface import alone_or_list
from keras_alexnet.models.record import ModelInput

Outputs = dict[str, np.ndarray]
Inputs = Mapping[str, np.ndarray]
Run = Callable[[Inputs], Outputs]
_WARM = 3  # batches before the timing


def _onnxruntime(path: str) -> Run:
    session = require("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda x: dict(zip(names, session.run(names, dict(x)), strict=True))


def _openvino(path: str) -> Run:
    # Without the hint it computes in bfloat16 where the processor can.
    compiled = require("openvino").compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = [output.any_name for output in compiled.outputs]

    def run(x: Inputs) -> Outputs:
        results = compiled(dict(x))
        # Its memory is written to again by the next call.
        return {name: np.array(results[index]) for index, name in enumerate(names)}

    return run


def _litert(path: str) -> Run:
    package = FORMATS["tflite"].runtime()
    if package == "tensorflow":
        interpreter = require(package).lite.Interpreter(path)
    else:
        interpreter = require(f"{package}.interpreter").Interpreter(path)
    runner = interpreter.get_signature_runner()
    inputs = {name: entry["index"] for name, entry in runner.get_input_details().items()}
    places = {name: entry["index"] for name, entry in runner.get_output_details().items()}
    shapes: dict[int, tuple[int, ...]] = {}

    def run(x: Inputs) -> Outputs:
        # A single one may have another name.
        given = (
            dict(zip(inputs.values(), x.values(), strict=True))
            if len(x) == 1
            else {inputs[name]: array for name, array in x.items()}
        )
        if shapes != (new := {place: array.shape for place, array in given.items()}):
            for place, shape in new.items():
                interpreter.resize_tensor_input(place, shape)
            interpreter.allocate_tensors()
            shapes.clear()
            shapes.update(new)
        for place, array in given.items():
            interpreter.set_tensor(place, array)
        interpreter.invoke()
        return {name: interpreter.get_tensor(place) for name, place in places.items()}

    return run


def _saved_model(path: str) -> Run:
    tensorflow = require("tensorflow")
    loaded = tensorflow.saved_model.load(path)  # owns the variables of what it serves
    return lambda x: _by_name(loaded.serve(alone_or_list([*map(tensorflow.constant, x.values())])))


def _torch(path: str) -> Run:
    torch = require("torch")
    module = torch.export.load(path).module()

    def run(x: Inputs) -> Outputs:
        with torch.no_grad():
            return _by_name(module(alone_or_list([*map(torch.from_numpy, x.values())])))

    return run


def _by_name(result: Any) -> Outputs:
    values = result if isinstance(result, Mapping) else {"": result}
    return {name: value.numpy() for name, value in values.items()}


def open_exported(format_: str, path: str) -> Run:
    """Open an exported file with its own runtime; a single output may have any name."""
    openers = {
        "onnx": _onnxruntime,
        "openvino": _openvino,
        "tflite": _litert,
        "saved_model": _saved_model,
        "torch": _torch,
    }
    return openers[format_](path)


def run_files(job: dict[str, Any]) -> dict[str, Any]:
    """Do what a job asks with exported files of one `format`.

    `verify` runs `file` on the samples, in batches of `batches` images, and writes the outputs as
    `SET/BATCH/NAME` into `results`. `compare` times `files` (name -> path) in turns and compares
    their most probable classes for the image files `images`.

    Returns:
        `runtime` and `version`, and what the work itself returns.
    """
    work = {"verify": _verify, "compare": _compare}[job["work"]]
    package = FORMATS[job["format"]].runtime()
    found = {"runtime": package, "version": version(package.replace("_", "-"))}
    return found | work(job)


def _verify(job: dict[str, Any]) -> dict[str, Any]:
    run = open_exported(job["format"], job["file"])
    arrays: Outputs = {}
    with np.load(job["samples"]) as samples:
        sets: dict[str, dict[str, np.ndarray]] = {}
        for file in samples.files:
            key, kind, name = file.split("/", 2)
            if kind == "input":
                sets.setdefault(key, {})[name] = samples[file]
    for key, given in sets.items():
        for batch in job["batches"]:
            # Batches of a fixed size may be larger than the set.
            cut = {name: array[np.arange(batch) % len(array)] for name, array in given.items()}
            for name, value in run(cut).items():
                arrays[f"{key}/{batch}/{name}"] = value
    np.savez(job["results"], **arrays)  # type: ignore[arg-type]
    return {}


def _compare(job: dict[str, Any]) -> dict[str, Any]:
    ((given, fields),) = job["inputs"].items()
    takes = ModelInput.from_json(fields)
    runs = {name: open_exported(job["format"], path) for name, path in job["files"].items()}
    batch, images = job["batch"], job["images"]
    classes: dict[str, list[int]] = {name: [] for name in runs}
    x = np.zeros((0, *takes.image_shape), np.float32)
    for start in range(0, len(images), batch):
        x = load(takes, map(Path, images[start : start + batch]))
        count = len(x)
        x = x[np.arange(batch) % count]  # the last one is filled up
        for name, run in runs.items():
            logits = _main(run({given: x}), job["output"])[:count]
            if len(logits) != count or not np.isfinite(logits).all():
                raise ModelFileError(f"the {name} file does not give {count} finite outputs")
            classes[name] += logits.argmax(axis=1).tolist()
    timed = {given: x[: job["timed"]]}
    return {"classes": classes, "seconds": _seconds(runs, timed, job["rounds"])}


def _seconds(runs: Mapping[str, Run], x: Inputs, rounds: int) -> dict[str, float]:
    """Return the median seconds of a batch, the runs taking turns."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(_WARM + rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run(x)
            taken[name].append(time.perf_counter() - start)
    return {name: float(np.median(times[_WARM:])) for name, times in taken.items()}


def _main(outputs: Outputs, name: str) -> np.ndarray:
    """Return the output that holds the classes: a single one may have another name."""
    return outputs[name] if name in outputs else next(iter(outputs.values()))


if __name__ == "__main__":
    enter_child(run_files)
