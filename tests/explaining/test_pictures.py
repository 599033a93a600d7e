"""Pictures: which number becomes which colour, and where it is."""

import numpy as np

from keras_alexnet import heat_overlay, signed_overlay
from keras_alexnet.explaining.pictures import contrasted, tiles


def test_heat_is_red_where_it_is_most_and_blue_where_it_is_none() -> None:
    photo = np.full((40, 60, 3), 128, np.uint8)
    heat = np.zeros((4, 6), np.float32)
    heat[1, 4] = 7
    got = heat_overlay(photo, heat).astype(int)
    assert got.shape == photo.shape
    redness = got[..., 0] - got[..., 2]
    row, column = np.unravel_index(redness.argmax(), redness.shape)
    assert (row // 10, column // 10) == (1, 4)
    assert redness[35, 5] < 0
    # The scale is the map's own.
    np.testing.assert_array_equal(got, heat_overlay(photo, 1000 * heat))
    assert len(np.unique(heat_overlay(photo, 0 * heat).reshape(-1, 3), axis=0)) == 1


def test_signs_are_colours_and_zero_is_the_photo() -> None:
    grey = np.zeros((10, 10, 1), np.uint8)
    heat = np.zeros((10, 10))
    heat[:, 0], heat[:, 9] = 3, -3
    got = signed_overlay(grey, heat).astype(int)
    assert got.shape == (10, 10, 3)
    assert (got[:, 0, 0] > got[:, 0, 2]).all()
    assert (got[:, 9, 0] < got[:, 9, 2]).all()
    assert (got[:, 1:9] == 160).all()
    assert (signed_overlay(grey, 0 * heat) == 160).all()


def test_tiles_stand_in_order_and_are_enlarged_by_squares() -> None:
    pictures = np.arange(5)[:, None, None, None] / 4 * np.ones((1, 2, 2, 1))
    got = tiles(pictures, width=10)
    # Four in a line of 4 * 2 + 3 pixels, a line of grey between two lines.
    assert got.shape == (5, 11, 3)
    assert [got[0, 3 * n, 0] for n in range(4)] == [0, 64, 128, 191]
    assert got[3, 0, 0] == 255
    assert (got[2] == got[0, 2]).all()
    assert tiles(pictures, width=12).shape == (10, 22, 3)


def test_maps_are_stretched_one_by_one() -> None:
    maps = np.array([[[-1.0, 1.0]], [[5.0, 5.0]], [[0.0, 4.0]]])
    np.testing.assert_array_equal(contrasted(maps)[..., 0], [[[0, 1]], [[0, 0]], [[0, 1]]])
