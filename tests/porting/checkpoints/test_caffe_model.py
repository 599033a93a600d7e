"""`.caffemodel` files, written by an encoder of this file's own; real weights; folded AlexNet."""

import contextlib
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers.caffe_files import blob, encode_net, field, layer, small_net, varint

from keras_alexnet import create_model
from keras_alexnet.models.initialization import weights_will_follow
from keras_alexnet.specs import SPECS
from keras_alexnet.specs.schema import LRN, Conv, MaxPool, ModelSpec
from keras_alexnet.specs.shapes import trace
from porting import convert, load_state_dict, read_checkpoint, write_checkpoint
from porting.checkpoints.files import Checkpoint
from porting.conversion.inspection import diff
from porting.conversion.sources import open_source
from porting.errors import CheckpointError, TransferError
from porting.tolerances import TOLERANCES
from porting.weights.dialects import _RELATED, identify, translate
from porting.weights.spec_tables import weight_map

BOTH_KINDS = pytest.mark.parametrize("old", [True, False], ids=["layers", "layer"])


@BOTH_KINDS
def test_arrays_come_back_bit_by_bit(old: bool, tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    path.write_bytes(encode_net(small_net(), old=old))
    checkpoint = read_checkpoint(path)
    assert list(checkpoint.arrays) == list(small_net())
    for key, array in small_net().items():
        assert checkpoint.dtypes[key] == "float32"
        np.testing.assert_array_equal(checkpoint.arrays[key], array, err_msg=key, strict=True)


def test_doubles_and_several_segments(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float64) / 3
    shape = field(7, field(1, varint(2) + varint(3)))
    doubles = shape + field(8, values.tobytes())
    floats = values.astype("<f4").tobytes()
    segments = shape + field(5, floats[:8]) + field(5, floats[8:])
    path = tmp_path / "net.caffemodel"
    path.write_bytes(layer("a", [doubles], dense=True) + layer("b", [segments], dense=True))
    arrays = read_checkpoint(path).arrays
    np.testing.assert_array_equal(arrays["a.weight"], values.reshape(2, 3), strict=True)
    np.testing.assert_array_equal(
        arrays["b.weight"], values.astype(np.float32).reshape(2, 3), strict=True
    )


def _wrong(blob_content: bytes) -> bytes:
    return layer("conv1", [blob_content])


ARRAY = np.ones((2, 3, 1, 1), np.float32)
UNPACKED = field(7, field(1, varint(2))) + b"".join(
    varint(5 << 3 | 5) + struct.pack("<f", value) for value in (1, 2)
)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (layer("a/b", [blob(ARRAY, old=False)] * 3), r"layer 'a/b' has 3 blobs of weights"),
        (layer("a", [blob(ARRAY, old=False)]) * 2, r"layer 'a' has weights twice"),
        (
            _wrong(blob(ARRAY, old=False, shape=(2, 3, 1, 2))),
            r"layer 'conv1', weight: declares the shape \(2, 3, 1, 2\), 48 bytes, and holds 24",
        ),
        (
            _wrong(blob(ARRAY, old=False, shape=(10**6, 10**6, 10**6))),
            r"declares the shape \(1000000, 1000000, 1000000\), 4,000,000,000,000,000,000 bytes",
        ),
        (_wrong(blob(ARRAY, old=False, shape=(2**64 - 1, 6))), r"declares the shape \(-1, 6\)"),
        (_wrong(UNPACKED), r"8 bytes, and holds 0; values that are not packed are not read"),
        (layer("fc", [blob(ARRAY, old=False)], dense=True), r"its shape is \(2, 3, 1, 1\), wanted"),
        (layer("data", []), r"net.caffemodel: not a .caffemodel, or one whose layers hold no"),
        (b'name: "AlexNet"\nlayer {\n  name: "data"\n}\n', "a text, not a .caffemodel. A .protot"),
        (b"<!DOCTYPE html>\n", "net.caffemodel: .*not a .caffemodel"),
        (b"\x80\x02}q\x01." * 30, "net.caffemodel: not a .caffemodel, or one whose layers"),
        (encode_net(small_net())[:-1], "net.caffemodel: truncated or not a .caffemodel file"),
    ],
)
def test_files_that_are_refused(content: bytes, text: str, tmp_path: Path) -> None:
    (tmp_path / "net.caffemodel").write_bytes(content)
    with pytest.raises(CheckpointError, match=text):
        read_checkpoint(tmp_path / "net.caffemodel")


@BOTH_KINDS
def test_truncated_anywhere(old: bool, tmp_path: Path) -> None:
    """It is an error, or, cut between two layers, holds fewer of them."""
    path = tmp_path / "net.caffemodel"
    content = encode_net(small_net(), old=old)
    for length in range(1, len(content), 7):
        path.write_bytes(content[:length])
        with contextlib.suppress(CheckpointError):
            assert len(read_checkpoint(path).arrays) < len(small_net())


# The architectures


@pytest.fixture(scope="module")
def real_weights(shared_data: Path) -> Path:
    return shared_data / "bvlc_googlenet" / "bvlc_googlenet.npz"


@BOTH_KINDS
def test_real_googlenet_from_npz_and_caffemodel(
    old: bool, real_weights: Path, tmp_path: Path
) -> None:
    named = read_checkpoint(real_weights)
    plain = {key.replace("/", "."): array for key, array in named.arrays.items()}
    path = tmp_path / "bvlc_googlenet.caffemodel"
    path.write_bytes(encode_net(plain, old=old))
    from_caffe = open_source("googlenet_caffe", path)
    from_npz = open_source("googlenet_caffe", real_weights)
    assert from_npz.checkpoint.notes == (
        "116 names changed to googlenet_caffe's, such as conv1/7x7_s2/weight to "
        "conv1.7x7_s2.weight",
    )
    assert from_caffe.checkpoint.notes == ()
    assert from_caffe.classes == from_npz.classes == 1000
    assert from_caffe.fit.aux_heads is from_npz.fit.aux_heads is False
    for key, array in from_npz.checkpoint.arrays.items():
        np.testing.assert_array_equal(from_caffe.checkpoint.arrays[key], array, strict=True)
    assert identify(named)[0].name == identify(from_caffe.checkpoint)[0].name == "googlenet_caffe"
    assert {row.status for row in diff(path, real_weights)} == {"identical"}


def test_converted_with_and_without_auxiliary_heads(
    state_dicts: Callable[[str], dict[str, np.ndarray]], tmp_path: Path
) -> None:
    arrays = state_dicts("googlenet_caffe")
    path = tmp_path / "net.caffemodel"
    path.write_bytes(encode_net(arrays))
    record = convert("googlenet_caffe", path, tmp_path / "a.keras", include_preprocessing=True)
    assert record["model"]["aux_heads"] is False
    assert record["source"]["file"] == "net.caffemodel"
    convert("googlenet_caffe", path, tmp_path / "b.keras", aux_heads=True)
    write_checkpoint(tmp_path / "w.safetensors", arrays)
    assert {row.status for row in diff(tmp_path / "w.safetensors", tmp_path / "b.keras")} == {
        "identical"
    }


def test_names_that_collide(tmp_path: Path) -> None:
    arrays = {"conv1/weight": np.ones((96, 3, 11, 11), "f"), "conv1_weight": np.ones(3, "f")}
    write_checkpoint(tmp_path / "w.npz", arrays)
    text = "conv1/weight and conv1_weight both stand for conv1.weight"
    with pytest.raises(CheckpointError, match=text):
        open_source("alexnet_caffe", tmp_path / "w.npz")


def test_another_architecture_is_named(real_weights: Path) -> None:
    with pytest.raises(TransferError, match=r"The keys and shapes fit googlenet_caffe \(1000 cla"):
        open_source("alexnet_caffe", real_weights)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_canonical_names_are_unique(spec: ModelSpec) -> None:
    """Every architecture is recognised by names with other separators."""
    keys = [entry.key for entry in weight_map(spec, spec.classes)]
    arrays = {key.replace(".", "/"): np.zeros(1, "f") for key in keys}
    checkpoint = Checkpoint(Path("w.npz"), arrays, dict.fromkeys(arrays, "float32"))
    assert list(translate(checkpoint, spec).arrays) == keys


# Caffe's AlexNet as the paper's


def _fields(row: Any) -> tuple[Any, ...]:
    if isinstance(row, LRN):
        return row.size, pytest.approx(row.alpha), row.beta
    if isinstance(row, Conv):
        # The paper's first convolution pads.
        return row.filters, row.kernel, row.stride, row.bias, row.groups
    return (row.size, row.stride, row.padding, row.ceil) if isinstance(row, MaxPool) else ()


def test_related_networks_have_the_same_layers() -> None:
    """What the translation between them presumes."""
    for name, related in _RELATED.items():
        kinds = (Conv, LRN, MaxPool)
        ours, theirs = (
            [row for row in SPECS[each].body if isinstance(row, kinds)]
            for each in (name, related.origin)
        )
        assert [type(row) for row in ours] == [type(row) for row in theirs]
        for row, other in zip(ours, theirs, strict=True):
            assert _fields(row) == _fields(other)
        weighted = {
            step.row.name
            for step in trace(SPECS[name])
            if type(step.row).__name__ in ("Conv", "Dense")
        }
        assert set(related.names.values()) == weighted


def _logits(name: str, arrays: Mapping[str, np.ndarray], pixels: np.ndarray) -> np.ndarray:
    """Logits of images of RGB 0..255 (N, H, W, 3)."""
    with weights_will_follow():
        model = create_model(name, include_preprocessing=True)
    load_state_dict(model, arrays)
    return np.asarray(keras.ops.convert_to_numpy(model(pixels)))


@pytest.mark.slow
def test_caffe_alexnet_is_the_papers_when_folded(
    state_dicts: Callable[[str], dict[str, np.ndarray]], tmp_path: Path
) -> None:
    """224 pixels for the paper's are 227 for Caffe's, with a border of the paper's mean colour."""
    arrays = state_dicts("alexnet_caffe")
    path = tmp_path / "bvlc_alexnet.caffemodel"
    path.write_bytes(encode_net(arrays, old=True))
    opened = open_source("alexnet_paper", path)
    assert opened.checkpoint.notes[-1] == (
        "weights of alexnet_caffe: folded its input (BGR, its mean) into conv1, its LRN's k into "
        "conv1, conv2, conv3"
    )
    rng = np.random.default_rng(1)
    small = rng.uniform(0, 255, (2, 8, 8, 3)).repeat(28, 1).repeat(28, 2).astype(np.float32)
    mean = np.array(SPECS["alexnet_paper"].preprocessing.mean, np.float32) * 255
    bordered = np.broadcast_to(mean, (2, 227, 227, 3)).copy()
    bordered[:, 2:226, 2:226] = small
    wanted = _logits("alexnet_caffe", arrays, bordered)
    got = _logits("alexnet_paper", opened.checkpoint.arrays, small)
    scale = np.abs(wanted).max()
    assert np.abs(wanted[0] - wanted[1]).max() > 0.01 * scale
    assert np.abs(got - wanted).max() <= TOLERANCES["logits"].limit * scale
    # Without the part about k, and with the channels in the other order, it is another network.
    for wrong in (
        dict(opened.checkpoint.arrays, **{"features.8.weight": arrays["conv3.weight"]}),
        dict(
            opened.checkpoint.arrays,
            **{"features.0.weight": opened.checkpoint.arrays["features.0.weight"][:, ::-1].copy()},
        ),
    ):
        off = np.abs(_logits("alexnet_paper", wrong, small) - wanted).max()
        assert off > 100 * TOLERANCES["logits"].limit * scale
