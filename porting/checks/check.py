"""A check from the user's words: finds the weights, converts them, runs the comparison."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_alexnet.core.backend import BACKENDS, installed_backends, pip_line, require
from keras_alexnet.core.children import Workers
from keras_alexnet.core.fields import comma_separated, option, parse_shape, parse_size
from keras_alexnet.errors import ModelFileError
from keras_alexnet.models.record import read_record
from keras_alexnet.specs import find_spec
from keras_alexnet.specs.preprocessing import Preprocessing
from keras_alexnet.specs.schema import DATA_FORMATS, ModelSpec
from keras_alexnet.specs.shapes import too_small
from porting.checkpoints.files import write_checkpoint
from porting.checks.inputs import input_sets
from porting.checks.parity import Say, run_check
from porting.checks.results import Check, ParityResult
from porting.conversion.network import Network, prepare
from porting.conversion.sources import ALLOW_PICKLE, TRANSFORM_INPUT, WHICH, Source, open_source
from porting.errors import UsageError
from porting.torch_side import torchvision_zoo
from porting.torch_side.reference_nets import Reference
from porting.torch_side.seeded import seeded_state_dict
from porting.torch_side.targets import Target
from porting.torch_side.user_code import check_function
from porting.weights.counterpart import Counterpart
from porting.weights.spec_tables import counterpart, fit, weight_map
from porting.weights.table import Size

# How far sizes lie from the architecture's own. At 224: torchvision's own size, AlexNet's of the
# paper, an uncropped photo's, and an odd one that is no square: strided padding, ceil-mode and
# adaptive pooling differ between them. The small steps are for networks whose dense layers fit few
# sizes.
_STEPS: tuple[Size, ...] = ((0, 0), (3, 3), (32, 32), (-31, 27), (1, 3), (2, 1))
_MAX_SIZES = 4
# Of networks whose own preprocessing nobody knows, by their channels.
_PLAIN = {
    3: Preprocessing(mean=(0.5,) * 3, std=(0.25,) * 3),
    1: Preprocessing(mean=(0.5,), std=(0.25,), channels="L"),
}


def default_sizes(spec: ModelSpec) -> tuple[Size, ...]:
    """Return sizes around the architecture's own at which one set of weights serves."""
    height, width = spec.default_size
    sizes = ((height + down, width + right) for down, right in _STEPS)
    serving = [size for size in sizes if same_weights(spec, size, spec.default_size)]
    return tuple(serving[:_MAX_SIZES])


def same_weights(spec: ModelSpec, size: Size, other: Size) -> bool:
    """Return whether an architecture, heads and all, has the same weights at two sizes."""
    try:
        tables = [weight_map(spec, spec.classes, size=each) for each in (size, other)]
    except ValueError:
        return False
    return tables[0] == tables[1]


@dataclass(frozen=True)
class CheckRequest:
    """A check in the user's words, which the fields' help texts are.

    The weights are those of the first size. Without images, noise alone is compared where they are
    an empty list. `reference` is what `user_code.check_function` takes.
    """

    model: str
    source: str | Path | None = option(
        None, "A weights file or torchvision weights' name; by default seeded weights.", parse=str
    )
    candidate: Path | None = option(None, "The .keras file; by default the source is converted.")
    images: list[Path] | None = option(
        None, "Photo file or folder, repeatable; by default scikit-learn's sample photos."
    )
    sizes: Sequence[Size] | None = option(
        None,
        "N or HEIGHTxWIDTH, comma-separated, in pixels; by default the model's own and up to three "
        "others that its weights serve.",
        parse=comma_separated(parse_size),
    )
    noise: int = option(2, "Noise images of each size.", min=0)
    seed: int = option(0, "Of the noise and of seeded weights.", min=0)
    input_shape: tuple[int, int, int] | None = option(
        None,
        "CHANNELSxHEIGHTxWIDTH of a FILE.py:FUNCTION, by default 3x224x224.",
        parse=parse_shape,
        metavar="TEXT",
    )
    backends: Sequence[str] | None = option(
        None, "Comma-separated; by default all installed.", parse=comma_separated(str)
    )
    data_formats: Sequence[str] = option(
        DATA_FORMATS, "Comma-separated.", parse=comma_separated(str)
    )
    transform_input: bool | None = option(None, TRANSFORM_INPUT)
    reference: str | None = option(
        None,
        "Your own torch network: FUNCTION(model, classes=, aux_heads=, size=) is run and returns "
        "it. By default torchvision's, or one of torch's layers after our table.",
        metavar="FILE.py:FUNCTION",
    )
    allow_pickle: bool = option(False, ALLOW_PICKLE, flag="--allow-pickle")
    which: str | None = option(None, WHICH)
    timeout: float = option(900.0, "Seconds of silence that end a child process.", min=1)


def check(
    request: CheckRequest, folder: Path, say: Say = lambda _: None, workers: Workers | None = None
) -> ParityResult:
    """Compare a torch network with its Keras port, layer by layer on every backend.

    Args:
        request: What to compare.
        folder: An existing folder for large temporary files.
        say: Called with a line of progress before each step.
        workers: As in `parity.run_check`.

    Returns:
        The result; `passed` says whether every cell agrees.

    Raises:
        PortingError: The request is wrong, the source is unreadable, or the reference failed.
        KerasAlexNetError: A requested backend or the reference framework is not installed.
    """
    if (target := Target.parse(request.model)) is not None:
        return _check_network(target, request, folder, say, workers)
    name = request.model
    spec = find_spec(name)
    sizes = default_sizes(spec) if request.sizes is None else request.sizes
    for size in sizes:
        if problem := too_small(spec, size):
            raise UsageError(problem)
    function = None if request.reference is None else check_function(request.reference)
    chosen = _chosen(request)
    inputs = input_sets(
        request.images, sizes, spec.preprocessing, noise=request.noise, seed=request.seed
    )
    opened = open_weights(
        spec,
        request.source,
        folder,
        seed=request.seed,
        size=sizes[0],
        say=say,
        transform_input=request.transform_input,
        allow_pickle=request.allow_pickle,
        which=request.which,
    )
    _check_sizes(opened, sizes)
    aux_heads = opened.fit.aux_heads
    labels = opened.info.labels if opened.info else ()
    candidate = request.candidate
    if candidate is None:
        say(f"converting on {chosen[0]}")
        candidate = folder / f"{name}.keras"
        job = {
            "name": name,
            "source": str(opened.path),
            "output": str(candidate),
            "include_preprocessing": True,
            "aux_heads": aux_heads,
            "transform_input": opened.transform_input,
            "data_format": request.data_formats[0],
            "input_size": sizes[0],
            "allow_pickle": request.allow_pickle,
        }
        with Workers() as own:
            (workers or own).call(
                "porting.conversion.convert", job, backend=chosen[0], timeout=request.timeout
            )
    else:
        if not candidate.is_file():
            raise ModelFileError(f"{candidate}: no such file")
        record = read_record(candidate) or {}
        labels = tuple(record.get("labels") or labels)
        # A file without the heads is compared without them.
        aux_heads = aux_heads and bool(record.get("model", {}).get("aux_heads", False))
    known = request.source is None and name in torchvision_zoo.NETWORKS
    if known and not labels and any(each.paths for each in inputs):
        labels = torchvision_zoo.describe(name, "DEFAULT").labels
    return run_check(
        Check(
            Reference(name, opened.classes, aux_heads, opened.transform_input, sizes[0], function),
            counterpart(spec, opened.classes, aux_heads=aux_heads, size=sizes[0]),
            opened.torch_file(folder),
            candidate,
            inputs=tuple(inputs),
            backends=chosen,
            data_formats=tuple(request.data_formats),
            labels=tuple(labels),
            timeout=request.timeout,
        ),
        folder,
        say,
        workers,
    )


def _chosen(request: CheckRequest) -> tuple[str, ...]:
    """Return the backends of a check, whose data formats are known and reference is there."""
    chosen = checked_backends(request.backends)
    if unknown := [f for f in request.data_formats if f not in DATA_FORMATS]:
        raise UsageError(f"unknown data format {unknown[0]!r}; known: {', '.join(DATA_FORMATS)}")
    require("torchvision")  # the reference; said before anything is computed
    return chosen


def _check_network(
    target: Target, request: CheckRequest, folder: Path, say: Say, workers: Workers | None
) -> ParityResult:
    """Compare any torch network with the Keras model that is made of its graph."""
    if request.reference is not None or request.transform_input is not None:
        raise UsageError(
            f"{target.text} is compared with itself; leave reference and transform_input out"
        )
    if request.sizes is not None and len(request.sizes) != 1:
        raise UsageError("a network that is followed has one size: name one, or none")
    chosen = _chosen(request)
    with Workers() as own:
        workers = workers or own
        say(f"following {target.text}")
        network = prepare(
            target,
            request.source,
            folder,
            size=request.sizes[0] if request.sizes else None,
            shape=request.input_shape,
            allow_pickle=request.allow_pickle,
            which=request.which,
            seed=request.seed,
            workers=workers,
            timeout=request.timeout,
        )
        known = network.preprocessing
        preprocessing = known or _PLAIN[network.shape[0]].at_size(*network.size)
        candidate = request.candidate
        if candidate is None:
            say(f"building it on {chosen[0]}")
            candidate = build_file(
                network,
                folder,
                workers,
                backend=chosen[0],
                data_format=request.data_formats[0],
                timeout=request.timeout,
            )
        elif not candidate.is_file():
            raise ModelFileError(f"{candidate}: no such file")
        labels = (read_record(candidate) or {}).get("labels")
        return run_check(
            Check(
                network.reference,
                counterpart_in(candidate),
                network.torch_file(folder),
                candidate,
                inputs=tuple(
                    input_sets(
                        request.images if network.shape[0] == 3 else [],
                        [network.size],
                        preprocessing,
                        noise=request.noise,
                        seed=request.seed,
                    )
                ),
                backends=chosen,
                data_formats=tuple(request.data_formats),
                labels=tuple(labels or ()),
                timeout=request.timeout,
                plan=network.plan,
            ),
            folder,
            say,
            workers,
        )


def build_file(
    network: Network,
    folder: Path,
    workers: Workers,
    *,
    backend: str,
    data_format: str,
    timeout: float,
) -> Path:
    """Return a `.keras` file of a network, right or wrong, that a child builds on a backend."""
    candidate = folder / "candidate.keras"
    job = network.to_json() | {
        "output": str(candidate),
        "include_preprocessing": network.preprocessing is not None,
        "data_format": data_format,
    }
    workers.call("porting.conversion.networks", job, backend=backend, timeout=timeout)
    return candidate


def counterpart_in(candidate: Path) -> Counterpart:
    """Return what the record of a `.keras` file says of it and its torch network.

    Raises:
        UsageError: It says nothing.
    """
    record = read_record(candidate) or {}
    if "counterpart" not in record:
        raise UsageError(f"{candidate} was not converted from a torch network's graph")
    return Counterpart.from_json(record["counterpart"])


def open_weights(
    spec: ModelSpec,
    source: str | Path | None,
    folder: Path,
    *,
    seed: int,
    size: Size,
    say: Say,
    aux_heads: bool = True,
    **options: Any,
) -> Source:
    """Open the weights of a check; where it names none, seeded ones are written to `folder`.

    `aux_heads` says whether they are wanted, where the architecture has some; `options` are further
    arguments of `open_source`.
    """
    if source is None:
        say("seeded weights")
        source = folder / f"{spec.name}-seeded.safetensors"
        heads = bool(spec.aux) and aux_heads
        write_checkpoint(
            source, seeded_state_dict(spec.name, seed=seed, aux_heads=heads, size=size)
        )
    return open_source(spec.name, source, size=size, aux_heads=aux_heads, **options)


def _check_sizes(opened: Source, sizes: Sequence[Size]) -> None:
    """Check that the weights of the first size serve the others."""
    spec, (own, *others) = opened.spec, sizes
    for size in others:
        if problem := too_small(spec, size, aux_heads=opened.fit.aux_heads):
            raise UsageError(problem)
        if opened.fit != fit(spec, opened.checkpoint.shapes, size=size):
            raise UsageError(
                f"{spec.name} has other weights for {size[0]}x{size[1]} than for "
                f"{own[0]}x{own[1]} pixels, as its dense layers follow the feature map's size; "
                "check it in a run of its own"
            )


def checked_backends(backends: Sequence[str] | None) -> tuple[str, ...]:
    """Return the Keras backends that were asked for, all that are installed for None.

    Raises:
        UsageError: One is unknown or not installed, or none is.
    """
    if backends is None:
        found = installed_backends()
        if not found:
            raise UsageError(f"no Keras backend is installed: {pip_line('tensorflow torch jax')}")
        return found
    for backend in backends:
        if backend not in BACKENDS:
            raise UsageError(f"unknown backend {backend!r}; known: {', '.join(BACKENDS)}")
        if backend not in installed_backends():
            raise UsageError(
                f"the backend {backend} is not installed. Install it with: {pip_line(backend)}"
            )
    return tuple(backends)
