"""The tables of `gpu.py`: rates, ratios to torchvision, and shares of what the card can do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_alexnet.benchmarking.plan import Competitor, Plan
from keras_alexnet.benchmarking.report import Quartiles, versions
from keras_alexnet.benchmarking.runner import Benchmark, Measured
from keras_alexnet.summary.profile import profile

GOAL, EPOCH_GOAL = 1.0, 0.9
_TRAINING = 3  # a step computes as much as three forward passes: two for the gradients
_BYTES = {"float32": 4, "mixed_bfloat16": 2}
# Elementwise layers can be computed where their neighbours write; these have to read and write.
_MOVES = {"Conv", "Dense", "MaxPool", "AvgPool", "AdaptiveAvgPool"}

Peaks = Mapping[str, float]


STEP_TABLE = (
    "| model | work | dtype | batch | by | images/s | x compiled | quartiles | x eager "
    "| matrix rate | bandwidth | to reach |",
    "|---|---|---|--:|---|--:|--:|--:|--:|--:|--:|--:|",
)
EPOCH_TABLE = (
    "| dtype | batch | Keras on | images/s | own step, images/s | ratio | to reach |",
    "|---|--:|---|--:|--:|--:|--:|",
)


@dataclass(frozen=True)
class Cell:
    """Everybody at one model, mode, dtype and batch size.

    Attributes:
        name: What people call the model.
        plan: What was measured.
        found: Those who could.
        failures: Why others could not, a line each.
    """

    name: str
    plan: Plan
    found: Benchmark
    failures: tuple[str, ...]

    @property
    def where(self) -> str:
        """Hardware and versions; empty where nobody was measured."""
        if not self.found.results:
            return ""
        hardware = ", ".join(self.found.gpus) or self.found.cpu
        known = versions([measured.competitor for measured in self.found.results])
        listed = ", ".join(f"{name} {version}" for name, version in known.items())
        return f"{hardware}, {self.plan.threads} threads; {listed}"


def work(plan: Plan, macs: int | None = None) -> tuple[float, float | None]:
    """Return the FLOPs and the least bytes of a step.

    Two FLOPs for each multiply-accumulate of convolutions and dense layers. Bytes are what
    convolutions, dense layers and pools read and write, elementwise layers being computed within
    them, and the parameters once for the whole batch. Of a file only `macs` is known, its
    multiply-accumulates for one image.
    """
    batch, training = plan.batch_sizes[0], plan.mode == "train"
    times = _TRAINING if training else 1
    if macs is not None:
        return 2.0 * macs * batch * times, None
    found = profile(plan.spec, size=plan.image_size, aux_heads=training and bool(plan.spec.aux))
    costs = [row.cost for row in found.rows if row.kind in _MOVES]
    numbers = found.totals.parameters
    moved = sum(cost.bytes_read + cost.bytes_written - 4 * cost.parameters for cost in costs) / 4
    flops = 2.0 * found.totals.macs * batch * times
    return flops, float(moved * batch + numbers) * _BYTES[plan.dtype] * times


def ratio(base: Measured | None, measured: Measured) -> Quartiles | None:
    """Return how many times as fast as another one is, by the rounds; None without that."""
    return base and Quartiles.of(np.divide(base.seconds, measured.seconds))


def rows(cell: Cell, peaks: Peaks, macs: int | None = None) -> list[str]:
    """Return the cell's lines of `STEP_TABLE`; the goal stands at the fastest of ours."""
    plan = cell.plan
    batch = plan.batch_sizes[0]
    start = f"| {cell.name} | {plan.mode} | {plan.dtype} | {batch} "
    flops, moved = work(plan, macs)
    results = sorted(cell.found.results, key=lambda m: float(np.median(m.seconds)))
    compiled, eager = (
        next((m for m in results if m.competitor == Competitor("torchvision", compiled=c)), None)
        for c in (True, False)
    )
    fastest = next((m for m in results if m.competitor.kind == "keras"), None)
    lines = []
    for measured in results:
        seconds = float(np.median(measured.seconds))
        to_compiled, to_eager = ratio(compiled, measured), ratio(eager, measured)
        goal = ""
        if measured is fastest and to_compiled is not None:
            goal = f"{GOAL:g} {'reached' if to_compiled.median >= GOAL else 'missed'}"
        spread = to_compiled and f"{to_compiled.low:.2f} - {to_compiled.high:.2f}"
        bandwidth = "" if moved is None else f"{moved / seconds / peaks['copy']:.0%}"
        lines.append(
            f"{start}| {measured.competitor.label} | {batch / seconds:,.1f} "
            f"| {_number(to_compiled)} | {spread or ''} | {_number(to_eager)} "
            f"| {flops / seconds / peaks[plan.dtype]:.0%} | {bandwidth} | {goal} |"
        )
    return lines + [f"{start}| {_plain(failure)} | - | | | | | | |" for failure in cell.failures]


def epoch_row(row: Mapping[str, Any]) -> str:
    """Return a line of `EPOCH_TABLE`, on training from bytes in memory."""
    start = f"| {row['dtype']} | {row['batch']} | {row['backend']} "
    if "failure" in row:
        return f"{start}| {_plain(row['failure'])} | | | |"
    reached = "reached" if row["ratio"] >= EPOCH_GOAL else "missed"
    return (
        f"{start}| {row['images']:,.1f} | {row['own']:,.1f} | {row['ratio']:.2f} "
        f"| {EPOCH_GOAL:g} {reached} |"
    )


def section(
    command: str,
    conditions: str,
    peaks: Peaks,
    steps: Sequence[str],
    epochs: Sequence[str],
    missing: Sequence[str],
) -> str:
    """Return the section of the results: conditions, the lines of both tables, what is missing."""
    parts = [f"```\n{command}\n```"]
    parts.append(
        f"{conditions}, a process for each; data lie on the device. Ratios are to torchvision "
        "channels_last, compiled by torch.compile and eager, in the same rounds; it gets autocast "
        "for mixed_bfloat16. On a GPU float32 may use TF32 on all sides. Training steps are SGD "
        "with momentum, GoogLeNet's with its auxiliary heads. `torchvision:` is what "
        "`python -m porting convert` makes of that network."
    )
    rates = ", ".join(f"{peaks[dtype] / 1e12:,.1f} TFLOP/s in {dtype}" for dtype in _BYTES)
    parts.append(
        f"Matrix rate and bandwidth are shares of what the device did in the same run: {rates} in "
        f"a large square product, {peaks['copy'] / 1e9:,.0f} GB/s in a copy. A step counts two "
        f"FLOPs for each multiply-accumulate, and the least traffic: what convolutions, dense "
        f"layers and pools read and write, and the weights once; training {_TRAINING} times that."
    )
    if steps:
        parts.append("\n".join([*STEP_TABLE, *steps]))
    if epochs:
        parts += [
            "Training AlexNet from bytes of 32 x 32 in memory, resized and mirrored on the "
            "device, by `fit` with the batches of `keras-alexnet train`, against the model's own "
            "step on a batch that lies on the device:",
            "\n".join([*EPOCH_TABLE, *epochs]),
        ]
    if missing:
        parts.append(f"Not measured: {'; '.join(missing)}.")
    return "\n\n".join(parts)


def _number(found: Quartiles | None) -> str:
    return f"{found.median:.2f}" if found is not None else ""


def _plain(text: str) -> str:
    """Return a line for a cell of a table."""
    return text.replace("|", "/")[:160]
