"""Image files of every sort, decoded to upright pixels of 8 bits."""

import io
import re
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from PIL import Image

from keras_alexnet.data import decoding
from keras_alexnet.data.decoding import decode_image, open_image
from keras_alexnet.errors import ImageFileError


def image(width: int = 60, height: int = 40) -> Image.Image:
    rng = np.random.default_rng([width, height])
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def content(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("channels", ["RGB", "L"])
@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *(("1", "PNG"), ("L", "PNG"), ("LA", "PNG"), ("P", "GIF"), ("RGB", "BMP")),
        *(("RGBA", "PNG"), ("CMYK", "JPEG"), ("CMYK", "TIFF"), ("L", "JPEG"), ("RGB", "WEBP")),
    ],
)
def test_modes_are_converted_as_pillow_does(mode: str, kind: str, channels: Any) -> None:
    data = content(image().convert(mode), kind)
    wanted = np.asarray(Image.open(io.BytesIO(data)).convert(channels)).reshape(40, 60, -1)
    got = decode_image(data, channels)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, wanted)


def test_files_are_their_content(tmp_path: Path) -> None:
    data = content(image(), "JPEG")
    (tmp_path / "photo").write_bytes(data)
    for path in (tmp_path / "photo", str(tmp_path / "photo")):
        np.testing.assert_array_equal(decode_image(path), decode_image(data))


def test_palette_with_transparency() -> None:
    """Its colours, without the warning that Pillow has for it."""
    data = content(image().convert("P"), "PNG", transparency=bytes([0, 100, 200]))
    with Image.open(io.BytesIO(data)) as stored:
        wanted = np.asarray(stored.convert("RGBA"))[..., :3]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(decode_image(data), wanted)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled(kind: str) -> None:
    ramp = np.linspace(0, 65535, 40 * 60).astype(np.uint16).reshape(40, 60)
    data = content(Image.fromarray(ramp), kind)
    got = decode_image(data)
    assert got.shape == (40, 60, 3)
    np.testing.assert_array_equal(got, np.repeat((ramp >> 8)[..., None], 3, axis=2))
    with Image.open(io.BytesIO(data)) as stored:  # what would happen otherwise
        assert (np.asarray(stored.convert("L")) == 255).mean() > 0.9
    np.testing.assert_array_equal(decode_image(data, "L"), (ramp >> 8)[..., None])


GREY = np.linspace(0, 255, 40 * 60).round().astype(np.uint8).reshape(40, 60)


@pytest.mark.parametrize(
    ("values", "wanted", "guess"),
    [
        (GREY.astype(np.int32), GREY, "int32 numbers were taken for 8 bits"),
        (GREY.astype(np.int32) << 4, GREY, "int32 numbers were taken for 12 bits"),
        (GREY.astype(np.int32) << 8, GREY, "int32 numbers were taken for 16 bits"),
        (GREY.astype(np.int32) << 23, GREY >> 1, None),
        (GREY.astype(np.uint16), GREY, "uint16 numbers were taken for 8 bits"),
        (GREY.astype(np.uint16) << 4, GREY, "uint16 numbers were taken for 12 bits"),
        (GREY.astype(np.uint16) << 8, GREY, None),
        ((GREY / 255).astype(np.float32), GREY, r"float32 numbers were taken for 0\.\.1"),
        (GREY.astype(np.float32), GREY, r"float32 numbers were taken for 0\.\.255"),
        (GREY.astype(np.float32) * 257, GREY, r"float32 numbers were taken for 0\.\.65535"),
    ],
)
def test_wide_numbers_are_scaled_by_one_rule(
    values: np.ndarray,
    wanted: np.ndarray,
    guess: str | None,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decoding, "_said", set())
    for name in ("a.tif", "b.tif"):
        Image.fromarray(values).save(tmp_path / name)
        got = decode_image(tmp_path / name)
        np.testing.assert_array_equal(got, np.repeat(wanted[..., None], 3, axis=2))
    said = [record.getMessage() for record in caplog.records]
    if guess is None:
        assert not said
    else:
        (line,) = said
        assert re.search(rf"{guess}, such as .*a\.tif, up to", line)


@pytest.mark.parametrize("kind", ["PNG", "PPM"])
def test_dark_pictures_stay_dark_where_the_format_scales(kind: str) -> None:
    dark = GREY.astype(np.uint16)  # of 65535
    assert decode_image(content(Image.fromarray(dark), kind)).max() == 0


@pytest.mark.parametrize(
    "values",
    [
        GREY.astype(np.int32) - 9,
        GREY * np.float32(-0.1),
        GREY * np.float32(1e4),
        GREY + np.float32(np.nan),
    ],
)
def test_numbers_of_no_picture_are_refused(values: np.ndarray) -> None:
    with pytest.raises(ImageFileError, match=r"image: its numbers, (int|float)32 from .*no range"):
        decode_image(content(Image.fromarray(values), "TIFF"))


def test_colours_of_twelve_bits_in_sixteen_are_refused(tmp_path: Path) -> None:
    """Pillow keeps the high byte: 4 bits."""
    pixels = np.asarray(image()).astype(">u2") << 4
    path = tmp_path / "camera.png"
    path.write_bytes(png_of_16_bits(pixels))
    with pytest.raises(ImageFileError, match=r"camera\.png: colours of 12 bits in 16"):
        decode_image(path)
    path.write_bytes(png_of_16_bits(pixels << 4))
    np.testing.assert_array_equal(decode_image(path), np.asarray(image()))


def png_of_16_bits(pixels: np.ndarray) -> bytes:
    """Pillow writes none of colours."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_orientation(orientation: int, kind: str) -> None:
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = image() if undo is None else image().transpose(undo)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    data = content(stored, kind, exif=exif(orientation), **options)
    np.testing.assert_array_equal(decode_image(data), np.asarray(image()))


def test_damaged_exif_is_ignored() -> None:
    data = content(image(), "JPEG", exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff rubbish")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(decode_image(data), decode_image(content(image(), "JPEG")))


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    data = content(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (decode_image(data) == (255, 0, 0)).all()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not an image that Pillow can read"),
        (b"hello", "not an image that Pillow can read"),
        (content(image(), "JPEG")[:-500], r"damaged image \(.*truncated"),
        (content(image(), "PNG")[:-500], r"damaged image \("),
    ],
)
def test_damaged_files(data: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    with pytest.raises(ImageFileError, match=rf"photo\.jpg: {reason}"):
        decode_image(path)
    with pytest.raises(ImageFileError, match=f"^image: {reason}"):
        decode_image(data)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageFileError, match=r"none\.jpg: no such image file"):
        open_image(tmp_path / "none.jpg")
    with pytest.raises(ImageFileError, match="directory"):
        open_image(tmp_path)


def test_decompression_bombs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageFileError, match=r"image: refused, .*2400 pixels"):
        decode_image(content(image(), "PNG"))


@given(
    kind=st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "ICO"]),
    seed=st.integers(0, 10_000),
)
def test_damage_of_any_sort_is_one_error(kind: str, seed: int) -> None:
    """Whatever Pillow makes of rubbish: pixels, or the one exception."""
    rng = np.random.default_rng(seed)
    data = bytearray(content(image(30, 20), kind))
    for place in rng.integers(0, len(data), rng.integers(1, 20)):
        data[place] = rng.integers(0, 256)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            pixels = decode_image(bytes(data[: rng.integers(1, len(data) + 1)]))
        except ImageFileError:
            return
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3


JPEGS: dict[str, dict[str, Any]] = {
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2},
    "progressive": {"progressive": True},
    "coarse": {"quality": 5},
    "fine": {"quality": 100},
    "red, green and blue": {"keep_rgb": True},
    "upright by its notes": {"exif": exif(1)},
}


@pytest.mark.parametrize("channels", ["RGB", "L"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("kind", JPEGS)
def test_turbo_and_pillow_decode_the_same(
    kind: str, mode: str, channels: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    turbo = pytest.importorskip("simplejpeg")
    data = content(image(61, 43).convert(mode), "JPEG", **JPEGS[kind])
    calls = []
    monkeypatch.setattr(
        decoding,
        "_turbo",
        lambda: calls.append(1) or turbo,  # type: ignore[func-returns-value]
    )
    quick = decode_image(data, channels)
    # Grey of a coloured file is Pillow's mean of three, not the file's own luma.
    assert len(calls) == (mode in ("L", channels))
    monkeypatch.setattr(decoding, "_turbo", lambda: None)
    np.testing.assert_array_equal(quick, decode_image(data, channels))
    assert quick.shape == (43, 61, len(channels))


@pytest.mark.parametrize("kind", ["turned", "CMYK", "PNG", "damaged"])
def test_turbo_leaves_what_is_unusual_to_pillow(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("simplejpeg")
    smooth = image(6, 4).resize((60, 40))
    data = {
        "turned": content(smooth, "JPEG", exif=exif(6)),
        "CMYK": content(smooth.convert("CMYK"), "JPEG"),
        "PNG": content(smooth, "PNG"),
        "damaged": content(smooth, "JPEG")[:-40] + b"\xff\xd9",
    }[kind]
    found = decode_image(data)
    monkeypatch.setattr(decoding, "_turbo", lambda: None)
    np.testing.assert_array_equal(found, decode_image(data))
