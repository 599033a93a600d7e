"""The parity report: the pixels that the network sees, and cells that could not run."""

import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.pages import Page
from PIL import Image

from keras_alexnet import load_images
from keras_alexnet.specs import SPECS
from porting.checks.chart import layer_chart
from porting.checks.compare import Agreement, Compared, Difference
from porting.checks.inputs import input_sets, sample_photos
from porting.checks.report import _thumbnail, write_report
from porting.checks.results import (
    Cell,
    Check,
    ParityResult,
    Photo,
    SetResult,
    cells_in_words,
    verdict,
)
from porting.commands.console import print_parity, print_photos
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
    path = write_report(tmp_path / "r.html", [result])
    page = path.read_text()
    headline = re.sub(r"\s+", " ", page[page.index("<h1>") : page.index("</h1>")])
    assert f'<span class="{kind}">{words}</span>' in headline
    assert page.count("could not run:") == sum(bool(c.error) for c in cells)
    kinds = {"passed": "passed", "FAILED": "failed", "could not run": "unrun"}
    for each in cells:
        row = re.search(rf'<tr class="(\w+)-cell"><td>{each.backend}</td>', page)
        assert row is not None
        assert row[1] == kinds[each.verdict]
    rows = Page(path).tables["cells"][1:]
    assert [row[2] for row in rows] == [each.verdict for each in cells]


def result_of(*cells: Cell, photos: tuple[Photo, ...] = ()) -> ParityResult:
    return ParityResult(check_of("lenet5", (28, 28)), cells, photos, {}, 1.0)


def test_identical_columns_are_one_line(tmp_path: Path) -> None:
    """Differences of layers and logits are the cells' own, the rest is the same everywhere."""
    result = result_of(cell("torch"), cell("jax", 1e-7), cell("tensorflow", 2e-7))
    page = Page(write_report(tmp_path / "r.html", [result]))
    assert page.tables["cells"] == [
        ["backend", "data format", "", "layers", "logits"],
        ["torch", "channels_last", "passed", "0.0e+00", "0.0e+00"],
        ["jax", "channels_last", "passed", "1.0e-07", "1.0e-07"],
        ["tensorflow", "channels_last", "passed", "2.0e-07", "2.0e-07"],
    ]
    same = "pixels (steps) 0, top-1 100 %, gradients not compared."
    assert f"The same on all 3: {same}" in page.words
    silent = replace(cell("tensorflow"), sets=(), error="was silent")
    result = result_of(cell("torch"), cell("jax", 1e-7), silent)
    page = Page(write_report(tmp_path / "r.html", [result]))
    assert f"The same on all 2 that ran: {same}" in page.words
    assert page.tables["cells"][3] == ["tensorflow", "channels_last", "could not run", ""]


def test_cells_of_a_backend_in_a_line() -> None:
    other = replace(cell("torch", 1e-7), data_format="channels_first")
    assert cells_in_words("lenet5", [cell("torch"), other]) == (
        "lenet5 on torch: channels_last passed, channels_first passed (logits 1.0e-07 apart)"
    )
    silent = replace(cell("jax"), sets=(), error="was silent")
    assert cells_in_words("lenet5", [silent]) == "lenet5 on jax: channels_last could not run"
    both = cells_in_words("lenet5", [cell("jax", 1.0), silent])
    assert both == (
        "lenet5 on jax: channels_last FAILED, channels_last could not run (logits 1.0e+00 apart)"
    )


def test_identical_columns_are_one_line_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_parity(result_of(cell("torch"), cell("jax", 1e-7)))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["backend", "data", "format", "layers", "logits", "verdict"] in lines
    assert ["jax", "channels_last", "1.0e-07", "1.0e-07", "passed"] in lines
    assert ["tolerance", "<=", "5e-05", "<=", "1e-05"] in lines
    same = "The same on all 2: pixels (steps) 0, top-1 100 %, gradients not compared."
    assert same.split() in lines
    print_parity(result_of(cell("torch"), replace(cell("jax"), sets=(), error="was silent")))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["jax", "channels_last", *"-----", "could", "not", "run"] in lines


@pytest.mark.parametrize("cells", [[cell("torch")], [replace(cell("jax"), sets=(), error="no")]])
def test_one_cell_has_nothing_in_common(cells: list[Cell], tmp_path: Path) -> None:
    page = Page(write_report(tmp_path / "r.html", [result_of(*cells)]))
    assert "The same on" not in page.words
    assert len(page.tables["cells"][0]) == (3 if cells[0].error else 8)


@pytest.mark.parametrize(
    ("tops", "headings"),
    [
        ((0.5, 0.5, 0.50001, 0.5), ["torch; the same on all 3"]),
        ((0.5, 0.5, 0.6, 0.5), ["torch; the same on 2 of 3", "jax"]),
        ((0.5, 0.5, 0.6, 0.6), ["torch; keras", "jax; tensorflow"]),
        ((0.5, 0.6, 0.6, 0.6), ["torch", "the same on all 3"]),
        ((0.5, 0.6, 0.6, 0.7), ["torch", "keras; jax", "tensorflow"]),
    ],
)
def test_frameworks_that_say_the_same_share_a_column(
    tops: tuple[float, ...],
    headings: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (path, *_) = map(str, sample_photos())
    names = ("torch", "keras", "jax", "tensorflow")
    photo = Photo(path, {n: (("flower", p),) for n, p in zip(names, tops, strict=True)})
    result = result_of(cell("torch"), cell("jax"), photos=(photo,))
    table = Page(write_report(tmp_path / "r.html", [result])).tables["photo"]
    assert table[0] == headings
    assert table[1][0] == "flower 50.00 %"
    print_photos(result)
    lines = [re.split(r" {2,}", line.strip()) for line in capsys.readouterr().out.splitlines()]
    assert headings in lines  # on a terminal too
    assert table[1] in lines


def layered(backend: str, *gaps: float | None) -> Cell:
    """A cell whose layers differ so much; None stands for another shape."""
    found = [None if gap is None else Difference(gap, gap, gap, 1.0) for gap in gaps]
    layers = tuple(
        Compared(f"conv{n}", "Conv", gap, 5e-5, shape=(2, 9, 8, n))
        for n, gap in enumerate(found, 1)
    )
    sets = (SetResult("noise", 0, Agreement(1, 1.0, 0, 1.0), layers[:1], layers),)
    return Cell(backend, "channels_last", sets)


def test_layers_can_be_pointed_at(tmp_path: Path) -> None:
    """Their titles say what they are; lines and marks lie where the differences are."""
    result = result_of(layered("torch", 1e-7, 0.0, 1e-9), layered("jax", 1e-5, 0.0, None))
    chart = layer_chart(result)
    assert chart is not None
    first, second = chart.lines
    floor, top = chart.ticks[-9], chart.ticks[-4]
    assert (floor, top) == (chart.height, 0)
    heights = [float(point.partition(",")[2]) for point in first.points.split()]
    assert heights == [chart.ticks[-7], floor, floor]
    heights = [float(point.partition(",")[2]) for point in second.points.split()]
    assert heights == [chart.ticks[-5], floor, top]  # another shape is no exact layer
    assert first.beyond == ()
    assert second.beyond == ((float(second.points.split()[2].partition(",")[0]), top),)
    assert chart.ticks[-4] < chart.tolerance < chart.ticks[-5]
    path = write_report(tmp_path / "r.html", [result])
    titles = re.findall(r'<g class="layer"><title>(.*?)</title>', path.read_text(), re.S)
    assert [title.splitlines() for title in titles] == [
        ["conv1 (Conv), 9x8x1", "torch, channels_last: 1.0e-07", "jax, channels_last: 1.0e-05"],
        ["conv2 (Conv), 9x8x2", "the same on all 2: 0.0e+00"],
        ["conv3 (Conv), 9x8x3", "torch, channels_last: 1.0e-09", "jax, channels_last: shape"],
    ]
    assert Page(path).tables["sortable layers"] == [
        ["number", "layer", "kind", "output of an image", "torch, channels_last",
         "jax, channels_last"],
        ["0", "conv1", "Conv", "9x8x1", "1.0e-07", "1.0e-05"],
        ["1", "conv2", "Conv", "9x8x2", "0.0e+00", "0.0e+00"],
        ["2", "conv3", "Conv", "9x8x3", "1.0e-09", "shape"],
    ]  # fmt: skip


def test_a_large_difference_widens_the_axis() -> None:
    chart = layer_chart(result_of(layered("torch", 1e-7, 30.0)))
    assert chart is not None
    assert chart.ticks[2] == 0
    assert layer_chart(result_of(replace(cell("jax"), sets=(), error="no"))) is None
