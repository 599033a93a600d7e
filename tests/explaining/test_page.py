"""`keras-alexnet explain`: its page and its errors."""

import base64
import io
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from helpers.classifiers import record_of
from helpers.residual import LABELS, PREPROCESSING, SIDE, in_keras, photos
from PIL import Image

from keras_alexnet import Explainer, heat_overlay, save_model, signed_overlay, write_explanation
from keras_alexnet.explaining.pictures import contrasted, tiles

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "small.keras"
    net = in_keras()
    save_model(net, path, record_of(net, PREPROCESSING, included=False, labels=list(LABELS)))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine photos, the last two of which are the same, and one that is none."""
    folder = tmp_path_factory.mktemp("photos")
    for number, photo in enumerate(photos(8)):
        Image.fromarray(photo).save(folder / f"{number}.png")
    (folder / "8.png").write_bytes((folder / "7.png").read_bytes())
    (folder / "broken.png").write_text("no image")
    return folder


def _pictures(page: Path) -> dict[str, np.ndarray]:
    """The page's pictures by their descriptions."""
    found = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]*)"', page.read_text())
    return {
        unescape(alt): np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        for data, alt in found
    }


def test_everything_of_a_photo(run_cli: Run, model: Path, folder: Path, tmp_path: Path) -> None:
    code, out, err = run_cli(
        "explain", model, folder / "0.png", "--among", folder,
        "--class", "tiger cat", "--class", "2", "--output", "page.html",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert out == f"1 photo explained: {tmp_path / 'page.html'}\n"
    text = (tmp_path / "page.html").read_text()
    # Nothing is fetched from anywhere.
    assert not re.findall(r"https?:|<script src|<link|@import|url\(", text)
    found = _pictures(tmp_path / "page.html")
    titles = [alt.partition(": ")[0] for alt in found]
    assert titles == [
        "the photo as the model sees it",
        *2 * ["Grad-CAM"],
        *2 * ["Integrated gradients"],
        *2 * ["Occlusion"],
        "Maps of conv1",
        *6 * ["Nearest photos"],
        "Filters of conv1",
    ]
    assert "Grad-CAM: tiger cat" in found
    # All of this map is below 0.
    assert "Grad-CAM: great grey owl: nothing speaks for it" in found
    np.testing.assert_array_equal(found["the photo as the model sees it"], photos(8)[0])


def test_the_page_tells_the_numbers(model: Path, folder: Path, tmp_path: Path) -> None:
    explainer = Explainer.from_file(model)
    page = write_explanation(
        explainer, [folder / "0.png", folder / "1.png"], tmp_path / "page.html",
        methods=["integrated-gradients", "neighbours"], among=sorted(folder.iterdir()),
    )  # fmt: skip
    found = _pictures(page)
    images = explainer.load([folder / f"{n}.png" for n in range(9)])
    features = explainer.features(images)
    for photo in range(2):
        (label,) = explainer.guesses(images[photo : photo + 1])
        total = explainer.integrated_gradients(images[photo : photo + 1], [label]).sum()
        name = f"Integrated gradients: {LABELS[label]}: the pixels add {total:.2f} of "
        assert any(alt.startswith(name) for alt in found)
        distances = np.linalg.norm(features - features[photo], axis=1)
        nearest = np.argsort(distances, kind="stable")[1]
        assert f"Nearest photos: {nearest}.png: {distances[nearest]:.2f}" in found
    assert "Of 9 photos" in page.read_text()  # the broken one is none
    assert not any("Filters" in alt for alt in found)


def test_the_pictures_are_those_of_the_explainer(model: Path, folder: Path, tmp_path: Path) -> None:
    explainer = Explainer.from_file(model)
    files = sorted(folder.glob("[0-9].png"))
    page = write_explanation(
        explainer, files[:1], tmp_path / "page.html", classes=["tiger cat"], among=files
    )
    found = {alt.split(": ")[0]: picture for alt, picture in reversed(_pictures(page).items())}
    photos_in = explainer.load(files)
    photo, label = photos_in[0], [explainer.class_index("tiger cat")]
    (gradients,) = explainer.integrated_gradients(photo[None], label)
    maps = explainer.feature_maps(photo[None], "conv1")[0].transpose(2, 0, 1)
    order = np.argsort(-np.abs(maps).mean(axis=(1, 2)), kind="stable")
    features = explainer.features(photos_in)
    nearest = np.argsort(np.linalg.norm(features - features[0], axis=1), kind="stable")[1]
    expected = {
        "the photo as the model sees it": photo,
        "Grad-CAM": heat_overlay(photo, explainer.grad_cam(photo[None], label)[0]),
        "Integrated gradients": signed_overlay(photo, gradients.sum(axis=-1)),
        "Occlusion": signed_overlay(photo, explainer.occlusion(photo[None], label)[0]),
        "Maps of conv1": tiles(contrasted(maps[order[:32]]), width=640),
        "Nearest photos": photos_in[nearest],
        "Filters of conv1": tiles(explainer.filters(), width=640),
    }
    assert found.keys() == expected.keys()
    for name, picture in expected.items():
        np.testing.assert_allclose(found[name].astype(int), picture, atol=1, err_msg=name)


def test_the_guess_is_explained_by_default(run_cli: Run, model: Path, folder: Path) -> None:
    code, _, err = run_cli(
        "explain", model, folder / "3.png", "--method", "grad-cam", "--layer", "conv2",
        "--output", "page.html",
    )  # fmt: skip
    assert (code, err) == (0, "")
    explainer = Explainer.from_file(model)
    (label,) = explainer.guesses(explainer.load([folder / "3.png"]))
    assert [*_pictures(Path("page.html"))][1:] == [f"Grad-CAM: {LABELS[label]}"]
    assert f"Where the maps of conv2 ({SIDE // 2} x {SIDE // 2})" in Path("page.html").read_text()


def test_how_closely_the_methods_look(
    run_cli: Run, model: Path, folder: Path, tmp_path: Path
) -> None:
    code, _, err = run_cli(
        *("explain", model, folder / "0.png", "--among", folder, "--class", "1"),
        *("--method", "integrated-gradients", "--method", "occlusion", "--method", "neighbours"),
        *("--steps", 3, "--window", 6, "--stride", 5, "--neighbours", 2, "--output", "page.html"),
    )
    assert (code, err) == (0, "")
    text, found = (tmp_path / "page.html").read_text(), _pictures(tmp_path / "page.html")
    assert "on the way from a black photo in 3 steps" in text
    assert "where a square of 6 x 6 pixels hides the photo, which moves on by 5" in text
    assert sum(alt.startswith("Nearest photos") for alt in found) == 2
    explainer = Explainer.from_file(model)
    photos = explainer.load([folder / "0.png"])
    total = explainer.integrated_gradients(photos, [1], steps=3).sum()
    assert any(f"{LABELS[1]}: the pixels add {total:.2f} of" in alt for alt in found)
    drop = explainer.occlusion(photos, [1], window=6, stride=5)
    assert f"Occlusion: {LABELS[1]}: from {drop.min():.2f} to {drop.max():.2f}" in found


def test_a_photo_alone_has_no_neighbours(model: Path, folder: Path, tmp_path: Path) -> None:
    photo = folder / "0.png"
    page = write_explanation(
        model, [photo], tmp_path / "page.html", methods=["neighbours"], among=[photo]
    )
    assert [*_pictures(page)] == ["the photo as the model sees it"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("PHOTO", "--method", "gradcam"),
            "unknown method 'gradcam'. Did you mean 'grad-cam'? Known: grad-cam, integrated-gradi",
        ),
        (("PHOTO", "--layer", "relu3"), "residual has no layer or stage 'relu3'. Did you mean "),
        (("PHOTO", "--class", "tigr cat"), "residual has no class 'tigr cat'. Did you mean 'tig"),
        (
            ("PHOTO", "--method", "neighbours"),
            "neighbours are searched in a folder of photos: name it with --among",
        ),
        (
            ("PHOTO", "--method", "maps", "--among", "FOLDER"),
            "--among is for the method neighbours, which is not wanted",
        ),
        (("PHOTO", "--steps", "0"), "steps must be a whole number from 1 to 1000, got 0"),
        (("PHOTO", "--window", "0"), "window must be a positive integer, got 0"),
        (
            ("PHOTO", "--window", "99"),
            f"a window of 99 pixels and a stride of 49 do not fit: wanted is 1 <= stride <= window "
            f"<= {SIDE}, the photo's shorter side",
        ),
        (("PHOTO", "--stride", "9"), "pixels and a stride of 9 do not fit"),
        (
            ("PHOTO", "--among", "FOLDER", "--neighbours", "-1"),
            "neighbours must be a positive integer, got -1",
        ),
        (
            ("PHOTO", "--method", "grad-cam", "--steps", "9"),
            "--steps is for the method integrated-gradients, which is not wanted: add --method int",
        ),
        (
            ("PHOTO", "--neighbours", "9"),
            "--neighbours is for the method neighbours, which is not wanted: add --among",
        ),
        (("FOLDER/broken.png",), "broken.png: not an image that Pillow can read"),
        (("FOLDER/none.png",), "none.png: no such image file or folder"),
        (
            ("PHOTO", "--among", "FOLDER/broken.png"),
            "none of 1 image file can be read, such as ",
        ),
        (("PHOTO", "--output", "missing/page.html"), "cannot write missing/page.html: there is no"),
        (("PHOTO", "--backend", "theano"), "unknown backend 'theano'; Keras has tensorflow, torch"),
    ],
)
def test_errors_are_one_line(
    arguments: tuple[str, ...], message: str, run_cli: Run, model: Path, folder: Path
) -> None:
    words = [
        word.replace("PHOTO", f"{folder}/0.png").replace("FOLDER", str(folder))
        for word in arguments
    ]
    words += [] if "--output" in words else ["--output", "page.html"]
    code, out, err = run_cli("explain", model, *words)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    assert not [*Path.cwd().iterdir()]


def test_a_file_that_is_no_model(run_cli: Run, folder: Path) -> None:
    Path("text.keras").write_text("no model")
    code, _, err = run_cli("explain", "text.keras", folder / "0.png", "--output", "page.html")
    assert code == 2
    assert err.startswith("error: text.keras: not a .keras archive, or truncated (")
