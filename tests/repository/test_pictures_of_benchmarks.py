"""What the pictures show that benchmarks draw."""

import importlib
from pathlib import Path

import numpy as np
import pytest
from helpers.project import ROOT
from PIL import Image


def test_photos_of_real_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their middle squares, and the three best classes by the first of their names."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    real_weights = importlib.import_module("real_weights")
    monkeypatch.setattr(real_weights, "PICTURE", tmp_path / "picture.png")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 6, 10, 3), np.uint8)
    photos = [tmp_path / f"{number}.png" for number in range(2)]
    for path, image in zip(photos, pixels, strict=True):
        Image.fromarray(image).save(path)
    names = ["n01 tench, Tinca tinca", "n02 cock", "n03 hen", "n04 jay, a bird"]
    shares = np.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.05, 0.05, 0.2]])
    figure = real_weights.draw(photos, np.log(shares), names)
    assert [axes.get_title(loc="left").splitlines() for axes in figure.axes] == [
        ["40 % jay", "30 % hen", "20 % cock"],
        ["70 % tench", "20 % jay", "5 % cock"],
    ]
    for axes, image in zip(figure.axes, pixels, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), image[:, 2:8])
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.format == "PNG"
