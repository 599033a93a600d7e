"""The formulas, on functions whose answers are known."""

import numpy as np
import pytest

from keras_alexnet.explaining.attribution import grad_cam, integrated_gradients, occlusion
from keras_alexnet.explaining.neighbours import nearest


def test_grad_cam_weighs_maps_by_their_mean_gradient() -> None:
    maps = np.array([[[[1, 2], [3, 4]]]], np.float32)  # (1, 1, 2, 2)
    gradients = np.array([[[[4, -1], [0, -3]]]], np.float32)  # means 2 and -2
    np.testing.assert_array_equal(grad_cam(maps, gradients), [[[0, 0]]])
    np.testing.assert_array_equal(grad_cam(maps, -gradients), [[[2, 2]]])


@pytest.mark.parametrize("steps", [2, 5, 50])
def test_integrated_gradients_of_a_cube_are_exact(steps: int) -> None:
    """As quadratures of two points and more are for its gradient, a parabola."""
    x, baseline = np.array([2.0, -1.0]), np.array([0.5, 1.0])
    got = integrated_gradients(lambda line: 3 * line**2, x, baseline, steps=steps)
    np.testing.assert_allclose(got, x**3 - baseline**3, rtol=1e-6)


def test_occlusion_of_a_sum_is_what_the_squares_hide() -> None:
    image = np.zeros((4, 6, 1), np.float32)
    image[1, 3] = 5
    seen = []

    def score(images: np.ndarray) -> np.ndarray:
        seen.append(images)
        return images.sum(axis=(1, 2, 3))

    got = occlusion(score, image, np.zeros(1), window=2, stride=2)
    wanted = np.zeros((4, 6))
    wanted[:2, 2:4] = 5
    np.testing.assert_array_equal(got, wanted)
    assert seen[0].shape == (1 + 2 * 3, 4, 6, 1)


def test_occlusion_covers_the_edge_and_averages_where_squares_overlap() -> None:
    image = np.arange(5, dtype=np.float32)[None, :, None].repeat(3, axis=0)
    got = occlusion(
        lambda images: images.sum(axis=(1, 2, 3)), image, np.zeros(1), window=3, stride=2
    )
    left, right = 3 * (0 + 1 + 2), 3 * (2 + 3 + 4)
    middle = (left + right) / 2
    np.testing.assert_allclose(got, [[left, left, middle, right, right]] * 3)
    cut = occlusion(
        lambda images: images.sum(axis=(1, 2, 3)), image[:, :4], np.zeros(1), window=3, stride=2
    )
    np.testing.assert_allclose(cut[0], [9, 9, (9 + 15) / 2, 15])


def test_the_nearest_of_a_made_up_set() -> None:
    among = np.array([[0, 0], [3, 4], [0, 1], [10, 0], [3, 4]], np.float32)
    indices, distances = nearest(np.array([[0, 0], [3, 3]], np.float32), among, 3)
    np.testing.assert_array_equal(indices, [[0, 2, 1], [1, 4, 2]])
    np.testing.assert_allclose(distances, [[0, 1, 5], [1, 1, 13**0.5]])
    assert nearest(among[:1], among, 99)[0].shape == (1, 5)
