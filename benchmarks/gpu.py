"""Time alexnet and googlenet on an NVIDIA card, against torchvision eager and compiled.

    python benchmarks/gpu.py [--models alexnet googlenet] [--batch-sizes 32 256 1024]
        [--dtypes float32 mixed_bfloat16] [--modes inference train epoch] [--backends torch jax]
        [--rounds 10] [--quick] [--image-size N] [--cifar FOLDER] [--device gpu]

Mode `epoch` is training from bytes of 32 x 32 in memory, resized on the card, against the model's
own training step. The card's peak rates are measured in the same run. A run of everything on a GPU
writes its section of `benchmarks/RESULTS.md`; anything else, such as `--device cpu`, only prints.
What does not fit into the card's memory is noted, and the others go on.
"""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_tables import Cell, epoch_table, section, table
from results import RESULTS, own_command, write_section
from timing import ChildFailureError, result_of_child

from keras_alexnet.benchmarking.environment import cores
from keras_alexnet.benchmarking.plan import COUNTERPARTS, DEVICES, Competitor, Plan, keras_side
from keras_alexnet.benchmarking.runner import Benchmark, run
from keras_alexnet.core.fields import parse_size
from keras_alexnet.errors import BenchmarkError, ChildError, KerasAlexNetError
from keras_alexnet.specs import SPECS

CHILD = str(Path(__file__).with_name("gpu_child.py"))
BATCH_SIZES, DTYPES = (32, 256, 1024), ("float32", "mixed_bfloat16")
MODES, BACKENDS = ("inference", "train", "epoch"), ("torch", "jax")
_ROUNDS, _SECONDS = 10, 0.5
_QUICK_ROUNDS, _QUICK_SECONDS = 3, 0.1
_EPOCH_MODEL = "alexnet"
# The first one is the baseline of the goals.
_TORCHVISION = (Competitor("torchvision", compiled=True), Competitor("torchvision"))


@dataclass(frozen=True)
class Choice:
    """What is asked for: the options of the command line."""

    models: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    dtypes: tuple[str, ...]
    modes: tuple[str, ...]
    backends: tuple[str, ...]
    device: str
    rounds: int
    quick: bool
    image_size: tuple[int, int] | None
    cifar: str | None

    @property
    def is_whole(self) -> bool:
        """Whether it is all that the section of the results holds, on a GPU."""
        chosen = self.models, self.batch_sizes, self.dtypes, self.modes, self.backends
        everything = COUNTERPARTS, BATCH_SIZES, DTYPES, MODES, BACKENDS
        same = all(set(a) == set(b) for a, b in zip(chosen, everything, strict=True))
        return same and self.device == "gpu" and self.image_size is None

    def plan(self, model: str, mode: str, batch: int, dtype: str) -> Plan:
        """Return what is measured in one cell."""
        return Plan(
            model,
            mode,
            (batch,),
            self.image_size or SPECS[model].default_size,
            self.rounds,
            _QUICK_SECONDS if self.quick else _SECONDS,
            cores(),
            dtype,
            self.device,
        )


def competitors(plan: Plan, backends: tuple[str, ...]) -> list[Competitor]:
    """Return torchvision compiled and eager, and ours: optimized plans compute in float32 alone."""
    ours = keras_side(plan, backends, ("keras",))
    if (plan.mode, plan.dtype) == ("inference", "float32"):
        ours += keras_side(plan, backends, ("auto",))
        if "torch" in backends:
            ours += keras_side(plan, ("torch",), ("torch_compile",))
    return [*_TORCHVISION, *ours]


def measure(plan: Plan, who: Sequence[Competitor]) -> Cell:
    """Run a cell of the table; whoever fails is noted, and the others are run again without him."""
    left, failures = list(who), list[str]()
    while any(c.kind == "keras" for c in left):
        try:
            return Cell(plan, run(plan, left), tuple(failures))
        except (BenchmarkError, ChildError) as error:
            text = str(error).splitlines()[0]
            # The error of a competitor begins with who it is; that of a killed process does not.
            guilty = [c for c in left if text.startswith((f"{c.label}:", f"{c.label}, batch"))]
            failures.append(text)
            if not guilty:
                break
            left.remove(guilty[0])
    return Cell(plan, Benchmark(plan, (), "", ()), tuple(failures))


def measure_epochs(choice: Choice) -> list[dict[str, Any]]:
    """Train from bytes in memory on every backend, at every dtype and batch size."""
    found = []
    for dtype in choice.dtypes:
        for batch in choice.batch_sizes:
            for backend in choice.backends:
                row: dict[str, Any] = {"dtype": dtype, "batch": batch, "backend": backend}
                job = {
                    "model": _EPOCH_MODEL,
                    "image_size": choice.image_size,
                    "rounds": min(choice.rounds, _QUICK_ROUNDS),
                    "cifar": choice.cifar,
                }
                try:
                    row |= result_of_child(CHILD, ["epoch", _json(choice, job | row)], backend)
                except ChildFailureError as failure:
                    row["failure"] = failure.reason
                found.append(row)
                print(epoch_table([row]), flush=True)
    return found


def _json(choice: Choice, job: dict[str, Any]) -> str:
    return json.dumps({"device": choice.device, "quick": choice.quick, **job})


def read_choice() -> Choice:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    lists: dict[str, tuple[Any, ...]] = {
        "models": COUNTERPARTS,
        "dtypes": DTYPES,
        "modes": MODES,
        "backends": BACKENDS,
    }
    for name, choices in lists.items():
        parser.add_argument(f"--{name}", nargs="+", choices=choices, default=choices)
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=BATCH_SIZES)
    parser.add_argument("--device", choices=DEVICES, default="gpu")
    parser.add_argument("--rounds", type=int)
    parser.add_argument(
        "--quick", action="store_true", help=f"{_QUICK_ROUNDS} rounds of short measurements"
    )
    parser.add_argument("--image-size", help="N or HEIGHTxWIDTH; the models' own")
    parser.add_argument("--cifar", help="folder of CIFAR-10; noise of its shape if left out")
    given = vars(parser.parse_args())
    lists = {name: tuple(given[name]) for name in (*lists, "batch_sizes")}
    if min(lists["batch_sizes"]) < 1:
        parser.error(f"--batch-sizes must be positive, got {lists['batch_sizes']}")
    size = given["image_size"]
    rounds = given["rounds"] or (_QUICK_ROUNDS if given["quick"] else _ROUNDS)
    return Choice(
        **lists,
        device=given["device"],
        rounds=rounds,
        quick=given["quick"],
        image_size=None if size is None else parse_size(size),
        cifar=given["cifar"],
    )


def main() -> None:
    """Measure, print, and write the section."""
    try:
        choice = read_choice()
        _run(choice)
    except (KerasAlexNetError, ChildFailureError) as error:
        raise SystemExit(f"error: {error}") from None


def _run(choice: Choice) -> None:
    # Several processes share the card's memory; JAX would take three quarters at its start.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    peaks = result_of_child(CHILD, ["peaks", _json(choice, {})], "torch")
    cells = []
    for mode in (mode for mode in choice.modes if mode != "epoch"):
        for model in choice.models:
            for dtype in choice.dtypes:
                for batch in choice.batch_sizes:
                    plan = choice.plan(model, mode, batch, dtype)
                    cells.append(measure(plan, competitors(plan, choice.backends)))
                    print(table(cells[-1:], peaks), flush=True)
    epochs = measure_epochs(choice) if "epoch" in choice.modes else []
    text = section(own_command(), cells, epochs, peaks)
    if not choice.is_whole:
        print(f"\n{text}")
    elif any(cell.found.results for cell in cells):
        write_section("gpu", text)
    else:
        raise SystemExit(f"{RESULTS.name} stays as it is: nothing could be measured")


if __name__ == "__main__":
    main()
