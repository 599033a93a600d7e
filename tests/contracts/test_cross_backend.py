"""A `.keras` file written on one backend gives the same logits on the two others."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from keras_alexnet.core.backend import BACKENDS
from porting import write_checkpoint
from porting.tolerances import TOLERANCES
from porting.torch_side.seeded import seeded_state_dict

# `test_prediction.test_backends_agree` reads one file on all backends in less time.
pytestmark = pytest.mark.slow

WRITE = """
import sys
from porting import convert
source, output = sys.argv[1:]
convert("alexnet_bn_cifar100", source, output, include_preprocessing=True, input_size=(99, 83))
"""

# Keras alone: the child fails if it can import this project.
READ = """
import sys
import numpy as np, keras
images, output, *files = sys.argv[1:]
images = np.load(images)
for file in files:
    model = keras.saving.load_model(file)
    np.save(f"{output}-{file.rpartition('-')[2]}.npy", model.predict(images, verbose=0))
assert not {"keras_alexnet", "porting"} & set(sys.modules)
"""


@pytest.fixture(scope="module")
def logits(
    tmp_path_factory: pytest.TempPathFactory, run_python: Callable[..., Any]
) -> dict[tuple[str, str], np.ndarray]:
    """(Writing backend, reading backend) -> logits of three noise images."""
    folder = tmp_path_factory.mktemp("cross")
    weights, images = folder / "weights.safetensors", folder / "images.npy"
    write_checkpoint(
        weights, seeded_state_dict("alexnet_bn_cifar100", seed=5, classes=11, size=(99, 83))
    )
    rng = np.random.default_rng(0)
    np.save(images, rng.integers(0, 256, (3, 99, 83, 3), dtype=np.uint8))
    files = {backend: folder / f"written-{backend}" for backend in BACKENDS}
    for backend, file in files.items():
        run_python(WRITE, weights, file.with_suffix(".keras"), KERAS_BACKEND=backend)
    for backend in BACKENDS:
        paths = [file.with_suffix(".keras") for file in files.values()]
        arguments = images, folder / backend, *paths
        run_python(READ, *arguments, on_path=False, KERAS_BACKEND=backend)
    return {
        (writer, reader): np.load(folder / f"{reader}-{writer}.keras.npy")
        for writer in BACKENDS
        for reader in BACKENDS
    }


@pytest.mark.parametrize("reader", BACKENDS)
@pytest.mark.parametrize("writer", BACKENDS)
def test_written_here_read_there(
    logits: dict[tuple[str, str], np.ndarray], writer: str, reader: str
) -> None:
    own, other = logits[writer, writer], logits[writer, reader]
    assert own.shape == (3, 11)
    assert np.ptp(own, axis=0).max() > 0.01 * np.abs(own).max()
    gap = np.abs(own - other).max() / np.abs(own).max()
    assert gap <= TOLERANCES["logits"].limit


def test_the_writer_leaves_no_trace_in_the_logits(
    logits: dict[tuple[str, str], np.ndarray],
) -> None:
    for reader in BACKENDS:
        first = logits[BACKENDS[0], reader]
        assert all(np.array_equal(first, logits[writer, reader]) for writer in BACKENDS)
