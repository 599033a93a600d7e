"""The experiments of the reports, and ours, by name."""

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, replace

from keras_alexnet.data.augmentation.record import Augmentation
from keras_alexnet.errors import ConfigurationError
from keras_alexnet.training.experiment import Experiment


@dataclass(frozen=True)
class Reported:
    """What a source reports of its experiment, None where it is silent.

    Attributes:
        loss: Of the test images, in nats.
        top1: Accuracy on them, in [0, 1].
        macro_f1: Mean F1 of their classes.
        minutes: Time of the training.
        note: What goes with these figures.
    """

    loss: float | None = None
    top1: float | None = None
    macro_f1: float | None = None
    minutes: float | None = None
    note: str = ""

    def __str__(self) -> str:
        figures = (
            ("loss {:.4f}", self.loss),
            ("macro F1 {:g}", self.macro_f1),
            ("accuracy {:.2f} %", None if self.top1 is None else 100 * self.top1),
            ("{:g} minutes", self.minutes),
        )
        said = [text.format(figure) for text, figure in figures if figure is not None]
        return "; ".join(filter(None, (", ".join(said), self.note)))


@dataclass(frozen=True)
class Preset:
    """An experiment with a name.

    Attributes:
        experiment: Its fields.
        about: What it is, in one line.
        reported: What its source reports, for comparison; None where there is no source.
        converts: Model whose converted weights it starts from; the user gives the file.
    """

    experiment: Experiment
    about: str
    reported: Reported | None = None
    converts: str | None = None


_STUDY = Experiment(
    model="alexnet_bn_cifar100",
    data="cifar100",
    augmentation=Augmentation(resize=227),
    normalize="none",
    momentum=0.0,
    learning_rate=0.005,
    batch_size=32,
    epochs=10,
    val_fraction=0.02,
    classifier_activation="relu",
)
_CROP = Augmentation(resize=230, crop="random")
_FLIP = replace(_CROP, flip=0.5)
# The CIFAR-100 study's constants, which are customary for CIFAR-10.
_SCALED = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010)}

_LAB = Experiment(
    model="alexnet",
    data="cifar10",
    augmentation=Augmentation(resize=256, crop="random", flip=0.5),
    learning_rate=0.001,
    momentum=0.9,
    weight_decay=5e-4,
    batch_size=4,
    epochs=10,
)

_KERAS = Experiment(
    model="alexnet_keras",
    data="cifar10",
    augmentation=Augmentation(resize=224),
    normalize="none",
    learning_rate=0.001,
    momentum=0.9,
    batch_size=64,
    epochs=20,
    drop_remainder=True,
)
_KERAS_CROPS = Augmentation(resize=256, crop="random", flip=0.5)

_FAST = Experiment(
    model="alexnet_cifar",
    data="cifar10",
    augmentation=Augmentation(crop="random", padding=4, flip=0.5),
    normalize="data",
    optimizer="sgd",
    nesterov=True,
    momentum=0.9,
    weight_decay=5e-4,
    schedule="one-cycle",
    label_smoothing=0.1,
    drop_remainder=True,
    val_fraction=0.02,
    views="mirror",
)


def _study(number: int, f1: float, accuracy: float, **changes: object) -> Preset:
    experiment = replace(_STUDY, **changes)  # type: ignore[arg-type]
    settings = (
        experiment.augmentation.in_words(),
        "pixels 0..1" if experiment.mean is None else "normalised",
        f"batch {experiment.batch_size}",
        f"{experiment.optimizer} {experiment.learning_rate:g}",
    )
    return Preset(
        experiment,
        f"CIFAR-100 AlexNet study {number}: {', '.join(settings)}",
        Reported(macro_f1=f1, top1=accuracy),
    )


PRESETS: Mapping[str, Preset] = {
    "digits-lenet5": Preset(
        Experiment(
            model="lenet5",
            data="digits",
            augmentation=Augmentation(crop="random-resized", scale=(0.75, 1.0), ratio=(0.85, 1.18)),
            normalize="data",
            optimizer="adam",
            learning_rate=0.003,
            schedule="cosine",
            batch_size=32,
            epochs=45,
        ),
        "LeNet-5 on scikit-learn's digits: no network, under a minute on a CPU",
    ),
    "cifar10-cpu": Preset(
        replace(_FAST, batch_size=128, epochs=2, learning_rate=0.05, warmup_epochs=0.4),
        "alexnet_cifar on two CPU cores in ten to twenty minutes",
    ),
    "cifar10-fast": Preset(
        replace(
            _FAST,
            batch_size=512,
            epochs=40,
            learning_rate=0.2,
            warmup_epochs=8.0,
            ema=0.998,
            precision="mixed_bfloat16",
        ),
        "alexnet_cifar on a GPU, our recipe: one-cycle, label smoothing, EMA, mirrored evaluation",
    ),
    "cifar10-alexnet-bn": Preset(
        replace(
            _FAST,
            augmentation=Augmentation(crop="random", padding=4, flip=0.5, grayscale=0.3),
            optimizer="adam",
            learning_rate=0.001,
            weight_decay=0.0,
            schedule="constant",
            label_smoothing=0.0,
            drop_remainder=False,
            batch_size=512,
            epochs=100,
            views="center",
        ),
        "CIFAR-10 AlexNet with batch norm, as reported",
        Reported(top1=0.8990, note="at the end, 90.34 % at best"),
    ),
    "cifar10-lab-alexnet-lrn": Preset(
        replace(_LAB, model="alexnet_lrn"),
        "AlexNet vs GoogLeNet lab: AlexNet with LRN",
        Reported(loss=0.6008, top1=0.8029, minutes=26.2),
    ),
    "cifar10-lab-alexnet": Preset(
        _LAB,
        "AlexNet vs GoogLeNet lab: AlexNet without LRN",
        Reported(loss=0.6659, top1=0.7741, minutes=25.5),
    ),
    "cifar10-lab-googlenet": Preset(
        replace(_LAB, model="googlenet_lab", aux_heads=True),
        "AlexNet vs GoogLeNet lab: GoogLeNet",
        Reported(loss=0.4734, top1=0.8501, minutes=117.2),
    ),
    "cifar10-lab-alexnet-pretrained": Preset(
        _LAB,
        "AlexNet vs GoogLeNet lab: fine-tuned AlexNet",
        Reported(loss=0.5410, top1=0.8301, minutes=22.4),
        converts="alexnet",
    ),
    "cifar10-lab-googlenet-pretrained": Preset(
        replace(_LAB, model="googlenet", aux_heads=True),
        "AlexNet vs GoogLeNet lab: fine-tuned GoogLeNet",
        Reported(loss=0.2375, top1=0.9316, minutes=91.6),
        converts="googlenet",
    ),
    "cifar10-keras": Preset(_KERAS, "AlexNet in Keras and PyTorch: Keras, no augmentation"),
    "cifar10-keras-augmented": Preset(
        replace(_KERAS, augmentation=_KERAS_CROPS, batch_size=128, epochs=15),
        "AlexNet in Keras and PyTorch: Keras, flips and crops",
        Reported(top1=0.80, note="above that"),
    ),
    "cifar10-wide": Preset(
        replace(_KERAS, model="alexnet_wide"),
        "AlexNet in Keras and PyTorch: PyTorch's twin from scratch",
        Reported(top1=0.740),
    ),
    "cifar10-pretrained": Preset(
        replace(
            _KERAS,
            model="alexnet",
            augmentation=_KERAS_CROPS,
            normalize="model",
            freeze_epochs=5,
            batch_size=128,
            epochs=15,
        ),
        "AlexNet in Keras and PyTorch: ported weights, body frozen at first, then unfrozen",
        Reported(top1=0.9177),
        converts="alexnet",
    ),
    "cifar100-study-1": _study(1, 0.245, 0.255),
    "cifar100-study-2": _study(2, 0.149, 0.181, augmentation=_CROP, batch_size=64),
    "cifar100-study-3": _study(
        3, 0.003, 0.021, augmentation=_CROP, batch_size=64, learning_rate=0.001, **_SCALED
    ),
    "cifar100-study-4": _study(4, 0.017, 0.048, augmentation=_FLIP, batch_size=128, **_SCALED),
    "cifar100-study-5": _study(5, 0.128, 0.159, augmentation=_FLIP, batch_size=64),
    "cifar100-study-6": _study(6, 0.276, 0.288, augmentation=_FLIP),
    "cifar100-study-7": _study(7, 0.473, 0.482, augmentation=_FLIP, epochs=20, **_SCALED),
    "cifar100-study-8": _study(
        8, 0.0002, 0.010, augmentation=_FLIP, epochs=2, optimizer="adam", **_SCALED
    ),
    "ilsvrc2010-paper": Preset(
        Experiment(
            model="alexnet_paper",
            data="ilsvrc2010",
            augmentation=Augmentation(crop="random-resized", flip=0.5, pca=0.1),
            learning_rate=0.01,
            momentum=0.9,
            weight_decay=5e-4,
            schedule="step",
            step_epochs=30,
            gamma=0.1,
            clip_norm=2.0,
            precision="mixed_float16",
            batch_size=256,  # 128 times the GPUs, which count as two at least
            epochs=200,
            views="ten-crop",
            val_views="ten-crop",
            keep_every=5,
        ),
        "Krizhevsky 2012 on ILSVRC2010, as the replica trained it",
        Reported(
            top1=0.4331,
            note="validation after 90 epochs, training 36.85 %; the paper 62.5 %, top-5 83.0 %",
        ),
    ),
}


def list_presets(pattern: str = "*") -> list[str]:
    """Return the names of the presets that match a shell pattern, in the order of their reports.

    Example:
        >>> list_presets("cifar10-lab-*net")
        ['cifar10-lab-alexnet', 'cifar10-lab-googlenet']
    """
    return fnmatch.filter(PRESETS, pattern)


def find_preset(name: str) -> Preset:
    """Return a preset by name.

    Raises:
        ConfigurationError: There is none of this name.

    Example:
        >>> preset = find_preset("cifar100-study-7")
        >>> preset.reported.top1
        0.482
        >>> preset.experiment.override(epochs=2, train_limit=5000).model
        'alexnet_bn_cifar100'
    """
    if name not in PRESETS:
        raise ConfigurationError(f"unknown preset {name!r}. Known: {', '.join(PRESETS)}")
    return PRESETS[name]


def check_weights(name: str, experiment: Experiment) -> None:
    """Refuse a preset that starts from weights where none are given.

    The ConfigurationError names the commands that provide them.
    """
    model = PRESETS[name].converts
    if model is not None and experiment.weights is None:
        raise ConfigurationError(
            f"preset {name!r} starts from pretrained weights. Convert them once with: python -m "
            f"porting convert {model} --source IMAGENET1K_V1 --output {model}.keras "
            f"--preprocessing, then add: --weights {model}.keras"
        )
