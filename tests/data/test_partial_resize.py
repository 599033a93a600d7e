"""A part of a resized image: Pillow's to the bit, whatever way it goes."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from keras_alexnet.data import partial_resize
from keras_alexnet.data.partial_resize import resize_part

FILTERS = [*partial_resize._SUPPORT, Image.Resampling.BOX, Image.Resampling.NEAREST]


@pytest.fixture(autouse=True)
def nothing_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial_resize, "_seen", set())
    partial_resize._is_same.cache_clear()


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


@settings(max_examples=60)
@given(data=st.data())
def test_a_part_is_that_of_the_whole(data: st.DataObject) -> None:
    height, width = (data.draw(st.integers(1, 600)) for _ in range(2))
    size = tuple(
        data.draw(st.sampled_from([64, 150, 224, 256]) | st.integers(1, 500)) for _ in "wh"
    )
    left, top = (data.draw(st.integers(0, n - 1)) for n in size)
    right, bottom = (
        data.draw(st.integers(begin + 1, n)) for begin, n in zip((left, top), size, strict=True)
    )
    box, resampling = (left, top, right, bottom), data.draw(st.sampled_from(FILTERS))
    pixels = noise(height, width)
    wanted = np.asarray(Image.fromarray(pixels).resize(size, resampling).crop(box))
    grey = Image.fromarray(pixels[..., 1])
    for _ in range(2):  # the second one of a shape may go another way
        np.testing.assert_array_equal(resize_part(pixels, size, box, resampling), wanted)
        image = Image.fromarray(pixels)
        np.testing.assert_array_equal(resize_part(image, size, box, resampling), wanted)
        found = resize_part(grey, size, box, resampling)
        np.testing.assert_array_equal(found, grey.resize(size, resampling).crop(box))


SHAPES = [((375, 500), (341, 256)), ((500, 375), (256, 341)), ((227, 227), (256, 256))]


@pytest.mark.parametrize(("old", "new"), SHAPES)
def test_usual_shapes_are_made_in_parts(
    old: tuple[int, int], new: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels, box = noise(*old), (10, 16, 234, 240)
    first = resize_part(pixels, new, box, Image.Resampling.BILINEAR)
    assert partial_resize._is_same(*partial_resize._seen)
    monkeypatch.delattr(partial_resize, "_whole")
    again = resize_part(pixels, new, box, Image.Resampling.BILINEAR)
    assert again.tobytes() == first.tobytes()


def test_parts_that_differ_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where another release of Pillow resizes in another way."""
    part = partial_resize._part
    monkeypatch.setattr(partial_resize, "_part", lambda *a: part(*a).point(lambda v: v // 2 * 2))
    pixels, box = noise(375, 500), (58, 16, 282, 240)
    wanted = Image.fromarray(pixels).resize((341, 256), Image.Resampling.BILINEAR).crop(box)
    for _ in range(2):
        found = resize_part(pixels, (341, 256), box, Image.Resampling.BILINEAR)
        assert found.tobytes() == wanted.tobytes()
