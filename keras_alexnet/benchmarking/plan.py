"""What a benchmark measures, and who takes part; imports no framework."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from keras_alexnet.core.backend import BACKENDS, installed, pip_line
from keras_alexnet.errors import ConfigurationError, MissingDependencyError, ModelFileError
from keras_alexnet.models.record import read_record
from keras_alexnet.optimizing.engines.registry import ENGINES
from keras_alexnet.specs import find_spec
from keras_alexnet.specs.schema import ModelSpec
from keras_alexnet.specs.shapes import too_small

# Mode -> batch sizes where the user names none.
MODES: Mapping[str, tuple[int, ...]] = {"inference": (1, 32), "train": (32,), "pipeline": (64,)}
DTYPES = ("float32", "mixed_bfloat16", "mixed_float16")
DEVICES = ("cpu", "gpu")
# The model as it was built, then what `keras_alexnet.optimize` makes of it.
ENGINE_NAMES = ("keras", "auto", *ENGINES)
# Baseline -> packages that it needs.
BASELINES: Mapping[str, tuple[str, ...]] = {
    "torchvision": ("torch", "torchvision"),
    "timm": ("torch", "torchvision", "timm"),
    "openvino-torchvision": ("torch", "torchvision", "openvino"),
    "openvino-timm": ("torch", "torchvision", "timm", "openvino"),
}
_OPENVINO = "openvino-"  # before the name of a library, whose network OpenVINO computes
_LIBRARIES = tuple(name for name in BASELINES if not name.startswith(_OPENVINO))
COUNTERPARTS = ("alexnet", "googlenet")  # torchvision's
# So small that hundreds of steps on one batch leave the weights where they are: neither NaN nor
# vanishing gradients may decide the speed.
LEARNING_RATE, MOMENTUM = 1e-5, 0.9


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        model: Name of the model, or a `.keras` file; in training, and in any dtype but float32, its
            network gets fresh weights.
        mode: `"inference"`, `"train"` (a step of SGD with momentum, auxiliary heads included) or
            `"pipeline"` (making training batches, without the model).
        batch_sizes: Images of a batch, each size measured on its own.
        image_size: Height and width of the network's input in pixels.
        rounds: Times that every competitor is measured.
        seconds: Least duration of a measurement; fast steps are repeated to fill it.
        threads: Number of processor cores that a competitor may use.
        dtype: Keras dtype policy; torchvision gets autocast to the same type.
        device: `"cpu"` or `"gpu"`.

    Raises:
        ConfigurationError: A value is impossible; the message names it.
        UnknownModelError: There is no such model.
    """

    model: str
    mode: str
    batch_sizes: tuple[int, ...]
    image_size: tuple[int, int]
    rounds: int
    seconds: float
    threads: int
    dtype: str = "float32"
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, MODES)
        check_choice("dtype", self.dtype, DTYPES)
        check_choice("device", self.device, DEVICES)
        if self.subject.file is not None:
            self._check_file()
            return
        aux_heads = self.mode == "train"
        if problem := too_small(self.spec, list(self.image_size), aux_heads=aux_heads):
            raise ConfigurationError(f"{problem}; give a larger image size")
        if self.mode == "pipeline" and self.dtype != "float32":
            raise ConfigurationError(f"pipelines make float32; leave dtype {self.dtype!r} out")

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return the plan that `dataclasses.asdict` and JSON have made `content` of."""
        lists = {name: tuple(content[name]) for name in ("batch_sizes", "image_size")}
        return cls(**{**content, **lists})

    @property
    def spec(self) -> ModelSpec:
        """The model's spec; a file has none."""
        return find_spec(self.model)

    @property
    def input_shapes(self) -> list[tuple[int, ...]]:
        """What is measured of each input, without the batch: (h, w, C) of images."""
        if not self.subject.inputs:
            return [(*self.image_size, self.subject.channels)]
        height, width = self.image_size
        free = (height, width, 0)
        return [
            tuple(free[i] if n is None else n for i, n in enumerate(shape))
            for shape in self.subject.inputs.values()
        ]

    @functools.cached_property
    def subject(self) -> "Subject":
        """What is known of the model."""
        return subject_of(self.model)

    def _check_file(self) -> None:
        if self.mode == "pipeline":
            raise ConfigurationError(f"{self.model}: pipelines are measured for models by name")
        if self.mode == "train" and len(self.subject.inputs) > 1:
            raise ConfigurationError(
                f"{self.model} takes {len(self.subject.inputs)} inputs; training is measured of "
                "models of one"
            )
        if self.dtype != "float32" and len(self.subject.inputs) > 1:
            raise ConfigurationError(
                f"{self.model} takes {len(self.subject.inputs)} inputs; leave dtype "
                f"{self.dtype!r} out"
            )
        for name, shape in self.subject.inputs.items():
            if len(shape) != 3 and None in shape:
                raise ConfigurationError(
                    f"{self.model} takes {name!r} of any size {shape}; convert it for a fixed one"
                )
        wanted = self.subject.size
        if any(n not in (None, size) for n, size in zip(wanted, self.image_size, strict=True)):
            raise ConfigurationError(f"{self.model} takes images of {wanted[0]}x{wanted[1]} pixels")


@dataclass(frozen=True)
class Subject:
    """A model to be measured.

    Attributes:
        size: Height and width that it is made for; of a file None where any will do.
        channels: Of its images; of several inputs the first image's.
        classes: How many scores it gives; None where a file does not say.
        library: The baseline whose network it is, `"torchvision"` or `"timm"`, or None.
        twin: What that calls it.
        aux: Whether it trains with auxiliary heads.
        file: The `.keras` file, if it is one.
        inputs: Shapes without the batch of several inputs by name; empty where it takes one.
    """

    size: tuple[int | None, int | None]
    channels: int
    classes: int | None
    library: str | None = None
    twin: str | None = None
    aux: bool = False
    file: Path | None = None
    inputs: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)


def subject_of(model: str) -> Subject:
    """Return what is known of a model by its name, or by its `.keras` file's record.

    Raises:
        UnknownModelError: There is no such model.
        ModelFileError: The file is missing or damaged, or has no record of ours.
    """
    if Path(model).suffix != ".keras":
        spec = find_spec(model)
        twin = _twin("", model)
        return Subject(spec.default_size, spec.channels, spec.classes, *twin, bool(spec.aux))
    known = (read_record(model) or {}).get("model") or {}
    inputs = {name: tuple(shape) for name, shape in (known.get("inputs") or {}).items()}
    images = [shape for shape in inputs.values() if len(shape) == 3]
    shape: Sequence[Any] = known.get("input_shape") or (images[0] if images else ())
    if len(shape) != 3:
        raise ModelFileError(f"{model}: no record says what images it takes; see porting convert")
    library, _, name = str(known.get("target") or known.get("name")).rpartition(":")
    height, width, channels = shape
    twin = _twin(library, name)
    return Subject(
        (height, width), channels, known.get("classes"), *twin, file=Path(model), inputs=inputs
    )


def _twin(library: str, name: str) -> tuple[str | None, str | None]:
    """Return the baseline that has a network, and its name there; ours are torchvision's."""
    if not library and name in COUNTERPARTS:
        return "torchvision", name
    return (library, name) if library in _LIBRARIES else (None, None)


@dataclass(frozen=True)
class Competitor:
    """Somebody who is measured.

    Attributes:
        kind: `"keras"`, or one of `BASELINES`.
        backend: Keras backend of its process; None for the configured one, and without Keras.
        engine: One of `ENGINE_NAMES`; `"keras"` calls the model as it was built.
        data_format: Memory layout of torchvision's images.
        compiled: Whether `torch.compile` compiles torchvision's network.
        workers: Processes of torchvision's DataLoader, in mode `"pipeline"`.
    """

    kind: str
    backend: str | None = None
    engine: str = "keras"
    data_format: str = "channels_last"
    compiled: bool = False
    workers: int | None = None

    @property
    def label(self) -> str:
        """What people read."""
        if self.kind == "keras":
            how = {"keras": "", "auto": ", optimized"}.get(self.engine, f", {self.engine}")
            return f"Keras on {self.backend}{how}"
        if self.is_openvino:
            return f"OpenVINO of {self.kind.removeprefix(_OPENVINO)}"
        if self.workers is not None:
            return f"DataLoader, {self.workers} workers"
        return f"{self.kind} {self.data_format}{', compiled' * self.compiled}"

    @property
    def is_openvino(self) -> bool:
        """Whether it is a library's network in OpenVINO."""
        return self.kind.startswith(_OPENVINO)


def keras_side(plan: Plan, backends: tuple[str, ...], engines: tuple[str, ...]) -> list[Competitor]:
    """Return a competitor for each engine on each Keras backend, or on the configured one.

    Raises:
        ConfigurationError: A name is unknown, or an engine cannot do what is measured.
        MissingDependencyError: A backend or an engine's package is not installed.
    """
    for backend in backends:
        check_choice("backend", backend, BACKENDS)
        _need(backend, f"Keras backend {backend!r}")
    for engine in engines:
        check_choice("engine", engine, ENGINE_NAMES)
        if engine in ENGINES:
            _need(ENGINES[engine].package, f"engine {engine!r}")
        if engine != "keras" and plan.mode != "inference":
            raise ConfigurationError(f"engine {engine!r} is for inference, not for {plan.mode!r}")
    return [Competitor("keras", b, e) for b in backends or (None,) for e in engines]


def baselines(plan: Plan, against: str, *, compiled: bool = False) -> list[Competitor]:
    """Return the other side; ratios are to the first one, or to the fastest DataLoader.

    `against` is one of `BASELINES`; torchvision's compiled network may take part too.

    Raises:
        ConfigurationError: There is nothing of that kind to compare with.
        MissingDependencyError: A package is not installed.
    """
    check_choice("baseline", against, BASELINES)
    library = against.removeprefix(_OPENVINO)
    if against != library and (plan.mode, plan.device) != ("inference", "cpu"):
        raise ConfigurationError(f"{against} is for inference on a CPU, not for {plan.mode!r}")
    if plan.mode == "pipeline":
        if against != "torchvision":
            raise ConfigurationError("pipelines are measured against torchvision's")
    elif plan.subject.library != library:
        theirs = {"torchvision": f"{' and '.join(COUNTERPARTS)} and "}.get(library, "")
        raise ConfigurationError(
            f"{library} has no {plan.model}, only {theirs}what was converted from {library}:NAME; "
            "leave --against out for absolute rates"
        )
    if compiled and (against != library or plan.mode == "pipeline"):
        raise ConfigurationError(f"--compile is for the networks of {' and '.join(_LIBRARIES)}")
    for package in BASELINES[against]:
        _need(package, f"baseline {against!r}")
    if plan.mode == "pipeline":
        return [Competitor(against, workers=n) for n in dict.fromkeys((0, plan.threads))]
    if against != library:
        return [Competitor(against)]
    found = [Competitor(against), Competitor(against, data_format="channels_first")]
    return [*found, Competitor(against, compiled=True)] if compiled else found


def check_choice(what: str, value: str, choices: Any) -> None:
    """Refuse a value that is not one of the choices, with a ConfigurationError."""
    if value not in choices:
        raise ConfigurationError(f"unknown {what} {value!r}; choose from {', '.join(choices)}")


def _need(package: str, what: str) -> None:
    if not installed(package):
        raise MissingDependencyError(
            f"{what} needs {package}, which is not installed. Install it with: {pip_line(package)}"
        )
