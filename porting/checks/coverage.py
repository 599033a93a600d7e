"""Which torch networks become Keras models, how exactly, and which operations they are made of."""

import math
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from keras_alexnet.core.children import Workers
from keras_alexnet.core.machine import installed_versions
from keras_alexnet.errors import KerasAlexNetError
from keras_alexnet.specs.schema import DATA_FORMATS
from porting.checks.parity import Say
from porting.checks.results import finite
from porting.conversion.network import prepare
from porting.errors import UsageError
from porting.graph.plan import Plan
from porting.graph.torch_child import Proof
from porting.tolerances import LIVELY, TOLERANCES, spread
from porting.torch_side.targets import Target
from porting.torch_side.zoos import names

_TIMEOUT = 1800.0


@dataclass(frozen=True)
class Covered:
    """One network.

    Attributes:
        target: What it is, such as `torchvision:resnet50`.
        parameters: How many numbers an optimiser changes, in what inference computes with.
        operations: ATen operation -> how often it stands in the graph.
        transposes: Transposes that the Keras model computes, channels last.
        gaps: `BACKEND/DATA_FORMAT` -> the largest difference of a logit, relative to the largest
            logit.
        failures: `BACKEND/DATA_FORMAT` -> why it could not be computed.
        round_trip: Whether the state_dict comes back byte by byte.
        spread: How much the logits differ between images, relative to the largest.
        error: Why it could not be converted.
    """

    target: str
    parameters: int = 0
    operations: Mapping[str, int] = field(default_factory=dict)
    transposes: int = 0
    gaps: Mapping[str, float] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    round_trip: bool = False
    spread: float | None = None
    error: str = ""

    @property
    def worst(self) -> float:
        """The largest of the differences."""
        return max(self.gaps.values(), default=math.inf)

    @property
    def passed(self) -> bool:
        """Whether it was converted, agrees on every backend, and comes back.

        Not every backend can compute channels_first; what it computes of that agrees. Logits that
        hardly differ between images would prove nothing.
        """
        missing = [where for where in self.failures if not where.endswith("/channels_first")]
        agrees = bool(self.gaps) and not missing and self.worst <= TOLERANCES["logits"].limit
        return not self.error and agrees and self.round_trip and not self.dull

    @property
    def dull(self) -> bool:
        """Whether its logits hardly differ between images."""
        return self.spread is not None and self.spread < LIVELY


def targets_of(pattern: str) -> list[Target]:
    """Return the networks that a pattern such as `torchvision:res*` names.

    `timm:*` is one small network of each of its families.

    Raises:
        UsageError: It names none.
    """
    target = Target.parse(pattern)
    if target is None:
        raise UsageError(f"{pattern!r} names no torch network, such as 'torchvision:*'")
    if target.library is None or target.folder is not None:
        return [target]
    found = names(target.library, target.known_as)
    if not found:
        raise UsageError(f"{target.library} has no network like {target.known_as!r}")
    return [target.at(name) for name in found]


def coverage(
    targets: Sequence[Target],
    backends: Sequence[str],
    data_formats: Sequence[str] = DATA_FORMATS,
    say: Say = lambda _: None,
) -> Iterator[Covered]:
    """Convert networks with lively seeded weights and compare the files' logits with torch's.

    A file is written on the first backend and opened on each by plain Keras, in safe mode; in the
    other data format the model is built from the graph. Networks come one by one.
    """
    with Workers() as workers:
        for target in targets:
            with tempfile.TemporaryDirectory(prefix="coverage-") as folder:
                yield _covered(target, Path(folder), backends, data_formats, say, workers)


def _covered(
    target: Target,
    folder: Path,
    backends: Sequence[str],
    data_formats: Sequence[str],
    say: Say,
    workers: Workers,
) -> Covered:
    say(f"{target.text}: following it")
    try:
        network = prepare(target, None, folder, workers=workers, timeout=_TIMEOUT)
    except KerasAlexNetError as error:
        return Covered(target.text, error=str(error))
    plan = Plan.load(network.plan)
    operations = Counter(node.op for node in plan.nodes)
    parameters = sum(math.prod(p.shape) for p in plan.parameters.values() if not p.buffer)
    job = network.to_json() | {"output": str(folder / "model.keras"), "data_formats": data_formats}
    gaps: dict[str, float] = {}
    failures: dict[str, str] = {}
    facts: dict[str, Any] = {}
    for backend in backends:
        say(f"{target.text}: Keras on {backend}")
        write = not facts
        try:
            answer = workers.call(
                "porting.checks.coverage_child",
                job | {"write": write},
                backend=backend,
                timeout=_TIMEOUT,
            )
        except KerasAlexNetError as error:
            if write:
                return Covered(target.text, operations=dict(operations), error=str(error))
            failures[backend] = str(error)
            continue
        facts = facts or answer
        for name, found in answer["found"].items():
            if isinstance(found, str):
                failures[f"{backend}/{name}"] = found
            else:
                gaps[f"{backend}/{name}"] = found
    return Covered(
        target.text,
        parameters,
        dict(operations),
        facts["transposes"],
        gaps,
        failures,
        facts["round_trip"],
        spread(next(iter(Proof.load(network.proof).outputs.values()))),
    )


def from_json(content: Mapping[str, Any]) -> list[Covered]:
    """Return what `to_json` made into JSON."""
    names = {each.name for each in fields(Covered)}
    found = [
        Covered(**{name: value for name, value in network.items() if name in names})
        for network in content["networks"]
    ]
    return [
        replace(each, gaps={n: _endless(gap) for n, gap in each.gaps.items()}) for each in found
    ]


def _endless(gap: float | None) -> float:
    return math.inf if gap is None else gap


def to_json(found: Sequence[Covered]) -> dict[str, Any]:
    """Return a coverage as JSON-serialisable values; infinite differences become null."""
    versions = installed_versions(("keras", "torch", "torchvision", "timm", "tensorflow", "jax"))
    return {
        "passed": sum(each.passed for each in found),
        "networks": [
            {
                **vars(each),
                "gaps": {name: finite(gap) for name, gap in each.gaps.items()},
                "passed": each.passed,
                "worst": finite(each.worst),
            }
            for each in found
        ],
        "versions": versions,
    }
