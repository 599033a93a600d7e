"""One experiment as one frozen record; the command line is made from its fields."""

import json
from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Self, get_type_hints

from keras_alexnet.core.fields import choices, option
from keras_alexnet.data.augmentation.record import Augmentation
from keras_alexnet.errors import ConfigurationError
from keras_alexnet.specs import SPECS, find_spec
from keras_alexnet.specs.shared import AUX_LOSS_WEIGHT
from keras_alexnet.training.optim.schedules import Kind

Backend = Literal["tensorflow", "torch", "jax"]


@dataclass(frozen=True)
class Experiment:
    """Everything that decides what a training run computes."""

    model: str = option(
        "alexnet",
        "Name of the model, see `keras-alexnet models`; or a .keras file, whose network it is, "
        "without its weights.",
    )
    data: str = option("cifar10", "Kind of data set, or a folder of class folders, or a CSV file.")
    data_dir: Path | None = option(
        None, "Where the data lies, a folder or an archive; downloaded where it can be."
    )
    weights: Path | None = option(
        None,
        "A .keras file to start from, by default its network too; classifiers for other classes "
        "are drawn anew.",
    )
    epochs: int = option(10, "Passes over the training images.")
    batch_size: int = option(128, "Images of a batch.")
    seed: int = option(0, "Decides splits, order, augmentation, dropout and new weights.")

    input_size: int | None = option(
        None, "Side of the model's input in pixels; its own if left out."
    )
    augmentation: Augmentation = Augmentation()
    eval_resize: int | None = option(
        None, "Short side before the centre crop of evaluation; that of --resize if left out."
    )
    normalize: Literal["model", "data", "none"] = option(
        "model", "Mean and deviation: the model's own, the training images', or none (0..1)."
    )
    mean: tuple[float, float, float] | None = option(None, "Mean of the channels in 0..1 instead.")
    std: tuple[float, float, float] | None = option(None, "Deviation of the channels instead.")
    augment_on: Literal["device", "host"] = option(
        "device", "Where images are augmented: in the training step, or beside it by TensorFlow."
    )
    shuffle: bool = option(True, "Show the images in another order each epoch.")
    drop_remainder: bool = option(False, "Leave out an epoch's last batch if it is smaller.")
    val_fraction: float = option(0.1, "Share of the training images to validate on; 0 for none.")
    train_limit: int | None = option(None, "Train on so many images only, the same share by class.")
    eval_limit: int | None = option(None, "Validate and test on so many images only.")

    optimizer: Literal["sgd", "adam", "adamw", "lars", "lamb"] = option(
        "sgd", "Optimiser; lars and lamb are for batches of thousands."
    )
    learning_rate: float = option(0.01, "Highest learning rate.")
    momentum: float = option(0.9, "Momentum of SGD and LARS.")
    nesterov: bool = option(False, "Nesterov's momentum.")
    weight_decay: float = option(0.0, "Weight decay: L2 for SGD and Adam, decoupled for AdamW.")
    decoupled: bool = option(False, "Decouple the decay of SGD and Adam too.")
    schedule: Kind = option("constant", "Course of the learning rate.")
    warmup_epochs: float = option(0.0, "Epochs of its rise.")
    step_epochs: int = option(30, "Epochs between the steps of schedule 'step'.")
    gamma: float = option(0.1, "Factor of a step, or of a plateau.")
    patience: int = option(5, "Epochs without a lower validation loss before a plateau ends.")
    clip_norm: float = option(0.0, "Clip all gradients together to this norm; 0 for never.")
    accumulate: int = option(1, "Average the gradients of so many batches for one update.")
    ema: float = option(0.0, "Momentum of a moving average of the weights to evaluate; 0 for none.")
    label_smoothing: float = option(0.0, "Share of the target spread over all classes.")
    dropout_rate: float | None = option(
        None, "Dropout before the classifier; the model's if left out."
    )
    classifier_activation: Literal["relu"] | None = option(
        None, "What follows the logits, in training too; nothing if left out.", metavar="relu"
    )
    aux_heads: bool = option(False, "Train GoogLeNet's auxiliary classifiers too.")
    aux_weight: float = option(AUX_LOSS_WEIGHT, "Weight of each one's loss.")
    freeze_epochs: int = option(0, "Epochs that train the classifiers only.")
    freeze: str | None = option(
        None,
        "Layers that never learn: beginnings of their names, or of torch's modules', separated by "
        "commas, such as conv1,bn1,layer1.",
    )
    unfrozen_learning_rate: float | None = option(
        None, "Learning rate afterwards; the same if left out."
    )
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = option(
        "float32", "Keras' dtype policy; mixed_float16 scales the loss."
    )
    gradients: Literal["float32", "bfloat16"] = option(
        "float32", "What devices of torch send each other; bfloat16 halves the bytes."
    )
    views: Literal["center", "mirror", "ten-crop"] = option(
        "center", "Views of an image that the final test averages over."
    )
    val_views: Literal["center", "mirror", "ten-crop"] = option(
        "center", "Views of an image that the validation of an epoch averages over."
    )
    data_format: Literal["channels_last", "channels_first"] = option(
        "channels_last", "Layout of the feature maps."
    )
    backend: Backend | None = option(None, "Keras backend; the configured one if left out.")
    device: Literal["auto", "cpu", "gpu"] = option("auto", "Where to compute.")
    survey: bool | None = option(
        None,
        "Look at every image before training, for what `data` tells and data.json and the report "
        "keep; if left out, where it takes some seconds.",
    )
    checkpoint_steps: int = option(500, "Batches between checkpoints within an epoch; 0 for none.")
    keep_every: int = option(0, "Keep a model file of every so many epochs; 0 for none.")
    log_every: int = option(
        0, "Batches between lines on the console, and of steps.csv (by default 100); 0 for none."
    )
    clean_metrics: bool = option(
        False,
        "At the end of each epoch evaluate on the training part without augmentation, and on the "
        "test part.",
    )

    def __post_init__(self) -> None:
        spec = None if is_file(self.model) else find_spec(self.model)
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise ConfigurationError(f"{name} must be at least {least}, got {value!r}")
        for name in _SHARES:
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise ConfigurationError(f"{name} must lie in [0, 1), got {value!r}")
        for name, hint in get_type_hints(type(self)).items():
            known, value = choices(hint), getattr(self, name)
            if known and value is not None and value not in known:
                raise ConfigurationError(f"{name} must be one of {', '.join(known)}; got {value!r}")
        for name in ("learning_rate", "unfrozen_learning_rate"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigurationError(f"{name} must be above 0, got {value!r}")
        if self.aux_heads and not (spec and spec.aux):
            raise ConfigurationError(f"{self.model} has no auxiliary heads; leave aux_heads out")
        if (self.mean is None) != (self.std is None):
            raise ConfigurationError("mean and std belong together: give both or neither")
        if self.std is not None and not min(self.std) > 0:
            raise ConfigurationError(f"std must be above 0, got {self.std!r}")
        if self.freeze_epochs >= self.epochs:
            raise ConfigurationError(
                f"freeze_epochs ({self.freeze_epochs}) must be fewer than epochs ({self.epochs}); "
                f"for a short trial give --freeze-epochs {min(1, self.epochs - 1)} too"
            )
        if self.schedule == "plateau" and not self.val_fraction:
            raise ConfigurationError("schedule 'plateau' needs val_fraction above 0")
        if self.schedule == "plateau" and self.warmup_epochs:
            raise ConfigurationError("schedule 'plateau' has no warm-up; leave warmup_epochs out")

    def check_weights(self) -> None:
        """Check what the run starts from, before any work is done for it.

        Raises:
            ConfigurationError: There are no weights for what is to be frozen, or no file.
        """
        for name in ("freeze_epochs", "freeze"):
            if getattr(self, name) and self.weights is None:
                raise ConfigurationError(f"{name} needs weights: a frozen body learns nothing")
        if is_file(self.model) and not Path(self.model).is_file():
            raise ConfigurationError(f"--model {self.model}: no such file")
        if self.weights is not None and not self.weights.is_file():
            raise ConfigurationError(f"--weights {self.weights}: no such file")

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON holds them."""
        return json.loads(json.dumps(asdict(self), default=str))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return the experiment of a run's `config.json`.

        Raises:
            ConfigurationError: A field is unknown or has an impossible value.
        """
        hints = get_type_hints(cls)
        values: dict[str, Any] = {}
        for name, value in content.items():
            if name not in hints:
                raise ConfigurationError(f"unknown field {name!r} of an experiment")
            if name == "augmentation":
                values[name] = Augmentation(**{k: _from_json(v) for k, v in value.items()})
            elif hints[name] == Path | None and value is not None:
                values[name] = Path(value)
            else:
                values[name] = _from_json(value)
        return cls(**values)

    def override(self, **values: Any) -> Self:
        """Return the experiment with other values, those of the augmentation by their own names.

        Raises:
            ConfigurationError: A field is unknown or has an impossible value.
        """
        known = sorted(entry.name for entry in option_fields())
        if unknown := sorted(set(values) - set(known)):
            raise ConfigurationError(f"unknown field {unknown[0]!r}. Known: {', '.join(known)}")
        changes = {f.name: values.pop(f.name) for f in fields(Augmentation) if f.name in values}
        return replace(self, augmentation=replace(self.augmentation, **changes), **values)


def is_file(model: str) -> bool:
    """Return whether an experiment's model is the network of a `.keras` file."""
    return model.endswith(".keras")


def network_of(weights: Path) -> str:
    """Return the model whose weights a `.keras` file holds: one of ours, or that of the file.

    Raises:
        ModelFileError: The file is missing or damaged.
    """
    from keras_alexnet.models.record import read_record  # with NumPy, which a help text needs not

    record = read_record(weights) or {}
    model = record.get("model", {})
    own = "target" not in model and model.get("name") in SPECS
    return str(model["name"]) if own else str(weights)


_LEAST: Mapping[str, float] = {
    "epochs": 1,
    "batch_size": 1,
    "seed": 0,
    "input_size": 1,
    "eval_resize": 1,
    "train_limit": 1,
    "eval_limit": 1,
    "weight_decay": 0,
    "warmup_epochs": 0,
    "step_epochs": 1,
    "gamma": 0,
    "patience": 0,
    "clip_norm": 0,
    "accumulate": 1,
    "aux_weight": 0,
    "freeze_epochs": 0,
    "checkpoint_steps": 0,
    "keep_every": 0,
    "log_every": 0,
}
_SHARES = ("val_fraction", "momentum", "ema", "label_smoothing", "dropout_rate")


def _from_json(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def option_fields() -> list[Field[Any]]:
    """Return the fields that a command line sets, those of the augmentation among them."""
    found: list[Field[Any]] = []
    for entry in fields(Experiment):
        found += fields(Augmentation) if entry.name == "augmentation" else [entry]
    return found
