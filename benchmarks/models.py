"""Time every model of torchvision's against it: inference, the best engines, training steps.

    python benchmarks/models.py [--models alexnet googlenet] [--contests NAME ...] [--rounds 10]
        [--quick]

Each competitor lives in a process of its own; they take turns. The table goes into
`benchmarks/RESULTS.md` and a chart into `benchmarks/models.png`; a part of the models or contests
is only printed.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from chart import Bar, draw
from results import RESULTS, own_command, write_section

from keras_alexnet.benchmarking.environment import cores
from keras_alexnet.benchmarking.plan import COUNTERPARTS, Plan, baselines, keras_side
from keras_alexnet.benchmarking.report import Quartiles, Row, rows, versions
from keras_alexnet.benchmarking.runner import Benchmark, run
from keras_alexnet.core.backend import BACKENDS
from keras_alexnet.errors import KerasAlexNetError
from keras_alexnet.specs import SPECS

PICTURE = Path(__file__).with_suffix(".png")
_ROUNDS, _SECONDS = 10, 0.5
_QUICK_ROUNDS, _QUICK_SECONDS = 3, 0.1


@dataclass(frozen=True)
class Contest:
    """Who is measured together, at what.

    Attributes:
        title: What people read.
        mode: Of `keras-alexnet benchmark`.
        batch_sizes: Images of a batch.
        against: The baseline.
        backends: Keras backends.
        engines: Of `keras-alexnet benchmark`.
        goals: Model -> backend -> least ratio to the baseline. Of several engines on one backend
            the best counts.
        dtype: Keras dtype policy; torchvision gets autocast to the same.
    """

    title: str
    mode: str
    batch_sizes: tuple[int, ...]
    against: str
    backends: tuple[str, ...]
    engines: tuple[str, ...]
    goals: Mapping[str, Mapping[str, float]]
    dtype: str = "float32"


_INFERENCE = {"torch": 1.0, "tensorflow": 1.15, "jax": 0.8}
CONTESTS = {
    "inference": Contest(
        "inference, the model as it is",
        "inference",
        (32,),
        "torchvision",
        BACKENDS,
        ("keras",),
        dict.fromkeys(COUNTERPARTS, _INFERENCE),
    ),
    "optimized": Contest(
        "inference, optimized for the backend",
        "inference",
        (32,),
        "torchvision",
        BACKENDS,
        ("auto",),
        dict.fromkeys(COUNTERPARTS, _INFERENCE),
    ),
    "engines": Contest(
        "inference, the best engines",
        "inference",
        (1, 32),
        "openvino-torchvision",
        ("torch",),
        ("openvino", "onnxruntime"),
        {model: {"torch": 0.97} for model in COUNTERPARTS},
    ),
    "training": Contest(
        "training step",
        "train",
        (32,),
        "torchvision",
        BACKENDS,
        ("keras",),
        {
            "alexnet": {"tensorflow": 1.05, "torch": 1.0, "jax": 0.75},
            "googlenet": {"tensorflow": 0.9, "torch": 1.0, "jax": 0.6},
        },
    ),
}
# Speeds that are told and not aimed at.
CONTESTS |= {
    f"{name}-bfloat16": replace(
        CONTESTS[name],
        title=f"{CONTESTS[name].title}, mixed_bfloat16",
        goals={},
        dtype="mixed_bfloat16",
    )
    for name in ("inference", "training")
}


@dataclass(frozen=True)
class Line:
    """A row of the table."""

    model: str
    contest: Contest
    row: Row
    goal: float | None

    @property
    def ratio(self) -> Quartiles:
        """The row's ratio: there always is a baseline here."""
        assert self.row.ratio is not None
        return self.row.ratio

    @property
    def bar(self) -> Bar:
        """The row in the chart."""
        measured = self.row.measured
        what = f"{self.contest.title}, batch {measured.batch_size}"
        return Bar(self.model, what, measured.competitor.label, self.ratio, self.goal)


def measure(model: str, contest: Contest, rounds: int, seconds: float) -> Benchmark:
    """Run one contest with one model."""
    plan = Plan(
        model,
        contest.mode,
        contest.batch_sizes,
        SPECS[model].default_size,
        rounds,
        seconds,
        cores(),
        contest.dtype,
    )
    competitors = keras_side(plan, contest.backends, contest.engines)
    return run(plan, [*baselines(plan, contest.against), *competitors])


def lines(model: str, contest: Contest, found: Benchmark) -> list[Line]:
    """Return the table's rows of one contest, the fastest first; goals at the best engines."""
    result = [Line(model, contest, row, None) for row in rows(found)]
    aimed: set[tuple[int, str | None]] = set()
    result.sort(key=lambda line: (line.row.measured.batch_size, -line.ratio.median))
    for number, line in enumerate(result):
        measured = line.row.measured
        place = measured.batch_size, measured.competitor.backend
        if measured.competitor.kind == "keras" and place not in aimed:
            aimed.add(place)
            result[number] = replace(line, goal=contest.goals.get(model, {}).get(place[1] or ""))
    return result


def table(all_lines: Sequence[Line]) -> str:
    """Return the Markdown table."""
    text = [
        "| model | work | batch | by | images/s | ratio | quartiles | to reach |",
        "|---|---|--:|---|--:|--:|--:|--:|",
    ]
    for line in all_lines:
        ratio, measured, goal = line.ratio, line.row.measured, ""
        if line.goal is not None:
            goal = f"{line.goal:g} {'reached' if ratio.median >= line.goal else 'missed'}"
        text.append(
            f"| {line.model} | {line.contest.title} | {measured.batch_size} "
            f"| {measured.competitor.label} | {line.row.rate:,.1f} | {ratio.median:.2f} "
            f"| {ratio.low:.2f} - {ratio.high:.2f} | {goal} |"
        )
    return "\n".join(text)


def conditions(found: Sequence[Benchmark], command: str) -> str:
    """Return where and how it was measured."""
    plan = found[0].plan
    took_part = [m.competitor for benchmark in found for m in benchmark.results]
    listed = ", ".join(f"{name} {version}" for name, version in versions(took_part).items())
    return (
        f"```\n{command}\n```\n\n"
        f"{found[0].cpu}, {plan.threads} threads, float32 unless said; {listed}. "
        f"Medians of {plan.rounds} rounds in turns, a process for each. A ratio says how many "
        "times as fast as torchvision channels_last (or as OpenVINO with torchvision's network) "
        "in the same round; in mixed_bfloat16, as torchvision under autocast. The quartiles are "
        "those of the rounds. Training steps are SGD with momentum, GoogLeNet's with its "
        "auxiliary heads."
    )


def main() -> None:
    """Measure, print, and write the section and the chart."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="*", choices=COUNTERPARTS, default=list(COUNTERPARTS))
    parser.add_argument("--contests", nargs="*", choices=CONTESTS, default=list(CONTESTS))
    parser.add_argument("--rounds", type=int)
    parser.add_argument(
        "--quick", action="store_true", help=f"{_QUICK_ROUNDS} rounds of short measurements"
    )
    arguments = parser.parse_args()
    rounds = arguments.rounds or (_QUICK_ROUNDS if arguments.quick else _ROUNDS)
    seconds = _QUICK_SECONDS if arguments.quick else _SECONDS
    measured: list[Benchmark] = []
    all_lines: list[Line] = []
    failures: list[str] = []
    for name in arguments.contests:
        for model in arguments.models:
            try:
                found = measure(model, CONTESTS[name], rounds, seconds)
            except KerasAlexNetError as error:
                # The others took long: they are not given up.
                reason = str(error).splitlines()[0]
                failures.append(f"{model}, {CONTESTS[name].title}: not measured: {reason}")
                print(failures[-1], flush=True)
                continue
            new = lines(model, CONTESTS[name], found)
            print(table(new), flush=True)
            measured.append(found)
            all_lines += new
    if (set(arguments.contests), set(arguments.models)) != (set(CONTESTS), set(COUNTERPARTS)):
        return
    if not measured:
        raise SystemExit(f"{RESULTS.name} stays as it is: nothing could be measured")
    parts = [conditions(measured, own_command()), table(all_lines)]
    parts += ["\n".join(f"- {line}" for line in failures)] if failures else []
    text = "\n\n".join([*parts, f"![ratios to the baselines]({PICTURE.name})"])
    draw([line.bar for line in all_lines], PICTURE)
    write_section("models", text)


if __name__ == "__main__":
    main()
