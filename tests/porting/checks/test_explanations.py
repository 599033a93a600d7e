"""`python -m porting explain`: what guesses rest on, in both frameworks."""

from pathlib import Path

import numpy as np
import pytest
from helpers.pages import Page
from PIL import Image
from typer.testing import CliRunner

import porting
from keras_alexnet import ExplanationDetail
from keras_alexnet.errors import ImageFileError, KerasAlexNetError, ModelFileError
from porting.checks.explanations import compare_explanations
from porting.commands.app import app
from porting.errors import CheckpointError, UsageError

# Integrated gradients pass many ReLUs' and pools' decisions, which float32 rounds to either side.
LIMITS = {"grad-cam": 1e-5, "integrated-gradients": 1e-3, "occlusion": 1e-4}


def files(folder: Path, seed: int = 0) -> tuple[Path, Path]:
    """Seeded weights of LeNet-5, and the `.keras` file of them."""
    weights = folder / f"lenet{seed}.safetensors"
    porting.write_checkpoint(weights, porting.seeded_state_dict("lenet5", seed=seed))
    output = folder / f"lenet{seed}.keras"
    porting.convert("lenet5", weights, output, include_preprocessing=True)
    return weights, output


def photo(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(folder / "photo.png")
    return folder / "photo.png"


def test_both_frameworks_look_at_the_same(tmp_path: Path) -> None:
    weights, model = files(tmp_path)
    arguments = ["explain", "lenet5", str(model), str(photo(tmp_path)), "--source", str(weights)]
    arguments += ["--output", str(tmp_path / "page.html"), "--class", "3", "--class", "7"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    page = Page(tmp_path / "page.html")
    assert len(page.pictures) == 1 + 2 * 3 * 3  # the photo; classes, methods, and three each
    assert "integrated-gradients of 7" in page.words
    assert done.output.count("occlusion") == 2


def test_how_closely_both_look(tmp_path: Path) -> None:
    """What options say goes to both frameworks: else their maps would differ."""
    weights, model = files(tmp_path)
    detail = ExplanationDetail(steps=3, window=9, stride=7)
    pages = []
    for given in (None, detail):
        results = compare_explanations(
            *("lenet5", model, [photo(tmp_path)], tmp_path / "page.html", tmp_path),
            source=weights,
            classes=["3", "7"],
            methods=["integrated-gradients", "occlusion"],
            detail=given,
        )
        assert len(results) == 4
        assert all(each.relative <= LIMITS[each.method] for each in results), results
        pages.append(Page(tmp_path / "page.html").pictures)
    assert pages[0] != pages[1]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--steps", "0"], "steps must be a whole number from 1 to 1000, got 0"),
        (["--method", "grad-cam", "--stride", "3"], "--stride is for the method occlusion, which"),
        (["--window", "40"], "a window of 40 pixels and a stride of 20 do not fit"),
    ],
)
def test_settings_that_are_wrong(options: list[str], text: str, tmp_path: Path) -> None:
    weights, model = files(tmp_path)
    arguments = ["explain", "lenet5", str(model), str(photo(tmp_path)), "--source", str(weights)]
    done = CliRunner().invoke(app, [*arguments, "--output", str(tmp_path / "a.html"), *options])
    assert isinstance(done.exception, KerasAlexNetError)
    assert text in str(done.exception)
    assert not (tmp_path / "a.html").exists()


def test_how_far_they_differ(tmp_path: Path) -> None:
    """The file's own weights against others: what is compared is compared."""
    (weights, model), (others, _) = files(tmp_path), files(tmp_path, 1)
    found = {}
    for source in (weights, others):
        results = compare_explanations(
            "lenet5", model, [photo(tmp_path)], tmp_path / "a.html", tmp_path, source=source
        )
        found[source] = {each.method: each.relative for each in results}
    assert found[weights].keys() == LIMITS.keys()
    assert all(found[weights][method] <= limit for method, limit in LIMITS.items()), found
    assert all(found[others][method] > 100 * limit for method, limit in LIMITS.items()), found


@pytest.mark.slow
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_any_torch_network(tmp_path: Path, data_format: str) -> None:
    """Its layers are known by the file; Grad-CAM of a module in the middle, by its torch name."""
    model, weights = tmp_path / "net.keras", tmp_path / "net.pth"
    arguments = ["convert", "torchvision:squeezenet1_1", "--output", str(model)]
    done = CliRunner().invoke(app, [*arguments, "--data-format", data_format])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(app, ["export", str(model), "--output", str(weights)])
    assert done.exit_code == 0, done.output
    results = compare_explanations(
        "torchvision:squeezenet1_1",
        model,
        [photo(tmp_path)],
        tmp_path / "page.html",
        tmp_path,
        source=weights,
        methods=["grad-cam"],
        layer="features.9.expand3x3",
    )
    assert [each.relative <= 1e-4 for each in results] == [True]


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"methods": ["gradcam"]}, UsageError, "unknown method 'gradcam'. Did you mean 'grad-cam'"),
        ({"layer": "conv9"}, UsageError, "no maps of both frameworks are called 'conv9'"),
        ({"source": "no.pth"}, CheckpointError, "no.pth: no such file"),
        ({"photos": [Path("no.png")]}, ImageFileError, "no.png: no such image file"),
        ({"candidate": Path("no.keras")}, ModelFileError, "no.keras: no such file"),
    ],
)
def test_mistakes(
    options: dict[str, object], kind: type[KerasAlexNetError], text: str, tmp_path: Path
) -> None:
    weights, model = files(tmp_path)
    given = {"candidate": model, "photos": [photo(tmp_path)], "source": weights, **options}
    before = set(tmp_path.iterdir())
    with pytest.raises(kind) as caught:
        compare_explanations("lenet5", output=tmp_path / "a.html", folder=tmp_path, **given)  # type: ignore[arg-type]
    assert text in str(caught.value)
    assert set(tmp_path.iterdir()) - before <= {tmp_path / "photos.npy"}
