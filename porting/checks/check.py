"""A check from the user's words: finds the weights, converts them, runs the comparison."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from keras_alexnet.core.children import Workers
from keras_alexnet.errors import ModelFileError
from keras_alexnet.models.record import read_record
from keras_alexnet.specs import find_spec
from keras_alexnet.specs.schema import ModelSpec
from keras_alexnet.specs.shapes import too_small
from porting.checks.inputs import input_sets
from porting.checks.network_check import check_network
from porting.checks.parity import CANDIDATE, REFERENCE, Found, Say, run_check
from porting.checks.request import CheckRequest, chosen_backends
from porting.checks.results import Check, ParityResult
from porting.conversion.sources import Source, open_source
from porting.errors import UsageError
from porting.torch_side.reference_nets import Reference
from porting.torch_side.seeded import write_seeded
from porting.torch_side.targets import Target
from porting.torch_side.user_code import check_function
from porting.torch_side.zoos import Ask
from porting.weights.spec_tables import counterpart, fit, weight_map
from porting.weights.table import Size

# How far sizes lie from the architecture's own. At 224: torchvision's own size, AlexNet's of the
# paper, an uncropped photo's, and an odd one that is no square: strided padding, ceil-mode and
# adaptive pooling differ between them. The small steps are for networks whose dense layers fit few
# sizes.
_STEPS: tuple[Size, ...] = ((0, 0), (3, 3), (32, 32), (-31, 27), (1, 3), (2, 1))
_MAX_SIZES = 4


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


def check(
    request: CheckRequest,
    folder: Path,
    say: Say = lambda _: None,
    workers: Workers | None = None,
    found: Found = lambda _: None,
) -> ParityResult:
    """Compare a torch network with its Keras port, layer by layer on every backend.

    Args:
        request: What to compare.
        folder: An existing folder for large temporary files.
        say: Called with a line of progress before each step.
        workers: As in `parity.run_check`.
        found: As there.

    Returns:
        The result; `passed` says whether every cell agrees.

    Raises:
        PortingError: The request is wrong, the source is unreadable, or the reference failed.
        KerasAlexNetError: A requested backend or the reference framework is not installed.
    """
    if (target := Target.parse(request.model)) is not None:
        return check_network(target, request, folder, say, workers, found)
    with Workers() as own:
        return _check_spec(request, folder, say, workers or own, found)


def _check_spec(
    request: CheckRequest, folder: Path, say: Say, workers: Workers, found: Found
) -> ParityResult:
    """Compare the torch network of one of our architectures with its Keras port."""
    name = request.model
    spec = find_spec(name)
    sizes = default_sizes(spec) if request.sizes is None else request.sizes
    for size in sizes:
        if problem := too_small(spec, size):
            raise UsageError(problem)
    function = None if request.reference is None else check_function(request.reference)
    chosen = chosen_backends(request)
    inputs = input_sets(
        request.images, sizes, spec.preprocessing, noise=request.noise, seed=request.seed
    )
    # Both import their frameworks while weights are fetched or drawn.
    workers.start(REFERENCE)
    workers.start(CANDIDATE, backend=chosen[0])
    ask = partial(workers.call, REFERENCE, timeout=request.timeout)
    opened = open_weights(
        spec,
        request.source,
        folder,
        seed=request.seed,
        size=sizes[0],
        say=say,
        ask=ask,
        transform_input=request.transform_input,
        allow_pickle=request.allow_pickle,
        which=request.which,
    )
    _check_sizes(opened, sizes)
    aux_heads = opened.fit.aux_heads
    labels = (opened.info.labels if opened.info else None) or ()
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
        workers.call(CANDIDATE, {"conversion": job}, backend=chosen[0], timeout=request.timeout)
    else:
        if not candidate.is_file():
            raise ModelFileError(f"{candidate}: no such file")
        record = read_record(candidate) or {}
        labels = tuple(record.get("labels") or labels)
        # A file without the heads is compared without them.
        aux_heads = aux_heads and bool(record.get("model", {}).get("aux_heads", False))
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
            gradients=request.gradients,
        ),
        folder,
        say,
        workers,
        found,
    )


def open_weights(
    spec: ModelSpec,
    source: str | Path | None,
    folder: Path,
    *,
    seed: int,
    size: Size,
    say: Say,
    aux_heads: bool = True,
    ask: Ask | None = None,
    **options: Any,
) -> Source:
    """Open the weights of a check; where it names none, seeded ones are written to `folder`.

    `aux_heads` says whether they are wanted, where the architecture has some. A child that has
    imported torch can be the one to `ask` for seeded weights, and what torchvision knows of others.
    `options` are further arguments of `open_source`.
    """
    if source is None:
        say("seeded weights")
        source = folder / f"{spec.name}-seeded.safetensors"
        heads = bool(spec.aux) and aux_heads
        drawn = {"name": spec.name, "seed": seed, "aux_heads": heads, "size": size}
        (ask or write_seeded)({"seeded": drawn, "output": str(source)})
    return open_source(spec.name, source, size=size, aux_heads=aux_heads, ask=ask, **options)


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
