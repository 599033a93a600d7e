"""What Caffe files say of their networks against the tables: order, kinds, numbers."""

import re
from pathlib import Path

import numpy as np
import pytest
from helpers.caffe_files import blob, field, varint

from keras_alexnet.specs import SPECS
from keras_alexnet.specs.schema import (
    LRN,
    AdaptiveAvgPool,
    AvgPool,
    Concat,
    Conv,
    Dense,
    Dropout,
    Flatten,
    MaxPool,
    ModelSpec,
    ReLU,
    Row,
)
from porting import read_checkpoint, write_checkpoint
from porting.checkpoints.caffe_net import read_prototxt
from porting.conversion.sources import open_source
from porting.errors import CheckpointError, TransferError
from porting.weights.dialects import identify
from porting.weights.spec_tables import weight_map
from porting.weights.table import Put
from porting.weights.topology import contradictions

CAFFES = [name for name, spec in SPECS.items() if spec.origin == "Caffe"]


def settings_of(row: Row) -> tuple[str, str]:
    """Kind of Caffe's layer for a row, and its settings as a text."""
    match row:
        case Conv():
            numbers = {"num_output": row.filters, "kernel_size": row.kernel, "stride": row.stride}
            numbers |= {"pad": row.padding, "group": row.groups}  # type: ignore[dict-item]
            return "Convolution", block("convolution_param", numbers)
        case LRN():
            numbers = {"local_size": row.size, "alpha": row.alpha, "beta": row.beta, "k": row.k}  # type: ignore[dict-item]
            return "LRN", block("lrn_param", numbers)
        case MaxPool():
            return "Pooling", block(
                "pooling_param",
                {"pool": "MAX", "kernel_size": row.size, "stride": row.stride, "pad": row.padding},
            )
        case AvgPool() | AdaptiveAvgPool():
            return "Pooling", block("pooling_param", {"pool": "AVE", "kernel_size": row.size})
        case Dense():
            return "InnerProduct", ""
        case ReLU():
            return "ReLU", ""
        case Dropout():
            return "Dropout", ""
    raise AssertionError(row)


def block(name: str, numbers: dict[str, object]) -> str:
    return f"{name} {{ {' '.join(f'{k}: {v}' for k, v in numbers.items())} }}"


def prototxt(spec: ModelSpec, *, in_place: bool = True) -> str:
    """Write a spec as Caffe describes networks; ReLU and dropout write what they read."""
    lines = ['name: "Net" # a comment', 'input: "data"']
    tops: dict[str, str] = {}

    def walk(rows: tuple[Row, ...], bottom: str) -> str:
        for row in rows:
            name = row.name.replace(".", "/")
            if isinstance(row, Flatten):
                continue
            if isinstance(row, Concat):
                ends = [walk(branch, bottom) for branch in row.branches]
                reads = " ".join(f'bottom: "{end}"' for end in ends)
                lines.append(f'layer {{ name: "{name}" type: "Concat" {reads} top: "{name}" }}')
                bottom = name
            else:
                kind, settings = settings_of(row)
                top = bottom if in_place and kind in ("ReLU", "Dropout") else name
                lines.append(
                    f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{top}" '
                    f"{settings} }}"
                )
                bottom = top
            tops[row.name] = bottom
        return bottom

    end = walk(spec.body, "data")
    for aux in spec.aux:
        walk(aux.rows, tops[aux.reads])
    walk(spec.head, end)
    return "\n".join(lines)


def described(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "deploy.prototxt"
    path.write_text(text)
    return contradictions(read_prototxt(path), SPECS["alexnet_caffe"])


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("name", CAFFES)
def test_a_network_agrees_with_itself_alone(name: str, in_place: bool, tmp_path: Path) -> None:
    path = tmp_path / "deploy.prototxt"
    path.write_text(prototxt(SPECS[name], in_place=in_place))
    net = read_prototxt(path)
    assert net.is_wired
    for other in CAFFES:
        if other.startswith("googlenet") == name.startswith("googlenet"):
            assert bool(contradictions(net, SPECS[other])) == (other != name), other


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("pad: 2", "pad: 0", r"conv2 has padding 0, alexnet_caffe 2"),
        ("group: 2", "", r"conv2 has groups 1, alexnet_caffe 2"),
        ("stride: 4", "stride: 2", "conv1 has stride 2, alexnet_caffe 4"),
        ("kernel_size: 11", "kernel_h: 11 kernel_w: 7", None),
        (
            "local_size: 5",
            "local_size: 3",
            r"conv1 through ReLU, LRN \(3, .*; in alexn",
        ),
        (
            "kernel_size: 3 stride: 2 pad: 0 }",
            "kernel_size: 2 stride: 2 }",
            r"max pooling \(2, 2, 0",
        ),
        ("pool: MAX", "pool: AVE", "ReLU, LRN .*, average pooling; in alexnet_caffe"),
        ('type: "ReLU"', 'type: "TanH"', "conv2 reads conv1 through TanH, LRN"),
    ],
)
def test_each_number_counts(old: str, new: str, message: str | None, tmp_path: Path) -> None:
    text = prototxt(SPECS["alexnet_caffe"])
    assert old in text
    found = described(tmp_path, text.replace(old, new, 1))
    if message is None:
        assert not found
    else:
        assert len(found) == 1
        assert re.search(message, found[0]), found


def test_what_is_no_description(tmp_path: Path) -> None:
    for text in ("layer { name: ", "layer { name: 'a' ", "layer: 3", "layer { : }"):
        (tmp_path / "a.prototxt").write_text(text)
        with pytest.raises(CheckpointError, match=r"a\.prototxt: no \.prototxt \("):
            read_prototxt(tmp_path / "a.prototxt")


def arrays_of(name: str) -> dict[str, np.ndarray]:
    """Weights of a network, alive enough to be read: nothing is computed with them."""
    entries = [entry for entry in weight_map(SPECS[name], 1000) if isinstance(entry, Put)]
    return {entry.key: np.zeros(entry.shape, np.float32) for entry in entries}


def test_a_description_beside_the_file_decides(tmp_path: Path) -> None:
    """CaffeNet has AlexNet's names and shapes, and pools before it normalises."""
    path = tmp_path / "net.npz"
    write_checkpoint(path, arrays_of("caffenet"))
    assert open_source("alexnet_caffe", path).spec.name == "alexnet_caffe"  # nothing says no
    (tmp_path / "net.prototxt").write_text(prototxt(SPECS["caffenet"]))
    with pytest.raises(TransferError) as caught:
        open_source("alexnet_caffe", path)
    text = str(caught.value)
    assert "net.npz has the names and shapes of alexnet_caffe, and says otherwise" in text
    assert "conv2 reads conv1 through ReLU, max pooling (3, 2, 0), LRN (5, 0.0001, 0.75, 1)" in text
    assert "By its own description this is caffenet: name that." in text
    assert open_source("caffenet", path).spec.name == "caffenet"
    assert identify(read_checkpoint(path))[0].name == "caffenet"
    with pytest.raises(TransferError, match="this is caffenet"):
        open_source("alexnet_paper", path)  # whose weights are folded from AlexNet's


@pytest.mark.parametrize("old", [True, False], ids=["layers", "layer"])
def test_a_caffemodel_says_it_itself(old: bool, tmp_path: Path) -> None:
    path = tmp_path / "bvlc.caffemodel"
    path.write_bytes(caffemodel(SPECS["caffenet"], arrays_of("caffenet"), old=old))
    with pytest.raises(TransferError, match="By its own description this is caffenet"):
        open_source("alexnet_caffe", path)
    assert open_source("caffenet", path).spec.name == "caffenet"


def test_a_name_decides_where_nothing_else_does(tmp_path: Path) -> None:
    path = tmp_path / "bvlc.caffemodel"
    weights = arrays_of("caffenet")
    path.write_bytes(caffemodel(SPECS["caffenet"], weights, old=False, wired=False))
    with pytest.raises(TransferError, match="it calls its network CaffeNet, which is caffenet"):
        open_source("alexnet_caffe", path)


def caffemodel(
    spec: ModelSpec, arrays: dict[str, np.ndarray], *, old: bool, wired: bool = True
) -> bytes:
    """A chain of layers with their weights and settings, as Caffe saves it."""
    content, bottom = field(1, b"CaffeNet"), b"data"
    kinds = {"Convolution": 4, "LRN": 15, "Pooling": 17, "ReLU": 18, "InnerProduct": 14}
    kinds |= {"Dropout": 6}
    numbers = {"bottom": 2, "top": 3, "name": 4, "type": 5, "blobs": 6} if old else {
        "bottom": 3, "top": 4, "name": 1, "type": 2, "blobs": 7
    }  # fmt: skip
    for row in (*spec.body, *spec.head):
        if isinstance(row, Flatten):
            continue
        kind, text = settings_of(row)
        name = row.name.encode()
        layer = field(numbers["name"], name)
        layer += field(numbers["type"], kinds[kind] if old else kind.encode())
        if wired:
            layer += field(numbers["bottom"], bottom) + field(numbers["top"], name)
            layer += encoded(text, old=old)
        for part in ("weight", "bias"):
            if (array := arrays.get(f"{row.name}.{part}")) is not None:
                layer += field(numbers["blobs"], blob(array, old=old))
        content += field(2 if old else 100, layer)
        bottom = name
    return content


def encoded(text: str, *, old: bool) -> bytes:
    """A block of settings in protobuf's wire format."""
    if not text:
        return b""
    message, *_ = text.split()
    places = {"convolution_param": (10, 106), "lrn_param": (18, 118), "pooling_param": (19, 121)}
    fields = {
        "convolution_param": {"pad": 3, "kernel_size": 4, "group": 5, "stride": 6, "num_output": 1},
        "lrn_param": {"local_size": 1, "alpha": 2, "beta": 3, "k": 5},
        "pooling_param": {"pool": 1, "kernel_size": 2, "stride": 3, "pad": 4},
    }[message]
    content = b""
    for name, value in re.findall(r"(\w+): (\S+)", text):
        number = fields[name]
        if message == "lrn_param" and name != "local_size":
            content += varint(number << 3 | 5) + np.float32(value).tobytes()
        else:
            content += field(
                number, {"MAX": 0, "AVE": 1}.get(value) if value.isalpha() else int(value)
            )
    return field(places[message][0 if old else 1], content)
