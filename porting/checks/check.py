"""A check from the user's words: finds the weights, converts them, runs the comparison."""

from collections.abc import Sequence
from pathlib import Path

from keras_alexnet.core.backend import BACKENDS, installed_backends, pip_line, require
from keras_alexnet.core.children import Workers, run_child
from keras_alexnet.errors import ModelFileError
from keras_alexnet.models.record import read_record
from keras_alexnet.specs import find_spec
from keras_alexnet.specs.schema import DATA_FORMATS, ModelSpec
from keras_alexnet.specs.shapes import too_small
from porting.checkpoints.files import write_checkpoint
from porting.checks.inputs import input_sets
from porting.checks.parity import Say, run_check
from porting.checks.results import Check, ParityResult
from porting.conversion.sources import open_source
from porting.errors import UsageError
from porting.torch_side import torchvision_zoo
from porting.torch_side.reference_nets import check_reference
from porting.torch_side.seeded import seeded_state_dict
from porting.weights.spec_tables import Size, fit, weight_map

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
    name: str,
    source: str | Path | None,
    folder: Path,
    *,
    candidate: str | Path | None = None,
    images: Sequence[str | Path] | None = None,
    sizes: Sequence[Size] | None = None,
    noise: int = 2,
    seed: int = 0,
    backends: Sequence[str] | None = None,
    data_formats: Sequence[str] = DATA_FORMATS,
    transform_input: bool | None = None,
    reference: str | None = None,
    allow_pickle: bool = False,
    timeout: float = 900,
    say: Say = lambda _: None,
    workers: Workers | None = None,
) -> ParityResult:
    """Compare a torch network with its Keras port, layer by layer on every backend.

    Args:
        name: Architecture.
        source: A weights file, the name of torchvision weights, or None for seeded weights.
        folder: An existing folder for large temporary files.
        candidate: The `.keras` file to check; by default the source is converted here.
        images: Photo files and folders; None for scikit-learn's samples, empty for noise alone.
        sizes: Heights and widths in pixels; by default `default_sizes` of the architecture. The
            weights are those of the first.
        noise: Noise images of each size.
        seed: Seed of the noise and of seeded weights.
        backends: Keras backends; None for all that are installed.
        data_formats: Data formats to run on each.
        transform_input: As in `sources.open_source`.
        reference: `FILE.py:FUNCTION` that returns the torch network to compare with, see
            `reference_nets.check_reference`; by default torchvision's, or one built of torch's
            layers after the architecture's table.
        allow_pickle: As in `sources.open_source`.
        timeout: Seconds for each child process.
        say: Called with a line of progress before each step.
        workers: As in `parity.run_check`.

    Returns:
        The result; `passed` says whether every cell agrees.

    Raises:
        PortingError: The arguments are wrong, the source is unreadable, or the reference failed.
        KerasAlexNetError: A requested backend or the reference framework is not installed.
    """
    spec = find_spec(name)
    sizes = default_sizes(spec) if sizes is None else sizes
    for size in sizes:
        if problem := too_small(spec, size):
            raise UsageError(problem)
    if reference is not None:
        reference = check_reference(reference)
    chosen = checked_backends(backends)
    if unknown := [f for f in data_formats if f not in DATA_FORMATS]:
        raise UsageError(f"unknown data format {unknown[0]!r}; known: {', '.join(DATA_FORMATS)}")
    require("torchvision")  # the reference; said before anything is computed
    sets = input_sets(images, sizes, spec.preprocessing, noise=noise, seed=seed)
    seeded = source is None
    if source is None:
        say("seeded weights")
        source = folder / f"{name}-seeded.safetensors"
        arrays = seeded_state_dict(name, seed=seed, aux_heads=bool(spec.aux), size=sizes[0])
        write_checkpoint(source, arrays)
    opened = open_source(
        name, source, transform_input=transform_input, size=sizes[0], allow_pickle=allow_pickle
    )
    aux_heads = opened.fit.aux_heads
    for size in sizes[1:]:
        if problem := too_small(spec, size, aux_heads=aux_heads):
            raise UsageError(problem)
        if opened.fit != fit(spec, opened.checkpoint.shapes, size=size):
            raise UsageError(
                f"{name} has other weights for {size[0]}x{size[1]} than for "
                f"{sizes[0][0]}x{sizes[0][1]} pixels, as its dense layers follow the feature "
                "map's size; check it in a run of its own"
            )
    labels = opened.info.labels if opened.info else ()
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
            "data_format": data_formats[0],
            "input_size": sizes[0],
            "allow_pickle": allow_pickle,
        }
        convert = run_child if workers is None else workers.run
        convert("porting.conversion.convert", job, backend=chosen[0], timeout=timeout)
    else:
        if not Path(candidate).is_file():
            raise ModelFileError(f"{candidate}: no such file")
        record = read_record(candidate) or {}
        labels = tuple(record.get("labels") or labels)
        # A file without the heads is compared without them.
        aux_heads = aux_heads and bool(record.get("model", {}).get("aux_heads", False))
    known = name in torchvision_zoo.NETWORKS
    if seeded and known and not labels and any(inputs.paths for inputs in sets):
        labels = torchvision_zoo.describe(name, "DEFAULT").labels
    return run_check(
        Check(
            model=name,
            weights=opened.torch_file(folder),
            candidate=Path(candidate),
            classes=opened.classes,
            aux_heads=aux_heads,
            transform_input=opened.transform_input,
            reference=reference,
            inputs=tuple(sets),
            backends=chosen,
            data_formats=tuple(data_formats),
            labels=tuple(labels),
            timeout=timeout,
        ),
        folder,
        say,
        workers,
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
