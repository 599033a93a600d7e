"""What the network sees of training images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from keras_alexnet.commands.app import app
from keras_alexnet.data.augmentation.record import Augmentation
from keras_alexnet.training.experiment import Experiment
from keras_alexnet.training.preparation import prepare
from keras_alexnet.training.presets import PRESETS
from keras_alexnet.training.preview import preview


def test_without_augmentation_it_is_the_image(tmp_path: Path) -> None:
    experiment = replace(
        PRESETS["digits-lenet5"].experiment, augmentation=Augmentation(), input_size=8
    )
    shown = preview(experiment, prepare(experiment, tmp_path), 12)
    assert shown.names[:10] != sorted(shown.names[:10])
    assert sorted(shown.names[:10]) == list("0123456789")
    np.testing.assert_array_equal(np.stack(shown.originals), shown.seen)


def test_mirrored_and_cropped(tmp_path: Path) -> None:
    """Some of the images are as they were, the others turned."""
    augmentation = Augmentation(flip=0.5)
    experiment = replace(
        PRESETS["digits-lenet5"].experiment, augmentation=augmentation, input_size=8
    )
    shown = preview(experiment, prepare(experiment, tmp_path), 20)
    same = [np.array_equal(a, b) for a, b in zip(shown.originals, shown.seen, strict=True)]
    turned = [
        np.array_equal(a[:, ::-1], b) for a, b in zip(shown.originals, shown.seen, strict=True)
    ]
    assert all(a != b for a, b in zip(same, turned, strict=True))
    assert 0 < sum(turned) < 20


def test_files(tmp_path: Path) -> None:
    for number in range(6):
        folder = tmp_path / "photos" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.full((40, 50, 3), 40 * number, np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    experiment = Experiment(
        data=str(tmp_path / "photos"),
        augmentation=Augmentation(resize=63),
        input_size=63,
        val_fraction=0,
    )
    shown = preview(experiment, prepare(experiment, tmp_path), 4)
    assert shown.seen.shape == (4, 63, 63, 3)
    for original, seen in zip(shown.originals, shown.seen, strict=True):
        assert (seen == original[0, 0]).all()


def test_the_command_draws_it(tmp_path: Path) -> None:
    arguments = ["data", "digits", "--preset", "digits-lenet5", "--plot", str(tmp_path / "a.png")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "a.png") as both:
        height = both.height
    done = CliRunner().invoke(app, ["data", "digits", "--plot", str(tmp_path / "b.png")])
    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "b.png") as alone:
        assert height > 1.5 * alone.height
