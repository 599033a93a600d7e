"""Preprocessing against torchvision's own presets, bit for bit."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from keras_alexnet import GoogLeNet, feature_extractor
from keras_alexnet.data.decoding import open_image
from keras_alexnet.data.preprocessing import (
    IMAGENET,
    TRANSFORM_INPUT_OFFSET,
    TRANSFORM_INPUT_SCALE,
    Preprocessing,
    load_images,
    normalize,
    resize_and_crop,
)
from keras_alexnet.errors import ConfigurationError, ImageFileError
from porting.checks.inputs import sample_photos
from porting.torch_side import torchvision_zoo

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")
functional = torchvision.transforms.functional

PRESETS = {
    "alexnet": torchvision.models.AlexNet_Weights.IMAGENET1K_V1.transforms(),
    "googlenet": torchvision.models.GoogLeNet_Weights.IMAGENET1K_V1.transforms(),
}
EACH = pytest.mark.parametrize("name", PRESETS)
PHOTOS = sample_photos()
needs_photos = pytest.mark.skipif(not PHOTOS, reason="scikit-learn's sample photos are missing")


def _image(width: int, height: int, seed: int = 0) -> Image.Image:
    """Noise on a gradient: every pixel counts, and shifts by one pixel show."""
    rng = np.random.default_rng([seed, width, height])
    gradient = np.add.outer(np.arange(height) * 2, np.arange(width) * 3)[..., None] % 200
    noise = rng.integers(0, 56, (height, width, 3))
    return Image.fromarray((gradient + noise).astype(np.uint8))


def _torchvision_pixels(image: Any, preset: Any) -> np.ndarray:
    """The preset's resize and crop, before its conversion to float, as (H, W, 3)."""
    resized = functional.resize(
        image, preset.resize_size, interpolation=preset.interpolation, antialias=preset.antialias
    )
    return np.asarray(functional.center_crop(resized, preset.crop_size))


def _steps(a: np.ndarray, b: np.ndarray) -> int:
    assert a.dtype == b.dtype == np.uint8
    return int(np.abs(a.astype(int) - b).max())


# Resizing and cropping


@EACH
def test_constants_are_torchvisions(name: str) -> None:
    preset = PRESETS[name]
    assert [IMAGENET.resize_size] == preset.resize_size
    assert list(IMAGENET.crop_size) == preset.crop_size * 2
    assert list(IMAGENET.mean) == preset.mean
    assert list(IMAGENET.std) == preset.std
    assert preset.interpolation is functional.InterpolationMode.BILINEAR
    assert preset.antialias


def _cropped(image: Image.Image, preprocessing: Preprocessing = IMAGENET) -> np.ndarray:
    """Return what the first image of a shape becomes, and later ones, and arrays."""
    first, *later = (
        resize_and_crop(each, preprocessing) for each in (image, image, np.asarray(image))
    )
    for pixels in later:
        np.testing.assert_array_equal(pixels, first)
    return first


@given(width=st.integers(8, 400), height=st.integers(8, 400))
def test_resize_and_crop_is_bit_exact(width: int, height: int) -> None:
    """Landscape, portrait and square, larger and smaller than the crop."""
    image = _image(width, height)
    got = _cropped(image)
    assert got.shape == (224, 224, 3)
    assert _steps(got, _torchvision_pixels(image, PRESETS["alexnet"])) == 0


@pytest.mark.parametrize(
    ("width", "height"),
    [
        *((256, 256), (256, 300), (300, 256), (255, 257), (257, 511), (225, 224), (512, 384)),
        *((640, 427), (427, 640), (1001, 333), (333, 1001), (2000, 257), (2, 13), (1, 1)),
    ],
)
@EACH
def test_resize_and_crop_at_notable_sizes(name: str, width: int, height: int) -> None:
    image = _image(width, height, seed=1)
    assert _steps(_cropped(image), _torchvision_pixels(image, PRESETS[name])) == 0


@settings(max_examples=40)
@given(
    width=st.integers(4, 90),
    height=st.integers(4, 90),
    resize=st.integers(3, 60),
    crop=st.tuples(st.integers(1, 70), st.integers(1, 70)),
)
def test_other_sizes_with_margins(
    width: int, height: int, resize: int, crop: tuple[int, int]
) -> None:
    """Where the crop is larger than the resized image, torchvision adds black margins."""
    preprocessing = Preprocessing(resize_size=resize, crop_size=crop)
    preset = torchvision_zoo.transforms("alexnet", preprocessing)
    image = _image(width, height, seed=2)
    got = _cropped(image, preprocessing)
    assert got.shape == (*crop, 3)
    assert _steps(got, _torchvision_pixels(image, preset)) == 0


@needs_photos
@EACH
def test_photos_are_bit_exact(name: str) -> None:
    for path in PHOTOS:
        image = open_image(path)
        pixels = resize_and_crop(image)
        assert _steps(pixels, _torchvision_pixels(image, PRESETS[name])) == 0, path.name
        wanted = PRESETS[name](image).permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(normalize(pixels), wanted, err_msg=path.name)


def test_real_photos_are_bit_exact(shared_data: Path) -> None:
    paths = sorted((shared_data / "imagenet_val300").rglob("*.JPEG"))[:20]
    if not paths:
        pytest.skip(f"no photos in {shared_data / 'imagenet_val300'}")
    pixels = load_images(paths)
    assert pixels.shape == (len(paths), 224, 224, 3)
    for path, got in zip(paths, pixels, strict=True):
        with Image.open(path) as image:
            wanted = _torchvision_pixels(image.convert("RGB"), PRESETS["googlenet"])
        assert _steps(got, wanted) == 0, path.name


@needs_photos
def test_tensors_differ_from_images_by_one_step_at_most() -> None:
    """Torchvision resizes tensors with code of its own, which rounds otherwise than Pillow.

    Bit-exactness therefore holds for the PIL images that torchvision's references feed; who gives
    torchvision uint8 tensors gets other pixels than who gives it images, by one step of 255.
    """
    for path in PHOTOS:
        image = open_image(path)
        preset = PRESETS["alexnet"]
        resized = functional.resize(
            functional.pil_to_tensor(image), preset.resize_size, antialias=preset.antialias
        )
        cropped = functional.center_crop(resized, preset.crop_size).permute(1, 2, 0).numpy()
        assert _steps(resize_and_crop(image), cropped) <= 1


def test_comparison_sees_a_missing_antialias() -> None:
    """The bit-exactness above is no accident of images that any resize treats alike."""
    image = _image(640, 427)
    plain = functional.resize(functional.pil_to_tensor(image), [256], antialias=False)
    cropped = functional.center_crop(plain, [224]).permute(1, 2, 0).numpy()
    assert _steps(resize_and_crop(image), cropped) > 10


def test_arrays_are_images() -> None:
    image = _image(300, 200)
    np.testing.assert_array_equal(resize_and_crop(np.asarray(image)), resize_and_crop(image))


@pytest.mark.parametrize(
    ("size", "resize_size"),
    [((224, 224), 256), ((227, 227), 259), ((193, 251), 287), ((251, 193), 287), ((63, 63), 72)],
)
def test_at_size(size: tuple[int, int], resize_size: int) -> None:
    record = IMAGENET.at_size(*size)
    assert record == Preprocessing(resize_size, size)
    assert resize_and_crop(_image(320, 240), record).shape == (*size, 3)


def test_at_size_keeps_statistics_and_margin() -> None:
    own = Preprocessing(100, (100, 80), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    assert own.at_size(40, 50) == Preprocessing(50, (40, 50), own.mean, own.std)
    assert IMAGENET.at_size(*IMAGENET.crop_size) == IMAGENET


@given(height=st.integers(15, 300), width=st.integers(15, 300))
def test_crops_at_any_size_need_no_margin(height: int, width: int) -> None:
    """The resized short side covers the crop, so that no black border reaches the network."""
    assert IMAGENET.at_size(height, width).resize_size >= max(height, width)


# Normalisation


def _every_value() -> np.ndarray:
    """All 256 values in all three channels, uint8 (1, 16, 16, 3)."""
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    return np.stack([ramp, ramp[::-1], ramp.T], axis=-1)[None]


@EACH
def test_normalize_is_bit_exact(name: str) -> None:
    pixels = _every_value()
    tensor = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())
    converted = functional.convert_image_dtype(tensor, torch.float)
    preset = PRESETS[name]
    wanted = functional.normalize(converted, preset.mean, preset.std).permute(0, 2, 3, 1).numpy()
    got = normalize(pixels)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.float16])
def test_normalize_takes_any_real_dtype(dtype: Any) -> None:
    pixels = _every_value()
    np.testing.assert_array_equal(normalize(pixels.astype(dtype)), normalize(pixels))


def test_transform_input_is_bit_exact() -> None:
    net = torchvision.models.GoogLeNet(init_weights=False, aux_logits=False, transform_input=True)
    x = normalize(_every_value())
    tensor = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    wanted = net._transform_input(tensor).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(normalize(_every_value(), transform_input=True), wanted)


def test_transform_input_ends_at_one_half() -> None:
    """From ImageNet's statistics to mean and deviation .5, so that 0..255 becomes -1..1."""
    got = normalize(np.array([[0, 0, 0], [255, 255, 255]], np.uint8), transform_input=True)
    np.testing.assert_allclose(got, [[-1] * 3, [1] * 3], rtol=0, atol=1e-6)
    assert len(TRANSFORM_INPUT_SCALE) == len(TRANSFORM_INPUT_OFFSET) == 3


@pytest.mark.parametrize("transform_input", [False, True])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_layers_in_the_model_are_bit_exact(data_format: str, transform_input: bool) -> None:
    first = data_format == "channels_first"
    model = GoogLeNet(
        include_top=False,
        include_preprocessing=True,
        transform_input=transform_input,
        input_shape=(3, 16, 16) if first else (16, 16, 3),
        data_format=data_format,
    )
    layer = "transform_input" if transform_input else "preprocessing_normalize"
    pixels = _every_value()
    batch = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)) if first else pixels
    for dtype in (np.uint8, np.float32):
        got = feature_extractor(model, [layer])(batch.astype(dtype))[layer]
        array = keras.ops.convert_to_numpy(got)
        array = array.transpose(0, 2, 3, 1) if first else array
        np.testing.assert_array_equal(array, normalize(pixels, transform_input=transform_input))


def test_own_statistics() -> None:
    own = Preprocessing(mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0))
    got = normalize(np.array([255.0, 0.0, 51.0]), own)
    np.testing.assert_allclose(got, [1.0, -1.0, 0.2], rtol=1e-6, atol=0)


# Files


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1", "YCbCr"])
def test_other_modes_become_rgb(mode: str, tmp_path: Path) -> None:
    suffix = {"CMYK": ".jpg", "YCbCr": ".jpg"}.get(mode, ".png")
    path = tmp_path / f"image{suffix}"
    _image(60, 40).convert(mode).save(path)
    image = open_image(path)
    assert image.mode == "RGB"
    with Image.open(path) as stored:
        if mode != "YCbCr":  # JPEG stores RGB that way
            assert stored.mode == mode
        np.testing.assert_array_equal(np.asarray(image), np.asarray(stored.convert("RGB")))
        np.testing.assert_array_equal(resize_and_crop(stored), resize_and_crop(image))


def test_grayscale_has_three_equal_channels(tmp_path: Path) -> None:
    _image(60, 40).convert("L").save(tmp_path / "gray.png")
    pixels = np.asarray(open_image(tmp_path / "gray.png"))
    assert pixels.shape == (40, 60, 3)
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 1])
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])


def test_transparency_is_dropped(tmp_path: Path) -> None:
    image = _image(60, 40)
    image.putalpha(0)
    image.save(tmp_path / "clear.png")
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "clear.png")), _image(60, 40))


def test_palette_colours_are_looked_up(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(tmp_path / "palette.png")
    assert (np.asarray(open_image(tmp_path / "palette.png")) == (10, 20, 30)).all()


def test_load_images_stacks(tmp_path: Path) -> None:
    paths = []
    for index, size in enumerate([(60, 40), (300, 500)]):
        paths.append(tmp_path / f"{index}.png")
        _image(*size).save(paths[-1])
    batch = load_images(paths, IMAGENET.at_size(64, 96))
    assert batch.shape == (2, 64, 96, 3)
    assert batch.dtype == np.uint8
    record = IMAGENET.at_size(64, 96)
    np.testing.assert_array_equal(batch[1], resize_and_crop(_image(300, 500), record))
    np.testing.assert_array_equal(load_images(map(str, paths), record), batch)


def test_missing_image(tmp_path: Path) -> None:
    with pytest.raises(ImageFileError, match=r"none\.png: no such image file"):
        open_image(tmp_path / "none.png")


@pytest.mark.parametrize("content", [b"", b"hello, world", b"\xff\xd8\xff"])
def test_no_image(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_bytes(content)
    with pytest.raises(ImageFileError, match=r"text\.jpg: not an image that Pillow can read"):
        open_image(tmp_path / "text.jpg")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
def test_truncated_image(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"image{suffix}"
    _image(300, 200).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ImageFileError, match=rf"image\{suffix}: (damaged|not an) image"):
        open_image(path)
    with pytest.raises(ImageFileError, match=rf"image\{suffix}"):
        load_images([path])


def test_truncated_jpeg_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    _image(300, 200).save(path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ImageFileError, match=r"photo\.jpg: damaged image \(.*truncated"):
        open_image(path)


def test_folder_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(ImageFileError, match="directory"):
        open_image(tmp_path)


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros((8, 8, 3), np.float32), r"float32 of shape \(8, 8, 3\)"),
        (np.zeros((8, 8, 3), np.int64), r"int64 of shape \(8, 8, 3\)"),
        (np.zeros((8, 8), np.uint8), r"uint8 of shape \(8, 8\)"),
        (np.zeros((8, 8, 4), np.uint8), r"uint8 of shape \(8, 8, 4\)"),
        (np.zeros((3, 8, 8), np.uint8), r"uint8 of shape \(3, 8, 8\)"),
        (np.zeros((1, 8, 8, 3), np.uint8), r"uint8 of shape \(1, 8, 8, 3\)"),
        (np.zeros((0, 8, 3), np.uint8), r"uint8 of shape \(0, 8, 3\)"),
    ],
)
def test_arrays_that_are_no_image(array: np.ndarray, found: str) -> None:
    text = rf"an image array must be uint8 of shape \(height, width, 3\); got {found}"
    with pytest.raises(ConfigurationError, match=text):
        resize_and_crop(array)


@pytest.mark.parametrize(
    ("crop", "resize"), [((224, 224), 224), ((224, 224), 256), ((100, 160), 200)]
)
def test_squashed_photos_are_torchvisions(crop: tuple[int, int], resize: int) -> None:
    """Both sides are resized, as timm does for some weights."""
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (300, 411, 3), np.uint8))
    record = Preprocessing(resize, crop, interpolation="bicubic", squash=True)
    wanted = torchvision_zoo.cropped(photo, torchvision_zoo.transforms("timm's", record))
    np.testing.assert_array_equal(resize_and_crop(photo, record), np.asarray(wanted))
