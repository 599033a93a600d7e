"""Time networks on an NVIDIA card, against torchvision eager and compiled.

    python benchmarks/gpu.py [--minutes 5] [--json FILE] [--files FOLDER]
        [--models alexnet torchvision:resnet50 ...] [--batch-sizes 256 32 1024]
        [--dtypes mixed_bfloat16 float32] [--modes train inference epoch] [--backends torch jax]
        [--rounds 10] [--quick] [--image-size N] [--cifar FOLDER] [--device gpu]

AlexNet and GoogLeNet, and networks that `python -m porting convert` makes files of. Mode `epoch` is
training from bytes of 32 x 32 in memory, resized on the card, against the model's own training
step. The card's peak rates are measured in the same run. What is named first is measured first:
with `--minutes` nothing begins after that time, and what is missing is named; what the JSON file
holds is not measured again. A run of everything on a GPU writes its section of
`benchmarks/RESULTS.md`; anything else, such as `--device cpu`, only prints. What does not fit into
the card's memory is noted, and the others go on.
"""

import argparse
import itertools
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from gpu_tables import EPOCH_TABLE, STEP_TABLE, Cell, Peaks, epoch_row, rows, section
from networks import file_of
from results import RESULTS, own_command, write_section
from timing import ChildFailureError, result_of_child

from keras_alexnet.benchmarking.environment import cores
from keras_alexnet.benchmarking.plan import COUNTERPARTS, DEVICES, Competitor, Plan, keras_side
from keras_alexnet.benchmarking.runner import Benchmark, run
from keras_alexnet.core.fields import parse_size
from keras_alexnet.core.files import write_json
from keras_alexnet.errors import BenchmarkError, KerasAlexNetError

CHILD = str(Path(__file__).with_name("gpu_child.py"))
_CONVERTED = "torchvision:"  # before the name of what is converted
MODELS = (
    *COUNTERPARTS,
    *(f"{_CONVERTED}{name}" for name in ("resnet50", "mobilenet_v3_large", "vit_b_16")),
)
# The most telling first.
BATCH_SIZES, DTYPES = (256, 32, 1024), ("mixed_bfloat16", "float32")
MODES, BACKENDS = ("train", "inference", "epoch"), ("torch", "jax")
_SIZE = (224, 224)
_ROUNDS, _SECONDS = 10, 0.5
_QUICK_ROUNDS, _QUICK_SECONDS = 3, 0.1
_EPOCH_MODEL = "alexnet"
# The first one is the baseline of the goals.
_TORCHVISION = (Competitor("torchvision", compiled=True), Competitor("torchvision"))


class Job(NamedTuple):
    """What is measured at once: a model's steps, or epochs on one backend."""

    batch: int
    dtype: str
    mode: str
    who: str  # the model, or the backend of mode "epoch"

    def __str__(self) -> str:
        return f"{self.who}, {self.mode}, {self.dtype}, batch {self.batch}"


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
        everything = MODELS, BATCH_SIZES, DTYPES, MODES, BACKENDS
        same = all(set(a) == set(b) for a, b in zip(chosen, everything, strict=True))
        return same and self.device == "gpu" and self.image_size is None

    def jobs(self) -> list[Job]:
        """Return what is to be measured, in that order."""
        return [
            Job(batch, dtype, mode, who)
            for batch, dtype, mode in itertools.product(self.batch_sizes, self.dtypes, self.modes)
            for who in (self.backends if mode == "epoch" else self.models)
        ]

    def plan(self, job: Job, folder: Path) -> Plan:
        """Return how a model's steps are measured; its file is made in `folder` if need be."""
        model, size = job.who, self.image_size or _SIZE
        if model.startswith(_CONVERTED):
            model = str(file_of(model, folder, backend=self.backends[0], size=size))
        return Plan(
            model,
            job.mode,
            (job.batch,),
            size,
            self.rounds,
            _QUICK_SECONDS if self.quick else _SECONDS,
            cores(),
            job.dtype,
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


def measure(name: str, plan: Plan, who: Sequence[Competitor]) -> Cell:
    """Run a cell of the table; whoever fails is noted, and the others are run again without him."""
    left, failures = list(who), list[str]()
    while any(c.kind == "keras" for c in left):
        try:
            return Cell(name, plan, run(plan, left), tuple(failures))
        except KerasAlexNetError as error:
            text = str(error).splitlines()[0]
            # The error of a competitor begins with who it is; that of a killed process does not.
            guilty = [c for c in left if text.startswith((f"{c.label}:", f"{c.label}, batch"))]
            failures.append(text)
            if not guilty:
                break
            left.remove(guilty[0])
    return Cell(name, plan, Benchmark(plan, (), "", ()), tuple(failures))


def measure_epoch(choice: Choice, job: Job) -> dict[str, Any]:
    """Train from bytes in memory on one backend."""
    row: dict[str, Any] = {"dtype": job.dtype, "batch": job.batch, "backend": job.who}
    wanted = {
        "model": _EPOCH_MODEL,
        "image_size": choice.image_size,
        "rounds": min(choice.rounds, _QUICK_ROUNDS),
        "cifar": choice.cifar,
    }
    try:
        return row | result_of_child(CHILD, ["epoch", _json(choice, wanted | row)], job.who)
    except ChildFailureError as failure:
        return row | {"failure": failure.reason}


def _json(choice: Choice, job: dict[str, Any]) -> str:
    return json.dumps({"device": choice.device, "quick": choice.quick, **job})


def read_options() -> tuple[Choice, argparse.Namespace]:
    """Read the command line; the namespace also says how long, and where files go."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--models",
        nargs="+",
        default=MODELS,
        help=f"{', '.join(COUNTERPARTS)}, or any {_CONVERTED}NAME",
    )
    lists: dict[str, tuple[Any, ...]] = {
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
    parser.add_argument("--minutes", type=float, help="begin nothing after so long")
    parser.add_argument("--json", type=Path, help="what was measured, to go on with")
    parser.add_argument("--files", type=Path, help="folder for the converted files, kept")
    arguments = parser.parse_args()
    given = vars(arguments)
    lists = {name: tuple(given[name]) for name in ("models", *lists, "batch_sizes")}
    for model in lists["models"]:
        if model not in COUNTERPARTS and not model.startswith(_CONVERTED):
            parser.error(
                f"--models {model}: neither {' nor '.join(COUNTERPARTS)} nor {_CONVERTED}NAME"
            )
    if min(lists["batch_sizes"]) < 1:
        parser.error(f"--batch-sizes must be positive, got {lists['batch_sizes']}")
    size = given["image_size"]
    rounds = given["rounds"] or (_QUICK_ROUNDS if given["quick"] else _ROUNDS)
    choice = Choice(
        **lists,
        device=given["device"],
        rounds=rounds,
        quick=given["quick"],
        image_size=None if size is None else parse_size(size),
        cifar=given["cifar"],
    )
    return choice, arguments


def main() -> None:
    """Measure, print, and write the section."""
    try:
        choice, arguments = read_options()
        with tempfile.TemporaryDirectory(prefix="gpu-") as temporary:
            folder = arguments.files or Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            _run(choice, folder, arguments.json, arguments.minutes)
    except (KerasAlexNetError, ChildFailureError) as error:
        raise SystemExit(f"error: {error}") from None


def _run(choice: Choice, folder: Path, kept: Path | None, minutes: float | None) -> None:
    end = None if minutes is None else time.monotonic() + 60 * minutes
    # Several processes share the card's memory; JAX would take three quarters at its start.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    known = _known(choice, kept)
    if "peaks" not in known:
        known["peaks"] = result_of_child(CHILD, ["peaks", _json(choice, {})], "torch")
    for job in choice.jobs():
        if str(job) in known["rows"]:
            continue
        if end is not None and time.monotonic() > end:
            break
        if job.mode == "epoch":
            lines = [epoch_row(measure_epoch(choice, job))]
        else:
            try:
                plan = choice.plan(job, folder)
            except BenchmarkError as error:
                print(f"{job}: {error}", flush=True)
                continue
            cell = measure(job.who, plan, competitors(plan, choice.backends))
            lines = rows(cell, known["peaks"], _macs(choice, plan, known))
            known["where"] = known["where"] or cell.where
        known["rows"][str(job)] = lines
        print(
            *(EPOCH_TABLE if job.mode == "epoch" else STEP_TABLE), *lines, "", sep="\n", flush=True
        )
        if kept is not None:
            write_json(kept, known)
    text = _section(choice, known)
    if not choice.is_whole:
        print(f"\n{text}")
    elif known["where"]:
        write_section("gpu", text)
    else:
        raise SystemExit(f"{RESULTS.name} stays as it is: nothing could be measured")


def _known(choice: Choice, kept: Path | None) -> dict[str, Any]:
    """Return what was measured already under the same conditions.

    Raises:
        BenchmarkError: The file holds something else.
    """
    size = choice.image_size and list(choice.image_size)
    known = {"conditions": [choice.device, size, choice.rounds], "where": "", "rows": {}}
    if kept is None or not kept.is_file():
        return known
    try:
        found = json.loads(kept.read_text())
    except ValueError as error:
        raise BenchmarkError(f"{kept}: not a file of this program ({error})") from error
    if not isinstance(found, dict) or found.get("conditions") != known["conditions"]:
        raise BenchmarkError(
            f"{kept} holds what was measured on another device, image size or number of rounds; "
            "name another file for --json"
        )
    return found


def _macs(choice: Choice, plan: Plan, known: dict[str, Any]) -> int | None:
    """Return what a converted file computes for an image; our own networks' specs say it."""
    if plan.subject.file is None:
        return None
    counted = known.setdefault("macs", {})
    if plan.model not in counted:
        wanted = {"file": plan.model, "image_size": plan.image_size}
        arguments = ["macs", _json(choice, wanted)]
        counted[plan.model] = result_of_child(CHILD, arguments, choice.backends[0])
    return counted[plan.model]


def _section(choice: Choice, known: Mapping[str, Any]) -> str:
    jobs, measured = choice.jobs(), known["rows"]
    tables = {
        is_epoch: [
            line
            for job in jobs
            if (job.mode == "epoch") == is_epoch
            for line in measured.get(str(job), ())
        ]
        for is_epoch in (False, True)
    }
    missing = [str(job) for job in jobs if str(job) not in measured]
    peaks: Peaks = known["peaks"]
    conditions = f"{known['where']}; medians of {choice.rounds} rounds in turns"
    return section(own_command(), conditions, peaks, tables[False], tables[True], missing)


if __name__ == "__main__":
    main()
