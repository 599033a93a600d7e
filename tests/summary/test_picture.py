"""Pictures of the networks: what is in them, that nothing overlaps, and that they are files."""

import itertools
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from keras_alexnet.errors import ConfigurationError, MissingDependencyError
from keras_alexnet.specs import SPECS
from keras_alexnet.specs.schema import ModelSpec
from keras_alexnet.summary.picture import draw, render
from keras_alexnet.summary.picture_layout import Box, Picture, arrange
from keras_alexnet.summary.profile import Profile, profile

ALL = pytest.mark.parametrize("spec", SPECS.values(), ids=list(SPECS))


def _network(spec: ModelSpec) -> Profile:
    return profile(spec, aux_heads=bool(spec.aux))


def _boxes(picture: Picture) -> list[Box]:
    return list(dict.fromkeys(picture.boxes.values()))


def _sides(box: Box) -> tuple[float, float, float, float]:
    return box.x - box.width / 2, box.y, box.x + box.width / 2, box.bottom[1]


@ALL
def test_every_row_has_a_box_and_no_two_boxes_overlap(spec: ModelSpec) -> None:
    network = _network(spec)
    picture = arrange(network)
    rows = {name.replace(".", "_") for name in picture.boxes}
    heads = {aux.name for aux in spec.aux}
    assert rows == {row.name for row in network.rows} | {"image", "logits"} | heads
    for a, b in itertools.combinations(map(_sides, _boxes(picture)), 2):
        apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert apart, (a, b)
    for a, b in itertools.combinations(picture.frames, 2):
        assert a[3] <= b[1] or b[3] <= a[1]


@ALL
def test_arrows_lead_from_box_to_box(spec: ModelSpec) -> None:
    picture = arrange(_network(spec))
    boxes = _boxes(picture)
    ends = [arrow[-1] for arrow in picture.arrows]
    branches = [len(row.branches) for row in spec.body if hasattr(row, "branches")]
    assert len(picture.arrows) == len(boxes) - 1 + sum(count - 1 for count in branches)
    for box in boxes:
        assert (box.top in ends) == (box.lines[0] != "image")
    starts = {arrow[0] for arrow in picture.arrows}
    sides = {(box.x + box.width / 2, box.y + box.height / 2) for box in boxes}
    assert starts <= {box.bottom for box in boxes} | sides
    for arrow in picture.arrows:
        for (x, y), (x2, y2) in itertools.pairwise(arrow):
            assert x == x2 or y == y2
            for left, top, right, bottom in map(_sides, boxes):  # nothing is crossed
                inside_x = max(x, x2) > left + 1e-9 and min(x, x2) < right - 1e-9
                inside_y = max(y, y2) > top + 1e-9 and min(y, y2) < bottom - 1e-9
                assert not (inside_x and inside_y)


@pytest.mark.parametrize("name", ["alexnet_paper", "googlenet", "googlenet_caffe", "lenet5"])
def test_texts_lie_inside_their_boxes(name: str) -> None:
    """By the extents that matplotlib's own renderer gives them."""
    network = _network(SPECS[name])
    figure = render(network)
    renderer = FigureCanvasAgg(figure).get_renderer()
    axes = figure.axes[0]
    boxes = [p for p in axes.patches if (p.get_gid() or "").startswith("box-")]
    frames = {patch: patch.get_window_extent(renderer) for patch in boxes}
    texts = [(text, text.get_window_extent(renderer)) for text in axes.texts]
    lines = sum(len(box.lines) for box in _boxes(arrange(network)))
    inside = 0
    for _, text in texts:
        touched = [f for f in frames.values() if f.overlaps(text)]
        assert len(touched) <= 1
        for box in touched:
            inside += 1
            assert box.x0 < text.x0 < text.x1 < box.x1
            assert box.y0 < text.y0 < text.y1 < box.y1
    assert inside == lines
    for (_, a), (_, b) in itertools.combinations(texts, 2):
        assert not a.overlaps(b) or abs(min(a.y1, b.y1) - max(a.y0, b.y0)) < 3  # descenders
    for _, text in texts:
        assert figure.bbox.x0 < text.x0 < text.x1 < figure.bbox.x1


def test_labels() -> None:
    boxes = arrange(_network(SPECS["googlenet"])).boxes
    assert boxes["conv1.conv"] is boxes["conv1.bn"] is boxes["conv1.relu"]
    assert boxes["conv1.conv"].lines == (
        "conv1_conv", "64 @ 7x7 / 2 p3, bn, relu", "64 x 112 x 112",
    )  # fmt: skip
    assert boxes["maxpool1"].lines[1] == "max 3x3 / 2 ceil"
    assert boxes["inception3a.branch4.0"].lines[1] == "max 3x3 p1"
    assert boxes["aux1.pool"].lines[1:] == ("average to 4x4", "512 x 4 x 4")
    assert boxes["aux2.dropout"].lines[1] == "dropout 0.7"
    assert boxes["dropout"].lines[1] == "dropout 0.2"
    assert boxes["fc"].lines[1:] == ("dense 1000", "1000")
    paper = arrange(_network(SPECS["alexnet_paper"])).boxes
    assert paper["features.4"].lines[1] == "256 @ 5x5 p2, 2 groups, relu"
    assert paper["features.2"].lines[1] == "lrn over 5 channels"
    assert arrange(_network(SPECS["alexnet_keras"])).boxes["conv1"].lines[1] == (
        "96 @ 11x11 / 4 same, relu"
    )
    cifar = arrange(_network(SPECS["alexnet_cifar"])).boxes
    assert cifar["classifier.8"] is cifar["classifier.9"]
    assert cifar["classifier.8"].lines[1] == "dense 10, bn"


def test_svg_holds_every_text_and_is_reproducible(tmp_path: Path) -> None:
    spec = SPECS["googlenet"]
    path = draw(spec, tmp_path / "net.svg", aux_heads=True, classes=7)
    assert path == (tmp_path / "net.svg").resolve()
    root = ET.parse(path).getroot()
    texts = ["".join(e.itertext()) for e in root.iter("{http://www.w3.org/2000/svg}text")]
    network = profile(spec, aux_heads=True, classes=7)
    for box in _boxes(arrange(network)):
        for line in box.lines:
            texts.remove(line)  # each as often as it is there
    totals = "3 x 224 x 224 pixels, 7 classes, "
    totals += f"{network.totals.parameters:,} parameters, {network.totals.macs:,} multiply-"
    assert f"{totals}accumulates" in texts
    kinds = {"convolution", "pooling", "concatenation", "flatten", "dropout", "dense"}
    assert set(texts) == {"googlenet", f"{totals}accumulates", "input, output", *kinds}
    again = draw(spec, tmp_path / "other.svg", aux_heads=True, classes=7)
    assert again.read_bytes() == path.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.svg", "other.svg"]


@pytest.mark.parametrize(
    ("suffix", "magic"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("SVG", b"<")]
)
def test_formats(tmp_path: Path, suffix: str, magic: bytes) -> None:
    before = dict(matplotlib.rcParams)
    a = draw(SPECS["lenet5"], tmp_path / f"a.{suffix}", size=(40, 32))
    b = draw(SPECS["lenet5"], tmp_path / f"b.{suffix}", size=(40, 32))
    assert a.read_bytes().startswith(magic)
    assert a.read_bytes() == b.read_bytes()
    assert dict(matplotlib.rcParams) == before


def test_mistakes_leave_no_file_and_keep_an_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "old.svg"
    old.write_text("old")
    spec = SPECS["alexnet"]
    with pytest.raises(ConfigurationError, match=r"its suffix must be one of \.svg, \.png, \.pdf"):
        draw(spec, tmp_path / "net.jpg")
    with pytest.raises(ConfigurationError, match="there is no folder"):
        draw(spec, tmp_path / "missing" / "net.svg")
    with pytest.raises(ConfigurationError, match="at least 63 x 63"):
        draw(spec, old, size=(62, 62))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r"pip install .*matplotlib"):
        draw(spec, old)
    assert old.read_text() == "old"
    assert list(tmp_path.iterdir()) == [old]
