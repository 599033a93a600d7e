"""The parity report: the pixels that the network sees, and cells that could not run."""

import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_alexnet import load_images
from keras_alexnet.specs import SPECS
from porting.checks.compare import Agreement, Compared, Difference
from porting.checks.inputs import input_sets, sample_photos
from porting.checks.report import _thumbnail, write_report
from porting.checks.results import Cell, Check, ParityResult, SetResult, verdict
from porting.torch_side.reference_nets import Reference
from porting.weights.spec_tables import counterpart

pytestmark = pytest.mark.skipif(not sample_photos(), reason="scikit-learn's photos are missing")


def check_of(name: str, size: tuple[int, int]) -> Check:
    spec = SPECS[name]
    return Check(
        Reference(name, spec.classes),
        counterpart(spec, spec.classes, aux_heads=False),
        Path("weights.pth"),
        Path("model.keras"),
        tuple(input_sets(None, [size], spec.preprocessing, noise=1, seed=0)),
        ("torch",),
        ("channels_last",),
    )


@pytest.mark.parametrize(
    ("name", "size"), [("lenet5", (28, 28)), ("alexnet_caffe", (227, 227)), ("alexnet", (96, 64))]
)
def test_photos_are_what_the_network_sees(name: str, size: tuple[int, int]) -> None:
    check = check_of(name, size)
    assert check.photos is not None
    path = check.photos.paths[0]
    data = base64.b64decode(_thumbnail(path, check).partition(",")[2])
    shown = Image.open(io.BytesIO(data))
    (wanted,) = load_images([path], check.photos.preprocessing)
    image = Image.fromarray(wanted.squeeze(-1) if wanted.shape[-1] == 1 else wanted)
    image.thumbnail((160, 160))
    assert (shown.size, shown.mode) == (image.size, image.mode)
    assert np.abs(np.asarray(shown, int) - np.asarray(image, int)).mean() < 8  # it is a JPEG


def cell(backend: str, gap: float = 0.0, **fields: str) -> Cell:
    compared = Compared("fc", "Dense", Difference(gap, gap, gap, 1.0), 1e-5)
    sets = (SetResult("noise", 0, Agreement(1, 1.0, 0, 1.0), (compared,), (compared,)),)
    return Cell(backend, "channels_last", sets, **fields)


@pytest.mark.parametrize(
    ("cells", "words", "kind"),
    [
        ([cell("torch"), cell("jax")], "all 2 cells agree", "passed"),
        ([cell("torch"), replace(cell("jax"), sets=(), error="was silent")], "of 2 cells 1 could "
         "not run", "unrun"),
        ([cell("torch", 1.0), replace(cell("jax"), sets=(), error="was silent")],
         "of 2 cells 1 disagree and 1 could not run", "failed"),
    ],
)  # fmt: skip
def test_what_could_not_run_is_no_disagreement(
    cells: list[Cell], words: str, kind: str, tmp_path: Path
) -> None:
    assert verdict(cells) == words
    result = ParityResult(check_of("lenet5", (28, 28)), tuple(cells), (), {}, 1.0)
    assert result.verdict == words
    page = write_report(tmp_path / "r.html", [result]).read_text()
    headline = re.sub(r"\s+", " ", page[page.index("<h1>") : page.index("</h1>")])
    assert f'<span class="{kind}">{words}</span>' in headline
    assert page.count("could not run:") == sum(bool(c.error) for c in cells)
