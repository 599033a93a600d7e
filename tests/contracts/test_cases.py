"""Small files that people really have, where they are at hand, by the commands."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.classifiers import record_of
from helpers.project import ROOT

from keras_alexnet import create_model, load_images
from keras_alexnet.data.decoding import decode_image
from keras_alexnet.models.record import save_model
from keras_alexnet.specs.preprocessing import Preprocessing


@pytest.fixture(scope="module")
def cases() -> Path:
    configured = os.environ.get("KERAS_ALEXNET_DATA")
    folder = (Path(configured).parent if configured else ROOT.parent / "shared") / "cases"
    if not folder.is_dir():
        pytest.skip(f"no cases: {folder} does not exist")
    return folder


def test_wide_pixels_are_the_picture(cases: Path) -> None:
    images = cases / "images"
    wanted = decode_image(images / "tif16_grey.tif").astype(int)
    for name in ("tif12in16.tif", "tif_float_0_1.tif", "tif_float_0_255.tif"):
        assert np.abs(decode_image(images / name).astype(int) - wanted).max() <= 1, name
    assert decode_image(images / "int32_0_255.tif").max() > 200


def test_every_suffix_is_read(cases: Path) -> None:
    photo = decode_image(cases / "images" / "no_suffix").astype(int)
    for suffix in ("jfif", "avif", "jp2"):
        other = decode_image(cases / "images" / f"photo.{suffix}").astype(int)
        assert np.abs(other - photo).mean() < 12, suffix
    assert load_images([cases / "images" / "photo.jfif"]).shape == (1, 224, 224, 3)


@pytest.mark.parametrize("vocabulary", ["torchvision", "wnids", "words"])
def test_a_model_in_any_vocabulary_is_evaluated_on_any(
    vocabulary: str, cases: Path, run_cli: Any, tmp_path: Path
) -> None:
    folder = cases / "ilsvrc_names"
    labels = {
        "torchvision": ["great white shark", "tench", "goldfish"],
        "wnids": ["n01484850", "n01440764", "n01443537"],
        "words": [
            "great white shark, white shark, man-eater, man-eating shark, Carcharodon carcharias",
            "tench, Tinca tinca",
            "goldfish, Carassius auratus",
        ],
    }[vocabulary]
    model = create_model("alexnet_cifar", classes=3, include_preprocessing=True)
    path = tmp_path / "model.keras"
    save_model(model, path, record_of(model, Preprocessing(32, (32, 32)), labels=labels))
    for data in (
        ("--data", "ilsvrc2012", "--data-dir", folder / "ilsvrc"),
        ("--data", folder / "valfolders"),
    ):
        code, out, err = run_cli("evaluate", path, *data, "--format", "json")
        assert code == 0, err
        assert '"images": 6' in out


def test_a_table_of_one_class_is_refused(cases: Path, run_cli: Any) -> None:
    code, _, err = run_cli("train", "--model", "lenet5", "--data", cases / "one_class" / "t.csv")
    assert code == 2
    assert "is its only class; there is nothing to tell apart" in err
