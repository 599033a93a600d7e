"""`.keras` files that were written before the modules moved still mean the same."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.backends import EACH_BACKEND
from helpers.project import RunPython

from keras_alexnet import Predictor, load_model, read_record
from porting.tolerances import TOLERANCES

FILES = Path(__file__).resolve().parents[1] / "files" / "before_the_move"
# File -> the images in `expected.npz` that it was given then.
IMAGES = {"alexnet_lrn": "images", "lenet5": "grey"}
KERAS_ALONE = """
import sys
import numpy as np
import keras
expected = dict(np.load(f"{sys.argv[1]}/expected.npz"))
found = {}
for name, images in (("lenet5", "grey"), ("alexnet_lrn", "images")):
    if name == "alexnet_lrn":
        import keras_alexnet  # for its layer
    model = keras.saving.load_model(f"{sys.argv[1]}/{name}.keras")
    found[name] = model.predict(expected[images], verbose=0)
np.savez(sys.argv[2], **found)
"""


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    return dict(np.load(FILES / "expected.npz"))


def assert_as_then(found: np.ndarray, wanted: np.ndarray) -> None:
    gap = np.abs(found - wanted).max() / np.abs(wanted).max()
    assert gap <= TOLERANCES["logits"].limit


@pytest.mark.parametrize("name", IMAGES)
def test_logits_are_those_of_then(name: str, expected: dict[str, np.ndarray]) -> None:
    model = load_model(FILES / f"{name}.keras")
    assert_as_then(model.predict(expected[IMAGES[name]], verbose=0), expected[name])
    assert read_record(FILES / f"{name}.keras")["model"]["name"] == name


@pytest.mark.parametrize("name", IMAGES)
def test_the_record_still_says_how_to_use_it(name: str) -> None:
    predictor = Predictor.from_file(FILES / f"{name}.keras")
    assert predictor.preprocessing.interpolation == "bilinear"  # a field that it has not
    assert predictor.preprocessing.crop_size == {"alexnet_lrn": (63, 63), "lenet5": (28, 28)}[name]
    assert predictor.labels == (("a", "b", "c", "d") if name == "alexnet_lrn" else None)


@pytest.mark.slow
@EACH_BACKEND
def test_keras_itself_loads_them(
    backend: str, expected: dict[str, Any], run_python: RunPython, tmp_path: Path
) -> None:
    run_python(KERAS_ALONE, FILES, tmp_path / "found.npz", KERAS_BACKEND=backend)
    found = np.load(tmp_path / "found.npz")
    for name in IMAGES:
        assert_as_then(found[name], expected[name])
