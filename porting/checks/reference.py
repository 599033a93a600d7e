"""Child process: the torch network on the inputs of a check, layer by layer.

Writes one `.npz`: `logits/SET/OUTPUT`, `layer/SET/MODULE`, `input/SET`, `pixels/SET` and
`gradient/KEY`, feature maps as (N, H, W, C), everything else as torch has it. Before a check it can
draw the weights, and say what torchvision knows: importing torch takes longer than either.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from keras_alexnet.core.backend import require
from keras_alexnet.core.children import enter_child, report_progress
from keras_alexnet.data.decoding import open_image
from porting.checkpoints.files import to_numpy
from porting.checks.inputs import InputSet, gradient_labels
from porting.checks.precision import full_precision
from porting.torch_side import torchvision_zoo
from porting.torch_side.reference_nets import (
    Reference,
    exact_gradients,
    forward,
    load_weights,
    main_result,
    training_loss,
)
from porting.torch_side.seeded import write_seeded
from porting.torch_side.zoos import answer
from porting.weights.counterpart import Counterpart, Output
from porting.weights.layouts import nchw_to_nhwc

_BATCH = 32


def main(job: dict[str, Any]) -> Any:
    """Run torch's part of a check, or draw the weights for one, or answer a question."""
    require("torchvision")  # before anything that might load another LLVM
    if "library" in job:
        return answer(job)
    if "seeded" in job:
        return write_seeded(job)
    return _compute(job)


def _compute(job: dict[str, Any]) -> None:
    torch = require("torch")
    full_precision("torch")
    reference = Reference.from_json(job["reference"])
    counterpart = Counterpart.from_json(job["counterpart"])
    outputs = counterpart.outputs
    net = reference.build()
    load_weights(net, job["weights"], counterpart.ignored)
    modules = {pair.module: pair.transform for pair in counterpart.pairs}
    # What a graph says of its input is said of the network's; of ours some change it first.
    convolutions = (m for m in net.modules() if isinstance(m, torch.nn.Conv2d))
    first = net if reference.target is not None else next(convolutions)
    results: dict[str, np.ndarray] = {}

    for fields in job["inputs"]:
        inputs = InputSet.from_json(fields)
        report_progress(f"{reference.title}: {inputs.name}")
        pixels, images = _prepare(reference.model, inputs)
        given = [images, *map(torch.from_numpy, inputs.others())]
        results[f"pixels/{inputs.name}"] = pixels
        with torch.no_grad():
            parts = zip(*(each.split(_BATCH) for each in given), strict=True)
            batches = [forward(net, outputs, *part) for part in parts]
            for output in batches[0]:
                logits = torch.cat([batch[output] for batch in batches])
                results[f"logits/{inputs.name}/{output}"] = to_numpy(logits)
            few = [each[: job["layer_images"]] for each in given]
            layers = _record(net, modules, first, few, outputs)
        for module, value in layers.items():
            where = "input/" + inputs.name if module is None else f"layer/{inputs.name}/{module}"
            as_torch = value.ndim != 4 or modules.get(module or "") is not None
            results[where] = value if as_torch else nchw_to_nhwc(value)
        if job["gradients"] == inputs.name:
            in_double = [each.double() for each in few]
    if job["gradients"] is not None:
        report_progress(f"{reference.title}: gradients")
        for key, gradient in _gradients(net.double(), in_double, outputs).items():
            results[f"gradient/{key}"] = gradient
    results["versions"] = np.array(
        json.dumps({name: require(name).__version__ for name in (*reference.packages, "numpy")})
    )
    np.savez(job["output"], **results)  # type: ignore[arg-type]


def _prepare(model: str, inputs: InputSet) -> tuple[np.ndarray, Any]:
    """Return uint8 pixels (N, H, W, C) and normalised images (N, C, H, W) by torchvision alone."""
    torch = require("torch")
    transform = torchvision_zoo.transforms(model, inputs.preprocessing)
    if not inputs.paths:
        pixels = inputs.pixels()
        planes = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())
        # Noise has the network's size already: only the preset's conversion and normalisation.
        transform.resize_size = [min(inputs.size)]
        return pixels, transform(planes)
    # Networks that see BGR get RGB pixels too, and turn them round in `transform`.
    photos = [open_image(path, inputs.preprocessing.mode) for path in inputs.paths]
    pixels = np.stack([np.asarray(torchvision_zoo.cropped(photo, transform)) for photo in photos])
    images = torch.stack([transform(photo) for photo in photos])
    return pixels if pixels.ndim == 4 else pixels[..., None], images


def _record(
    net: Any, modules: Iterable[str], first: Any, given: Sequence[Any], wanted: Sequence[Output]
) -> dict[str | None, np.ndarray]:
    """Return module -> output for a batch, and None -> what `first` reads."""
    outputs: dict[str | None, np.ndarray] = {}

    def keep(name: str) -> Any:
        # A copy: the ReLU that follows works in place.
        return lambda _module, _inputs, output: outputs.__setitem__(
            name, to_numpy(main_result(output)).copy()
        )

    hooks = [net.get_submodule(name).register_forward_hook(keep(name)) for name in modules]
    hooks.append(
        first.register_forward_pre_hook(
            lambda _module, inputs: outputs.__setitem__(None, to_numpy(inputs[0]).copy())
        )
    )
    forward(net, wanted, *given)
    for hook in hooks:
        hook.remove()
    return outputs


def _gradients(net: Any, given: Sequence[Any], wanted: Sequence[Output]) -> dict[str, np.ndarray]:
    """Return key -> gradient of the training loss, with dropout off and frozen statistics.

    In float64: in float32 the rounding of two frameworks puts some values on different sides of a
    ReLU or of a max pool's choice, which moves single gradients by up to 1 %.
    """
    with exact_gradients():
        outputs = forward(net, wanted, *given)
        labels = gradient_labels(len(given[0]))
        net.zero_grad()
        training_loss(outputs, require("torch").from_numpy(labels)).backward()
    # Heads that inference leaves out have none.
    found = {key: p.grad for key, p in net.named_parameters() if p.grad is not None}
    return {key: to_numpy(gradient) for key, gradient in found.items()}


if __name__ == "__main__":
    enter_child(main)
