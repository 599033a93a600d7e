"""A training check from the user's words: finds or draws the weights, then trains and compares."""

from collections.abc import Sequence
from pathlib import Path

from keras_alexnet.core.backend import require
from keras_alexnet.core.children import Workers
from keras_alexnet.specs import find_spec
from keras_alexnet.specs.schema import ModelSpec
from porting.checkpoints.files import write_checkpoint
from porting.checks.check import checked_backends, same_weights
from porting.checks.parity import Say
from porting.conversion.sources import open_source
from porting.errors import UsageError
from porting.torch_side.seeded import seeded_state_dict
from porting.training_checks.parity import run_training_check
from porting.training_checks.results import PRECISIONS, TrainingCheck, TrainingResult
from porting.weights.spec_tables import Size

# Of most networks' images: steps take seconds, and the last feature maps still have several
# pixels, of which batch norm makes its statistics.
_SIZE: Size = (96, 96)


def default_size(spec: ModelSpec) -> Size:
    """Return a small size that an architecture's weights serve, else its own."""
    fits = same_weights(spec, _SIZE, spec.default_size)
    return min(_SIZE, spec.default_size) if fits else spec.default_size


def check_training(
    name: str,
    source: str | Path | None,
    folder: Path,
    *,
    steps: int = 10,
    batch_size: int = 8,
    learning_rate: float = 1e-3,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    aux_heads: bool | None = None,
    size: Size | None = None,
    seed: int = 0,
    backends: Sequence[str] | None = None,
    precisions: Sequence[str] = PRECISIONS,
    timeout: float = 900,
    say: Say = lambda _: None,
    workers: Workers | None = None,
) -> TrainingResult:
    """Take some SGD steps in torch and in Keras from the same weights and compare the outcomes.

    The images are seeded noise with structure, normalised; dropout is off; batch norm and auxiliary
    heads are in training mode. The loss is the mean cross-entropy, plus 0.3 times that of each
    auxiliary head.

    Args:
        name: Architecture.
        source: A weights file, the name of torchvision weights, or None for seeded weights.
        folder: An existing folder for large temporary files.
        steps: Number of steps.
        batch_size: Images of a step, at least 2.
        learning_rate: Of SGD.
        momentum: Of SGD, in [0, 1).
        weight_decay: Factor of the weights in the gradient, as in torch.
        aux_heads: Whether the auxiliary classifiers are trained too; by default where they exist.
        size: Height and width of the images in pixels; by default `default_size`.
        seed: Seed of images, classes and seeded weights.
        backends: Keras backends; None for all that are installed.
        precisions: `"float64"`, which is judged, and `"float32"`, which is shown.
        timeout: Seconds for each training.
        say: Called with a line of progress before each step.
        workers: As in `training_parity.run_training_check`.

    Returns:
        The result; `passed` says whether every backend agrees.

    Raises:
        PortingError: The arguments are wrong, the source is unreadable, or torch failed.
        KerasAlexNetError: A requested backend or torch is not installed.
    """
    spec = find_spec(name)
    _check_arguments(steps, batch_size, learning_rate, momentum, weight_decay)
    if aux_heads and not spec.aux:
        raise UsageError(f"{name} has no auxiliary heads; leave aux_heads out")
    wanted = aux_heads is not False
    size = size or default_size(spec)
    chosen = checked_backends(backends)
    require("torchvision")  # the reference; said before anything is computed
    if source is None:
        say("seeded weights")
        source = folder / f"{name}-seeded.safetensors"
        arrays = seeded_state_dict(name, seed=seed, aux_heads=bool(spec.aux) and wanted, size=size)
        write_checkpoint(source, arrays)
    opened = open_source(name, source, size=size, aux_heads=wanted)
    if aux_heads and not opened.fit.aux_heads:
        raise UsageError(f"{opened.path} holds no auxiliary heads")
    return run_training_check(
        TrainingCheck(
            model=name,
            weights=opened.torch_file(folder),
            classes=opened.classes,
            aux_heads=opened.fit.aux_heads and wanted,
            size=size,
            steps=steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            momentum=momentum,
            weight_decay=weight_decay,
            seed=seed,
            backends=chosen,
            precisions=tuple(precisions),
            timeout=timeout,
        ),
        folder,
        say,
        workers,
    )


def _check_arguments(
    steps: int, batch_size: int, learning_rate: float, momentum: float, weight_decay: float
) -> None:
    if steps < 1:
        raise UsageError(f"steps must be at least 1, got {steps}")
    if batch_size < 2:
        raise UsageError(
            f"the batch size must be at least 2, as batch norm needs several values, got "
            f"{batch_size}"
        )
    if not 0 < learning_rate < float("inf"):
        raise UsageError(f"the learning rate must be positive, got {learning_rate:g}")
    if not 0 <= momentum < 1:
        raise UsageError(f"momentum must lie in [0, 1), got {momentum:g}")
    if not 0 <= weight_decay < float("inf"):
        raise UsageError(f"the weight decay must not be negative, got {weight_decay:g}")
