"""The formulas, on functions whose answers are known."""

import numpy as np
import pytest

from keras_alexnet.explaining.attribution import (
    even_batches,
    grad_cam,
    integrated_gradients,
    occlusion,
)
from keras_alexnet.explaining.neighbours import nearest


def test_grad_cam_weighs_maps_by_their_mean_gradient() -> None:
    maps = np.array([[[[1, 2], [3, 4]]]], np.float32)  # (1, 1, 2, 2)
    gradients = np.array([[[[4, -1], [0, -3]]]], np.float32)  # means 2 and -2
    np.testing.assert_array_equal(grad_cam(maps, gradients), [[[0, 0]]])
    np.testing.assert_array_equal(grad_cam(maps, -gradients), [[[2, 2]]])


def test_batches_are_few_and_of_one_size() -> None:
    for count, most in ((1, 16), (16, 16), (17, 16), (50, 16), (7, 1), (170, 16)):
        number, size = even_batches(count, most)
        assert size <= most
        assert (number - 1) * size < count <= number * size
        assert number == -(-count // most)


def test_grad_cam_of_several_classes_is_that_of_each() -> None:
    rng = np.random.default_rng(0)
    maps, gradients = rng.normal(size=(2, 1, 4, 5, 3)), rng.normal(size=(2, 6, 4, 5, 3))
    got = grad_cam(maps, gradients)
    assert got.shape == (2, 6, 4, 5)
    for label in range(6):
        np.testing.assert_array_equal(got[:, label], grad_cam(maps[:, 0], gradients[:, label]))


@pytest.mark.parametrize(("steps", "batch_size"), [(2, 2), (5, 2), (50, 16)])
def test_integrated_gradients_of_a_cube_are_exact(steps: int, batch_size: int) -> None:
    """As quadratures of two points and more are for its gradient, a parabola."""
    x, baseline = np.array([2.0, -1.0]), np.array([0.5, 1.0])
    sizes = set()

    def gradient(line: np.ndarray) -> np.ndarray:  # of the sum of cubes, and of its double
        sizes.add(len(line))
        return np.stack([3 * line**2, 6 * line**2], axis=1)

    got = integrated_gradients(gradient, x, baseline, steps=steps, batch_size=batch_size)
    wanted = x**3 - baseline**3
    np.testing.assert_allclose(got, [wanted, 2 * wanted], rtol=1e-6)
    assert len(sizes) == 1  # for each of which a backend compiles
    assert sizes.pop() <= batch_size


def test_occlusion_of_a_sum_is_what_the_squares_hide() -> None:
    image = np.zeros((4, 6, 1), np.float32)
    image[1, 3] = 5
    seen = []

    def score(images: np.ndarray) -> np.ndarray:
        seen.append(images)
        return images.sum(axis=(1, 2, 3))[:, None] * [1, -2]

    got = occlusion(score, image, np.zeros(1), window=2, stride=2, batch_size=4)
    wanted = np.zeros((4, 6))
    wanted[:2, 2:4] = 5
    np.testing.assert_array_equal(got, [wanted, -2 * wanted])
    # The whole image and 2 x 3 squares for both scores, and one to fill the batch.
    assert [batch.shape for batch in seen] == [(4, 4, 6, 1)] * 2


def test_occlusion_covers_the_edge_and_averages_where_squares_overlap() -> None:
    image = np.arange(5, dtype=np.float32)[None, :, None].repeat(3, axis=0)

    def of_sums(image: np.ndarray) -> np.ndarray:
        return occlusion(
            lambda images: images.sum(axis=(1, 2, 3))[:, None],
            *(image, np.zeros(1)),
            window=3,
            stride=2,
            batch_size=8,
        )[0]

    got = of_sums(image)
    left, right = 3 * (0 + 1 + 2), 3 * (2 + 3 + 4)
    middle = (left + right) / 2
    np.testing.assert_allclose(got, [[left, left, middle, right, right]] * 3)
    np.testing.assert_allclose(of_sums(image[:, :4])[0], [9, 9, (9 + 15) / 2, 15])


def test_the_nearest_of_a_made_up_set() -> None:
    among = np.array([[0, 0], [3, 4], [0, 1], [10, 0], [3, 4]], np.float32)
    indices, distances = nearest(np.array([[0, 0], [3, 3]], np.float32), among, 3)
    np.testing.assert_array_equal(indices, [[0, 2, 1], [1, 4, 2]])
    np.testing.assert_allclose(distances, [[0, 1, 5], [1, 1, 13**0.5]])
    assert nearest(among[:1], among, 99)[0].shape == (1, 5)
