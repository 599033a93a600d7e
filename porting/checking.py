"""A check from the user's words: finds the weights, converts them, runs the comparison."""

from collections.abc import Sequence
from pathlib import Path

from keras_alexnet.backend import BACKENDS, installed_backends, pip_line, require
from keras_alexnet.errors import ModelFileError
from keras_alexnet.record import read_record
from keras_alexnet.specs import DATA_FORMATS, find_spec
from porting import torchvision_zoo
from porting.checkpoints import write_checkpoint
from porting.children import run_child
from porting.errors import UsageError
from porting.inputs import Size, input_sets
from porting.parity import Say, run_check
from porting.results import Check, ParityResult
from porting.seeded import seeded_state_dict
from porting.sources import open_source

# torchvision's own size, AlexNet's of the paper, an uncropped photo's, and an odd one that is no
# square: strided padding, ceil-mode and adaptive pooling differ between them.
DEFAULT_SIZES: tuple[Size, ...] = ((224, 224), (227, 227), (256, 256), (193, 251))


def check(
    name: str,
    source: str | Path | None,
    folder: Path,
    *,
    candidate: str | Path | None = None,
    images: Sequence[str | Path] | None = None,
    sizes: Sequence[Size] = DEFAULT_SIZES,
    noise: int = 2,
    seed: int = 0,
    backends: Sequence[str] | None = None,
    data_formats: Sequence[str] = DATA_FORMATS,
    transform_input: bool | None = None,
    timeout: float = 900,
    say: Say = lambda _: None,
) -> ParityResult:
    """Compare a torchvision network with its Keras port, layer by layer on every backend.

    Args:
        name: Architecture.
        source: A weights file, the name of torchvision weights, or None for seeded weights.
        folder: An existing folder for large temporary files.
        candidate: The `.keras` file to check; by default the source is converted here.
        images: Photo files and folders; None for scikit-learn's samples, empty for noise alone.
        sizes: Heights and widths in pixels.
        noise: Noise images of each size.
        seed: Seed of the noise and of seeded weights.
        backends: Keras backends; None for all that are installed.
        data_formats: Data formats to run on each.
        transform_input: As in `sources.open_source`.
        timeout: Seconds for each child process.
        say: Called with a line of progress before each step.

    Returns:
        The result; `passed` says whether every cell agrees.

    Raises:
        PortingError: The arguments are wrong, the source is unreadable, or the reference failed.
        KerasAlexNetError: A requested backend or the reference framework is not installed.
    """
    spec = find_spec(name)
    for size in sizes:
        if min(size) < spec.min_size:
            raise UsageError(f"size {size[0]}x{size[1]} is below {name}'s minimum {spec.min_size}")
    chosen = _checked_backends(backends)
    if unknown := [f for f in data_formats if f not in DATA_FORMATS]:
        raise UsageError(f"unknown data format {unknown[0]!r}; known: {', '.join(DATA_FORMATS)}")
    require("torchvision")  # the reference; said before anything is computed
    sets = input_sets(images, sizes, noise=noise, seed=seed)
    seeded = source is None
    if source is None:
        say("seeded weights")
        source = folder / f"{name}-seeded.safetensors"
        aux_heads = bool(spec.aux)
        write_checkpoint(source, seeded_state_dict(name, seed=seed, aux_heads=aux_heads))
    opened = open_source(name, source, transform_input=transform_input)
    aux_heads = opened.fit.aux_heads
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
        }
        run_child("porting.conversion", job, backend=chosen[0], timeout=timeout)
    else:
        if not Path(candidate).is_file():
            raise ModelFileError(f"{candidate}: no such file")
        record = read_record(candidate) or {}
        labels = tuple(record.get("labels") or labels)
        # A file without the heads is compared without them.
        aux_heads = aux_heads and bool(record.get("model", {}).get("aux_heads", False))
    if seeded and not labels and any(inputs.paths for inputs in sets):
        labels = torchvision_zoo.describe(name, "DEFAULT").labels
    return run_check(
        Check(
            model=name,
            weights=opened.path,
            candidate=Path(candidate),
            classes=opened.classes,
            aux_heads=aux_heads,
            transform_input=opened.transform_input,
            inputs=tuple(sets),
            backends=chosen,
            data_formats=tuple(data_formats),
            labels=tuple(labels),
            timeout=timeout,
        ),
        folder,
        say,
    )


def _checked_backends(backends: Sequence[str] | None) -> tuple[str, ...]:
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
