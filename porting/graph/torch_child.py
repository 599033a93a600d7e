"""Child process: builds a torch network, fills it, and writes what the Keras side needs of it.

That is a plan (`reader`), the weights where they come from no file, and a proof: images, and the
logits that torch computes of them, with the weights as they are and with lively ones.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from keras_alexnet.core.backend import require
from keras_alexnet.core.children import enter_child, report_progress
from keras_alexnet.models.interface import MAIN_OUTPUT
from porting.checkpoints.files import read_checkpoint, to_numpy, write_checkpoint
from porting.checkpoints.states import under_own_names
from porting.errors import TransferError, UsageError
from porting.graph.reader import read
from porting.tolerances import spread
from porting.torch_side import zoos
from porting.torch_side.liveliness import liven
from porting.torch_side.reference_nets import fill, named_results
from porting.torch_side.seeded import live_inputs
from porting.torch_side.targets import Target, classes_of
from porting.weights.problems import list_problems, problems_of
from porting.weights.table import Shape

_IMAGES = 2
_IMAGE_SEED, _SEED = 5, 0
# Outputs that are scores of classes, (N, classes) or (N, classes, H, W); torchvision calls those of
# pixels `out`.
_SCORES = (MAIN_OUTPUT, "out")


@dataclass(frozen=True)
class Proof:
    """What torch computes, for the Keras model to be compared with.

    Attributes:
        inputs: What it reads: images of noise, (N, C, H, W), and what else.
        outputs: Name -> what the network returns for the weights as they are.
        changed: Key -> value of those weights that are others in the second comparison.
        lively: Name -> what it returns for these.
    """

    inputs: Sequence[np.ndarray]
    outputs: Mapping[str, np.ndarray]
    changed: Mapping[str, np.ndarray]
    lively: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, net: Any, *inputs: Any) -> Self:
        """Let a network in inference mode compute it; its weights stay what they are."""
        torch = require("torch")
        with torch.no_grad():
            outputs = _arrays(net(*inputs))
            state = net.state_dict()
            before = {key: value.clone() for key, value in state.items()}
            try:
                liven(net, *inputs, seed=_SEED)
                lively = _arrays(net(*inputs))
                changed = {
                    key: to_numpy(value).copy()
                    for key, value in state.items()
                    if value.is_floating_point() and not torch.equal(value, before[key])
                }
            finally:
                for key, value in before.items():
                    state[key].copy_(value)
        return cls([to_numpy(each) for each in inputs], outputs, changed, lively)

    @property
    def spread(self) -> float:
        """How much the main output differs between images, for lively weights at the most."""
        outputs = (next(iter(table.values())) for table in (self.lively, self.outputs))
        return max(map(spread, outputs))

    def save(self, path: str | Path) -> None:
        """Write it as `.npz`."""
        arrays = {
            f"{field}/{name}": array
            for field in _TABLES
            for name, array in getattr(self, field).items()
        }
        arrays |= {f"{_INPUT}{i}": array for i, array in enumerate(self.inputs)}
        np.savez(path, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return what `save` wrote."""
        with np.load(path) as arrays:
            tables = {
                field: {
                    name.removeprefix(f"{field}/"): arrays[name]
                    for name in arrays.files
                    if name.startswith(f"{field}/")
                }
                for field in _TABLES
            }
            count = sum(name.startswith(_INPUT) for name in arrays.files)
            return cls([arrays[f"{_INPUT}{i}"] for i in range(count)], **tables)


# The fields of a proof that are arrays by name.
_TABLES = ("outputs", "changed", "lively")
_INPUT = "inputs/"


def _arrays(result: Any) -> dict[str, np.ndarray]:
    return {name: to_numpy(value) for name, value in named_results(result).items()}


def _inputs(shapes: Sequence[Sequence[int]]) -> list[Any]:
    """Return what a network reads: images with structure (N, C, H, W), noise of other shapes."""
    rng = np.random.default_rng(_IMAGE_SEED)
    return list(map(require("torch").from_numpy, live_inputs(rng, shapes, _IMAGES)))


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Do one job, whose fields are the arguments of `network.prepare`, or answer a question."""
    require("torchvision")  # before anything that might load another LLVM
    if "library" in job:
        return zoos.answer(job)
    target, folder = Target(job["target"]), Path(job["folder"])
    shapes = job["shapes"]
    size = tuple(shapes[0][1:])
    arrays = None
    if job["path"] is not None:
        content = read_checkpoint(job["path"], allow_pickle=job["allow_pickle"], which=job["which"])
        arrays = content.arrays
    aux_heads = arrays is None or target.has_aux_heads(arrays)
    options = {"size": size, "official": job["official"], "aux_heads": aux_heads}
    classes = job["classes"]
    report_progress(f"building {target.text}")
    require("torch").manual_seed(job["seed"])
    whole = target.whole
    net = whole.build(classes=classes, **options)
    if arrays is not None and classes is None:
        classes = classes_of(_shapes(net.state_dict()), _shapes(arrays))
        if classes is not None:
            net = whole.build(classes=classes, **options)
    inputs = _inputs(shapes)
    renamed = False
    if arrays is not None:
        given = under_own_names(arrays, net.state_dict())
        own = target.adapted(net, given)
        renamed = own is not given
        load(net, own, job["path"])
    if target.features:
        net, renamed = target.features_of(net, size), True
    with _explained(net, inputs):
        if arrays is None and job["lively"]:
            liven(net, *inputs, seed=job["seed"])
        if arrays is None or renamed:  # before anything may change it, as some do to be quicker
            state = {key: to_numpy(value) for key, value in net.state_dict().items()}
            write_checkpoint(folder / "weights.safetensors", state)
        report_progress(f"following {target.text}")
        plan = read(net, *inputs, any_size=job["any_size"])
        report_progress("computing in torch")
        proof = Proof.of(net, *inputs)
    if not net.state_dict():
        raise UsageError(f"{target.text} has no weights, so there is nothing to convert")
    plan.save(folder / "plan.npz")
    proof.save(folder / "proof.npz")
    return {
        "classes": _classes_in(proof.outputs),
        "aux_heads": aux_heads,
        "renamed": renamed,
        "notes": plan.notes,
    }


def load(net: Any, arrays: Mapping[str, np.ndarray], path: str) -> None:
    """Fill a network with named arrays, all of which it must have.

    Raises:
        TransferError: Keys are missing or unexpected, or arrays have another shape.
    """
    wanted, found = _shapes(net.state_dict()), _shapes(arrays)
    # Counters are none of a network's numbers; older files lack them.
    counters = {key for key in wanted if key.endswith("num_batches_tracked")}
    if problems := problems_of(wanted, found, optional=counters):
        lines = [f"{path} does not fit {type(net).__name__}:", *list_problems(problems)]
        raise TransferError("\n".join(lines), problems)
    fill(net, arrays)


def _classes_in(outputs: Mapping[str, np.ndarray]) -> int | None:
    """Return how many classes an image, or each of its pixels, has; None for other outputs."""
    scores = next((outputs[name] for name in _SCORES if name in outputs), None)
    return scores.shape[1] if scores is not None and scores.ndim in (2, 4) else None


def _shapes(state: Mapping[str, Any]) -> dict[str, Shape]:
    return {key: tuple(value.shape) for key, value in state.items()}


@contextlib.contextmanager
def _explained(net: Any, inputs: Sequence[Any]) -> Iterator[None]:
    """Within this block, let a network's own error stand for that of its export, if it has one."""
    try:
        yield
    except Exception:  # whatever torch or the network's code raises
        try:
            with require("torch").no_grad():
                net(*inputs)
        except Exception as error:
            shapes = ",".join("x".join(map(str, each.shape[1:])) for each in inputs)
            raise UsageError(
                f"{type(net).__name__} cannot compute inputs of shape {shapes} ({error}); name the "
                "right one: --input-size, or --input-shape for a FILE.py:FUNCTION"
            ) from error
        raise


if __name__ == "__main__":
    enter_child(main)
