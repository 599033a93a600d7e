"""A training check from the user's words: finds or draws the weights, then trains and compares."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_alexnet.core.backend import check_installed
from keras_alexnet.core.children import Workers
from keras_alexnet.core.fields import comma_separated, option, parse_size
from keras_alexnet.specs import find_spec
from keras_alexnet.specs.schema import ModelSpec
from porting.checks.check import open_weights, same_weights
from porting.checks.network_check import build_file, counterpart_in
from porting.checks.parity import Say
from porting.checks.request import checked_backends, input_shapes_option
from porting.conversion.network import prepare
from porting.errors import UsageError
from porting.torch_side.reference_nets import Reference
from porting.torch_side.targets import Target
from porting.training_checks.parity import run_training_check
from porting.training_checks.results import PRECISIONS, TrainingCheck, TrainingResult
from porting.weights.spec_tables import counterpart
from porting.weights.table import Shape, Size

# Of most networks' images: steps take seconds, and the last feature maps still have several
# pixels, of which batch norm makes its statistics.
_SIZE: Size = (96, 96)


def default_size(spec: ModelSpec) -> Size:
    """Return a small size that an architecture's weights serve, else its own."""
    fits = same_weights(spec, _SIZE, spec.default_size)
    return min(_SIZE, spec.default_size) if fits else spec.default_size


@dataclass(frozen=True)
class TrainingRequest:
    """A training check in the user's words.

    The images are seeded noise with structure, normalised; dropout is off; batch norm and auxiliary
    heads are in training mode. The loss is the mean cross-entropy, plus 0.3 times that of each
    auxiliary head; of maps and other outputs than (N, classes), half the mean of their squares.
    """

    model: str
    source: str | None = option(
        None, "A weights file or torchvision weights' name; by default seeded weights."
    )
    steps: int = option(10, "SGD steps.", min=1)
    batch_size: int = option(8, "Images of a step.", min=2)
    learning_rate: float = option(1e-3, "Of SGD.")
    momentum: float = option(0.9, "Of SGD.")
    weight_decay: float = option(5e-4, "Factor of the weights in the gradient, as in torch.")
    aux_heads: bool | None = option(
        None, "Train auxiliary classifiers too; by default where there are some."
    )
    size: Size | None = option(
        None,
        "N or HEIGHTxWIDTH, in pixels; by default 96 where the weights serve it, else the model's.",
        parse=parse_size,
    )
    input_shapes: Sequence[Shape] | None = input_shapes_option()
    seed: int = option(0, "Of images, classes, seeded weights.", min=0)
    backends: Sequence[str] | None = option(
        None, "Comma-separated; by default all installed.", parse=comma_separated(str)
    )
    precisions: Sequence[str] = PRECISIONS
    timeout: float = option(900.0, "Seconds of silence that end a training.", min=1)

    def check(self) -> None:
        """Check the numbers.

        Raises:
            UsageError: One is out of range.
        """
        if self.steps < 1:
            raise UsageError(f"steps must be at least 1, got {self.steps}")
        if self.batch_size < 2:
            raise UsageError(
                f"the batch size must be at least 2, as batch norm needs several values, got "
                f"{self.batch_size}"
            )
        if not 0 < self.learning_rate < float("inf"):
            raise UsageError(f"the learning rate must be positive, got {self.learning_rate:g}")
        if not 0 <= self.momentum < 1:
            raise UsageError(f"momentum must lie in [0, 1), got {self.momentum:g}")
        if not 0 <= self.weight_decay < float("inf"):
            raise UsageError(f"the weight decay must not be negative, got {self.weight_decay:g}")


def check_training(
    request: TrainingRequest,
    folder: Path,
    say: Say = lambda _: None,
    workers: Workers | None = None,
) -> TrainingResult:
    """Take some SGD steps in torch and in Keras from the same weights and compare the outcomes.

    Args:
        request: What to compare.
        folder: An existing folder for large temporary files.
        say: Called with a line of progress before each step.
        workers: As in `run_training_check`.

    Returns:
        The result; `passed` says whether every backend agrees.

    Raises:
        PortingError: The request is wrong, the source is unreadable, or torch failed.
        KerasAlexNetError: A requested backend or torch is not installed.
    """
    request.check()
    if (target := Target.parse(request.model)) is not None:
        return _check_network(target, request, folder, say, workers)
    name = request.model
    spec = find_spec(name)
    if request.aux_heads and not spec.aux:
        raise UsageError(f"{name} has no auxiliary heads; leave aux_heads out")
    size = request.size or default_size(spec)
    chosen = checked_backends(request.backends)
    check_installed("torchvision")  # the reference; said before anything is computed
    opened = open_weights(
        spec,
        request.source,
        folder,
        seed=request.seed,
        size=size,
        say=say,
        aux_heads=request.aux_heads is not False,
    )
    if request.aux_heads and not opened.fit.aux_heads:
        raise UsageError(f"{opened.path} holds no auxiliary heads")
    heads = opened.fit.aux_heads and request.aux_heads is not False
    training = TrainingCheck(
        Reference(name, opened.classes, aux_heads=heads, size=size),
        counterpart(spec, opened.classes, aux_heads=heads, size=size),
        opened.torch_file(folder),
        shapes=((spec.channels, *size),),
        **_steps(request, chosen),
    )
    return run_training_check(training, folder, say, workers)


def _steps(request: TrainingRequest, backends: tuple[str, ...]) -> dict[str, Any]:
    """Return the fields of a check that say how to train, and where."""
    names = ("steps", "batch_size", "learning_rate", "momentum", "weight_decay", "seed", "timeout")
    fields = {name: getattr(request, name) for name in names}
    return fields | {"backends": backends, "precisions": tuple(request.precisions)}


def _check_network(
    target: Target, request: TrainingRequest, folder: Path, say: Say, workers: Workers | None
) -> TrainingResult:
    """Train any torch network and the Keras model that is made of its graph."""
    if request.aux_heads:
        raise UsageError(f"{target.text} is followed as it is in inference; leave aux_heads out")
    chosen = checked_backends(request.backends)
    check_installed("torchvision")  # the reference; said before anything is computed
    with Workers() as own:
        workers = workers or own
        say(f"following {target.text}")
        # Weights that were trained may belong to one size.
        size = request.size or (None if request.source else _SIZE)
        network = prepare(
            target,
            request.source,
            folder,
            size=size,
            shapes=request.input_shapes,
            seed=request.seed,
            workers=workers,
            timeout=request.timeout,
        )
        say(f"building it on {chosen[0]}")
        candidate = build_file(
            network,
            folder,
            workers,
            backend=chosen[0],
            data_format="channels_last",
            timeout=request.timeout,
        )
        training = TrainingCheck(
            network.reference,
            counterpart_in(candidate),
            network.weights,
            shapes=network.shapes,
            plan=network.plan,
            **_steps(request, chosen),
        )
        return run_training_check(training, folder, say, workers)
