"""Any torch network of images into a native Keras model, and the proof that both agree."""

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_alexnet.core.backend import load_keras, require
from keras_alexnet.core.children import enter_child
from keras_alexnet.core.files import check_output
from keras_alexnet.models.interface import named_outputs
from keras_alexnet.models.record import save_model
from keras_alexnet.specs.preprocessing import Preprocessing
from porting.checkpoints.files import to_numpy
from porting.checkpoints.mapped import MappedFile
from porting.conversion.network import Network, prepare
from porting.conversion.provenance import graph_record
from porting.errors import GraphError, UsageError
from porting.graph.builder import Built, build
from porting.graph.reader import read
from porting.graph.torch_child import Proof
from porting.tolerances import LIVELY, TOLERANCES
from porting.torch_side.reference_nets import in_inference
from porting.torch_side.targets import Target
from porting.weights.layouts import as_model_input
from porting.weights.recognition import variables_of
from porting.weights.transfer import carry, fill, set_counterpart

_DULL = (
    "warning: outputs for different images of noise differ by only {:.1e} of their scale, so their "
    "agreement proves little; compare photos with: python -m porting check"
)


def convert_network(
    target: Target,
    source: str | Path | None,
    output: Path,
    *,
    labels: Sequence[str] | None = None,
    data_format: str | None = None,
    dtype: str | None = None,
    include_preprocessing: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Convert a torch network into a `.keras` file that is proven right, or not there.

    `options` are those of `prepare`; the others as for `convert`.

    Returns:
        The record that the file carries.

    Raises:
        PortingError: As for `prepare`; or the Keras model computes something else.
    """
    check_output(output)
    with tempfile.TemporaryDirectory(prefix="porting-") as name:
        network = prepare(target, source, Path(name), meanwhile=load_keras, **options)
        return save_network(
            network,
            output,
            labels=labels,
            data_format=data_format,
            dtype=dtype,
            include_preprocessing=include_preprocessing,
        )


def save_network(
    network: Network,
    output: Path,
    *,
    labels: Sequence[str] | None = None,
    data_format: str | None = None,
    dtype: str | None = None,
    include_preprocessing: bool = False,
    proven: bool = True,
) -> dict[str, Any]:
    """Write a network that was prepared as a `.keras` file; all as in `convert_network`.

    It may be one that computes something else than torch's, unless it is to be `proven`.
    """
    if labels is None:
        labels = network.labels
    if labels is not None and len(labels) != network.classes:
        classes = "no" if network.classes is None else network.classes
        raise UsageError(f"{len(labels)} labels were given for {classes} classes")
    keep: dict[str, Any] = {
        "data_format": data_format,
        "include_preprocessing": include_preprocessing,
    }
    built, arrays = network.build(dtype="float32", **keep), network.arrays()
    forget = MappedFile(network.weights).forget
    gap = None
    if proven:
        preprocessing = network.preprocessing if include_preprocessing else None
        proof = Proof.load(network.proof)
        gap = prove(built, arrays, proof, preprocessing=preprocessing, forget=forget)
        if proof.spread < LIVELY:
            network = replace(network, notes=(*network.notes, _DULL.format(proof.spread)))
    else:
        fill(variables_of(built.model), built.counterpart, arrays, forget)
    if dtype not in (None, "float32"):
        built = network.build(dtype=dtype, **keep)
        fill(variables_of(built.model), built.counterpart, arrays, forget)
    beside = carry_along(built, arrays)
    record = graph_record(
        network, built, include_preprocessing=include_preprocessing, labels=labels, gap=gap
    )
    save_model(built.model, output, record, beside)
    return record


def carry_along(built: Built, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Keep what no variable holds beside a model, and return what of it is not a counter."""
    carried = {e.key: arrays[e.key] for e in built.counterpart.carried if e.key in arrays}
    carry(built.model, carried)
    set_counterpart(built.model, built.counterpart)
    counters = {entry.key for entry in built.counterpart.carried if entry.counter}
    return {key: array for key, array in carried.items() if key not in counters}


def prove(
    built: Built,
    arrays: Mapping[str, np.ndarray],
    proof: Proof,
    *,
    preprocessing: Preprocessing | None = None,
    forget: Callable[[], None] = lambda: None,
) -> float:
    """Fill a model and compare its outputs with torch's: for lively weights, then for its own.

    Args:
        built: The model, in float32; it keeps its own weights.
        arrays: These weights by key.
        proof: What torch computes.
        preprocessing: What the model does to its images first.
        forget: Called whenever a part of an array has been read.

    Returns:
        The largest difference, relative to the largest number of that output.

    Raises:
        GraphError: The outputs differ.
        TransferError: The weights do not fit.
    """
    variables, inputs, gaps = variables_of(built.model), list(proof.inputs), list[float]()
    if preprocessing is not None:
        inputs[0] = _pixels_of(inputs[0], preprocessing)
    for weights, wanted in (({**arrays, **proof.changed}, proof.lively), (arrays, proof.outputs)):
        fill(variables, built.counterpart, weights, forget)
        found = outputs_of(built, *inputs)
        for name, array in wanted.items():
            gaps.append(gap := relative_gap(found[name], array))
            if not gap <= TOLERANCES["logits"].limit:
                raise GraphError(
                    f"the Keras model's {name} differ from torch's by {gap:.1e} of their scale "
                    f"(at most {TOLERANCES['logits'].limit:g} is right), so nothing was written; "
                    "python -m porting check shows the first layer that differs"
                )
    return max(gaps)


def largest_gap(found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> float:
    """Return the largest of the outputs' `relative_gap`."""
    return max(relative_gap(found[name], array) for name, array in wanted.items())


def relative_gap(found: np.ndarray, wanted: np.ndarray) -> float:
    """Return the largest difference, relative to the largest number that is wanted.

    It is infinite where the shapes differ, or a number is none: the largest of several gaps is then
    no other one.
    """
    if found.shape != wanted.shape:
        return math.inf
    # A fresh vision transformer's logits are all 0.
    gap = float(np.abs(found - wanted).max() / (np.abs(wanted).max() or 1.0))
    return math.inf if math.isnan(gap) else gap


def _pixels_of(images: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Return the pixels that a preprocessing turns into these images, (N, C, H, W)."""
    mean, std = (
        np.reshape(values, (-1, 1, 1)) for values in (preprocessing.mean, preprocessing.std)
    )
    return (images * std + mean) * preprocessing.scale


def outputs_of(built: Built, *inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Return what a model computes, by name and as torch has it, as it has the inputs."""
    from keras_alexnet.models.fast.quicken import sparing_memory

    given = as_model_input(inputs, built.data_format, np.float32)
    with sparing_memory(built.model):
        returned = built.model.predict_on_batch(given)
    found = named_outputs(returned)
    return {
        output.name: output.to_torch(np.asarray(found[output.name], np.float32), built.data_format)
        for output in built.counterpart.outputs
    }


def from_torch(
    module: Any, *examples: Any, data_format: str | None = None, dtype: str | None = None
) -> Any:
    """Return a torch module as a native Keras model with its weights.

    The model consists of stock layers and `keras.ops`; it takes any number of images, can be
    trained, and opens anywhere once it is saved. `to_state_dict` turns its weights back into the
    module's. Layers are called after the modules (`layer1_0_conv1`).

    Args:
        module: A `torch.nn.Module` of images (N, C, H, W) that returns a tensor, such as logits (N,
            classes), or several in a dict, list or tuple. It stays as it is.
        *examples: What it is called with, a tensor for each of its arguments: images, or one, (N,
            C, H, W), and further ones or other numbers about them, such as (N, features).
        data_format: `"channels_last"` or `"channels_first"`, by default Keras' setting.
        dtype: Keras dtype policy, by default Keras' setting.

    Returns:
        A functional `keras.Model`. Its outputs were compared with the module's. Several inputs are
        a list in the module's order, with its names. Several outputs are a dict by the names of
        torch's, or `output0`, `output1` ...; images and feature maps are in the data format.

    Raises:
        GraphError: The module cannot be converted, or the model computed something else.

    Example:
        >>> import torch
        >>> module = torch.nn.Sequential(
        ...     torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(),
        ...     torch.nn.Linear(8 * 6 * 6, 10),
        ... )
        >>> from_torch(module, torch.zeros(1, 3, 8, 8)).output_shape
        (None, 10)
    """
    torch = require("torch")
    generator = torch.Generator().manual_seed(0)

    def telling(example: Any) -> Any:
        if example.shape[0] < 2:  # a batch of one would be taken for a constant
            example = torch.cat([example, example])
        # Zeros would prove little.
        return example if example.any() else torch.randn(example.shape, generator=generator)

    inputs = list(map(telling, examples))
    plan = read(module, *inputs)
    with in_inference(module):
        proof = Proof.of(module, *inputs)
    arrays = {key: to_numpy(value) for key, value in module.state_dict().items()}
    built = build(plan, data_format, "float32")
    prove(built, arrays, proof)
    if dtype not in (None, "float32"):
        built = build(plan, data_format, dtype)
        fill(variables_of(built.model), built.counterpart, arrays)
    carry_along(built, arrays)
    return built.model


def main(job: dict[str, Any]) -> None:
    """Build and save a network in a child: the job is `Network.to_json`, and `save_network`'s."""
    save_network(
        Network.from_json(job),
        Path(job["output"]),
        data_format=job["data_format"],
        include_preprocessing=job["include_preprocessing"],
        proven=False,  # whatever it computes is to be looked at
    )


if __name__ == "__main__":
    enter_child(main)
