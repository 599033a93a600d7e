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


@dataclass(frozen=True)
class Cell:
    """Everybody at one model, mode, dtype and batch size.

    Attributes:
        plan: What was measured.
        found: Those who could.
        failures: Why others could not, a line each.
    """

    plan: Plan
    found: Benchmark
    failures: tuple[str, ...]


def work(plan: Plan) -> tuple[float, float]:
    """Return the FLOPs and the least bytes of a step.

    Two FLOPs for each multiply-accumulate of convolutions and dense layers. Bytes are what
    convolutions, dense layers and pools read and write, elementwise layers being computed within
    them, and the parameters once for the whole batch.
    """
    batch = plan.batch_sizes[0]
    training = plan.mode == "train"
    found = profile(plan.spec, size=plan.image_size, aux_heads=training and bool(plan.spec.aux))
    rows = [row.cost for row in found.rows if row.kind in _MOVES]
    numbers = found.totals.parameters
    moved = sum(cost.bytes_read + cost.bytes_written - 4 * cost.parameters for cost in rows) / 4
    times = _TRAINING if training else 1
    flops = 2.0 * found.totals.macs * batch * times
    return flops, float(moved * batch + numbers) * _BYTES[plan.dtype] * times


def ratio(base: Measured | None, measured: Measured) -> Quartiles | None:
    """Return how many times as fast as another one is, by the rounds; None without that."""
    return base and Quartiles.of(np.divide(base.seconds, measured.seconds))


def table(cells: Sequence[Cell], peaks: Peaks) -> str:
    """Return the Markdown table of steps; the goal stands at the fastest of ours."""
    text = [
        "| model | work | dtype | batch | by | images/s | x compiled | quartiles | x eager "
        "| matrix rate | bandwidth | to reach |",
        "|---|---|---|--:|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for cell in cells:
        plan = cell.plan
        batch = plan.batch_sizes[0]
        start = f"| {plan.model} | {plan.mode} | {plan.dtype} | {batch} "
        flops, moved = work(plan)
        results = sorted(cell.found.results, key=lambda m: float(np.median(m.seconds)))
        compiled, eager = (
            next(
                (m for m in results if m.competitor == Competitor("torchvision", compiled=c)), None
            )
            for c in (True, False)
        )
        fastest = next((m for m in results if m.competitor.kind == "keras"), None)
        for measured in results:
            seconds = float(np.median(measured.seconds))
            to_compiled, to_eager = ratio(compiled, measured), ratio(eager, measured)
            goal = ""
            if measured is fastest and to_compiled is not None:
                goal = f"{GOAL:g} {'reached' if to_compiled.median >= GOAL else 'missed'}"
            spread = to_compiled and f"{to_compiled.low:.2f} - {to_compiled.high:.2f}"
            text.append(
                f"{start}| {measured.competitor.label} | {batch / seconds:,.1f} "
                f"| {_number(to_compiled)} | {spread or ''} | {_number(to_eager)} "
                f"| {flops / seconds / peaks[plan.dtype]:.0%} "
                f"| {moved / seconds / peaks['copy']:.0%} | {goal} |"
            )
        text += [f"{start}| {_plain(failure)} | - | | | | | | |" for failure in cell.failures]
    return "\n".join(text)


def epoch_table(found: Sequence[Mapping[str, Any]]) -> str:
    """Return the Markdown table of training from bytes in memory."""
    text = [
        "| dtype | batch | Keras on | images/s | own step, images/s | ratio | to reach |",
        "|---|--:|---|--:|--:|--:|--:|",
    ]
    for row in found:
        start = f"| {row['dtype']} | {row['batch']} | {row['backend']} "
        if "failure" in row:
            text.append(f"{start}| {_plain(row['failure'])} | | | |")
            continue
        reached = "reached" if row["ratio"] >= EPOCH_GOAL else "missed"
        text.append(
            f"{start}| {row['images']:,.1f} | {row['own']:,.1f} | {row['ratio']:.2f} "
            f"| {EPOCH_GOAL:g} {reached} |"
        )
    return "\n".join(text)


def section(
    command: str, cells: Sequence[Cell], epochs: Sequence[Mapping[str, Any]], peaks: Peaks
) -> str:
    """Return the section of the results: conditions and tables."""
    parts = [f"```\n{command}\n```"]
    measured = [cell.found for cell in cells if cell.found.results]
    if measured:
        first = measured[0]
        took_part = [m.competitor for found in measured for m in found.results]
        where = f"{', '.join(first.gpus) or first.cpu}, {first.plan.threads} threads"
        listed = ", ".join(f"{name} {version}" for name, version in versions(took_part).items())
        parts.append(
            f"{where}; {listed}. Medians of {first.plan.rounds} rounds in turns, a process for "
            "each; data lie on the device. Ratios are to torchvision channels_last, compiled by "
            "torch.compile and eager, in the same rounds; it gets autocast for mixed_bfloat16. On "
            "a GPU float32 may use TF32 on all sides. Training steps are SGD with momentum, "
            "GoogLeNet's with its auxiliary heads."
        )
    rates = ", ".join(f"{peaks[dtype] / 1e12:,.1f} TFLOP/s in {dtype}" for dtype in _BYTES)
    parts.append(
        f"Matrix rate and bandwidth are shares of what the device did in the same run: {rates} in "
        f"a large square product, {peaks['copy'] / 1e9:,.0f} GB/s in a copy. A step counts two "
        f"FLOPs for each multiply-accumulate, and the least traffic: what convolutions, dense "
        f"layers and pools read and write, and the weights once; training {_TRAINING} times that."
    )
    if cells:
        parts.append(table(cells, peaks))
    if epochs:
        parts += [
            "Training AlexNet from bytes of 32 x 32 in memory, resized and mirrored on the "
            "device, by `fit` with the batches of `keras-alexnet train`, against the model's own "
            "step on a batch that lies on the device:",
            epoch_table(epochs),
        ]
    return "\n\n".join(parts)


def _number(found: Quartiles | None) -> str:
    return f"{found.median:.2f}" if found is not None else ""


def _plain(text: str) -> str:
    """Return a line for a cell of a table."""
    return text.replace("|", "/")[:160]
