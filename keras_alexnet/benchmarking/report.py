"""What a benchmark found, for people and machines: medians, spreads, ratios."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from keras_alexnet.benchmarking.environment import ALLOCATOR
from keras_alexnet.benchmarking.plan import BASELINES, Competitor
from keras_alexnet.benchmarking.runner import Benchmark, Measured
from keras_alexnet.core.machine import installed_versions
from keras_alexnet.core.tables import Column, Sheet
from keras_alexnet.optimizing.engines.registry import ENGINES

_WHAT = {
    "inference": "inference",
    "train": "training step",
    "pipeline": "input pipeline of training",
}


@dataclass(frozen=True)
class Quartiles:
    """The middle of some numbers and how far they spread."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float] | np.ndarray) -> "Quartiles":
        """Return the quartiles of at least one number."""
        return cls(*(float(v) for v in np.quantile(values, (0.25, 0.5, 0.75))))


@dataclass(frozen=True)
class Row:
    """A competitor at a batch size."""

    measured: Measured
    seconds: Quartiles  # of a batch
    ratio: Quartiles | None  # baseline's seconds over its own by round; None without a baseline

    @property
    def rate(self) -> float:
        """Images per second, by the median."""
        return self.measured.batch_size / self.seconds.median


def rows(found: Benchmark) -> list[Row]:
    """Return a row for each result, in their order."""
    result = []
    for measured in found.results:
        base, ratio = baseline(found, measured.batch_size), None
        if base is not None:
            ratio = Quartiles.of(np.divide(base.seconds, measured.seconds))
        result.append(Row(measured, Quartiles.of(measured.seconds), ratio))
    return result


def baseline(found: Benchmark, batch_size: int) -> Measured | None:
    """Return what ratios are to: the first that is not Keras, or the fastest DataLoader."""
    others = [
        m for m in found.results if m.batch_size == batch_size and m.competitor.kind != "keras"
    ]
    if found.plan.mode == "pipeline":
        return min(others, key=lambda m: float(np.median(m.seconds)), default=None)
    return others[0] if others else None


def versions(competitors: Sequence[Competitor]) -> dict[str, str]:
    """Return the versions of what took part."""
    names = ["keras", "numpy"]
    for competitor in competitors:
        if competitor.backend is not None:
            names.append(competitor.backend)
        names += BASELINES.get(competitor.kind, ())
        if competitor.engine in ENGINES:
            names.append(ENGINES[competitor.engine].package)
    return installed_versions(("keras-alexnet", *dict.fromkeys(names)))


def sheet(found: Benchmark) -> Sheet:
    """Return the table, sorted by batch size and speed."""
    plan = found.plan
    columns: tuple[Column, ...] = (
        Column("batch_size", "batch"),
        Column("by", "by", text=True),
        Column("milliseconds", "ms/batch", show=lambda v: f"{v:.2f}"),
        Column("quartiles", "quartiles", show=lambda v: f"{v[0]:.2f} - {v[1]:.2f}"),
        Column("images_per_second", "images/s", show=lambda v: f"{v:,.1f}"),
        Column("ratio", "ratio", show=lambda v: f"{v:.2f}"),
        Column("ratio_quartiles", "quartiles", show=lambda v: f"{v[0]:.2f} - {v[1]:.2f}"),
    )
    lines: list[tuple[Any, ...]] = []
    for row in sorted(rows(found), key=lambda r: (r.measured.batch_size, r.seconds.median)):
        low, high = 1e3 * row.seconds.low, 1e3 * row.seconds.high
        ratio = row.ratio
        lines.append(
            (
                row.measured.batch_size,
                row.measured.competitor.label,
                1e3 * row.seconds.median,
                (low, high),
                row.rate,
                ratio and ratio.median,
                ratio and (ratio.low, ratio.high),
            )
        )
    size = "x".join(map(str, plan.image_size))
    heads = " with auxiliary heads" if plan.mode == "train" and plan.subject.aux else ""
    title = f"{plan.model}, {_WHAT[plan.mode]}{heads}, {size} pixels, {plan.dtype}"
    if all(row[-1] is None for row in lines):
        columns, lines = columns[:-2], [line[:-2] for line in lines]
    return Sheet(title, columns, lines)


def notes(found: Benchmark) -> list[str]:
    """Return what the table needs to be understood."""
    plan = found.plan
    threads = "1 thread" if plan.threads == 1 else f"{plan.threads} threads"
    where = f"{found.cpu}, {threads}"
    if plan.device == "gpu":
        where = f"{', '.join(found.gpus)}; {where}; float32 may use TF32"
    times = "1 round" if plan.rounds == 1 else f"{plan.rounds} rounds"
    text = [
        f"medians of {times} in turns, a process for each, and their quartiles; data "
        "lies on the device",
        f"{where}; {', '.join(f'{n} {v}' for n, v in _versions(found).items())}",
    ]
    if plan.mode == "pipeline":
        text[0] = f"medians of {times} in turns, an epoch each, and a process for each"
        text.insert(1, "noise of 32x32 bytes in memory, resized, mirrored, normalised; no files")
    base = baseline(found, plan.batch_sizes[0])
    if base is not None:
        who = "the faster DataLoader" if plan.mode == "pipeline" else base.competitor.label
        text.insert(0, f"ratio: how many times as fast as {who}, median of the rounds' ratios")
    return text


def _versions(found: Benchmark) -> dict[str, str]:
    return versions([m.competitor for m in found.results])


def to_json(found: Benchmark) -> dict[str, Any]:
    """Return everything: the plan, the conditions, and a record for each result.

    Seconds are those of a batch, one for each round; ratios say how many times as fast as the
    baseline of the same batch size a competitor is, and are null without a baseline.
    """
    results = []
    for row in rows(found):
        base = baseline(found, row.measured.batch_size)
        results.append(
            {
                "by": row.measured.competitor.label,
                **asdict(row.measured.competitor),
                "batch_size": row.measured.batch_size,
                "calls": row.measured.calls,
                "seconds": list(row.measured.seconds),
                "seconds_quartiles": asdict(row.seconds),
                "images_per_second": row.rate,
                "baseline": base and base.competitor.label,
                "ratio_quartiles": row.ratio and asdict(row.ratio),
            }
        )
    return {
        "plan": asdict(found.plan),
        "cpu": found.cpu,
        "gpus": list(found.gpus),
        "versions": _versions(found),
        "allocator": dict(ALLOCATOR),
        "results": results,
    }
