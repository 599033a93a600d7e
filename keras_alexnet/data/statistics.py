"""Mean, deviation and principal colours of training images, in one streaming pass each.

All pixels count the same, so large files weigh more than small ones. Results are kept in
`statistics-<key>.json` below a folder for caches, where the key stands for the very images.
"""

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from keras_alexnet.core.files import atomic_output
from keras_alexnet.data.decoding import Channels
from keras_alexnet.data.examples import Arrays, Examples, Files, Stored
from keras_alexnet.errors import ConfigurationError, DataError, ImageFileError

OnBad = Callable[[Path, str], None]

# Images of one size that are held at once. Files may be large, so they are fewer.
_CHUNK = 256


def channel_statistics(
    examples: Examples,
    cache: Path | None = None,
    *,
    channels: Channels = "RGB",
    on_bad: OnBad | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the standard deviation of each channel over all pixels.

    The folder `cache` keeps the result, and is made if it is missing. `on_bad` is called with the
    path and the reason for each file that cannot be read and is left out; a result from the cache
    reads no files.

    Returns:
        float64 (C,) each, of values scaled to 0..1.

    Raises:
        DataError: No file can be read.
    """

    def compute() -> tuple[np.ndarray, np.ndarray]:
        histogram: Any = 0  # (C, 256): exact, however many pixels there are
        for image in _images(examples, channels, on_bad):
            pixels = image.reshape(-1, image.shape[-1]).T  # (C, pixels)
            histogram = histogram + np.stack([np.bincount(c, minlength=256) for c in pixels])
        return moments(histogram)

    return _cached(cache, examples, f"{channels} channels", compute)


def moments(histogram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the standard deviation of pixels, float64 (C,), scaled to 0..1.

    The histogram (C, 256) counts the pixels by their values; of no pixels both are NaN.
    """
    values = np.arange(256) / 255
    with np.errstate(invalid="ignore"):
        share = histogram / histogram.sum(axis=1, keepdims=True)
    mean = share @ values  # (C,)
    return mean, np.sqrt((share * (values - mean[:, None]) ** 2).sum(axis=1))


def colour_components(
    examples: Examples,
    cache: Path | None = None,
    *,
    sample: int = 10_000,
    seed: int = 0,
    on_bad: OnBad | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the principal components of RGB values (Krizhevsky et al. 2012, section 4.1).

    They are those of `sample` images, or of all where there are fewer; `seed` decides which. For
    `cache` and `on_bad` see `channel_statistics`.

    Returns:
        float64 eigenvalues (3,), descending, and eigenvectors (3, 3), one a column, of the
        covariance of values scaled to 0..1. The red part of an eigenvector is positive.

    Raises:
        DataError: No file can be read.
        ConfigurationError: The images are grey.
    """
    if isinstance(examples, Arrays) and examples.images.shape[-1] != 3:
        raise ConfigurationError("grey images have no principal colours; set pca to 0")

    def compute() -> tuple[np.ndarray, np.ndarray]:
        chosen = np.arange(len(examples))
        if sample < len(examples):
            rng = np.random.default_rng(seed)
            chosen = np.sort(rng.choice(len(examples), sample, replace=False))
        count, total, products = 0, np.zeros(3), np.zeros((3, 3))
        for image in _images(examples.subset(chosen), "RGB", on_bad):
            pixels = image.reshape(-1, 3).astype(np.float64)  # whole numbers: the sums are exact
            count += len(pixels)
            total += pixels.sum(axis=0)
            products += pixels.T @ pixels
        mean = total / count
        values, vectors = np.linalg.eigh((products / count - np.outer(mean, mean)) / 255**2)
        values, vectors = values[::-1], vectors[:, ::-1]
        return values, vectors * np.where(vectors[0] < 0, -1, 1)

    return _cached(cache, examples, f"colours of {sample} images, seed {seed}", compute)


def _images(examples: Examples, channels: Channels, on_bad: OnBad | None) -> Iterator[np.ndarray]:
    """Yield uint8 arrays (..., C), the images one by one or some at once."""
    if isinstance(examples, Arrays):
        for start in range(0, len(examples), _CHUNK):
            yield examples.images[start : start + _CHUNK]
        return
    read = functools.partial(_read, examples, channels=channels)
    found = False
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as threads:
        for start in range(0, len(examples), 2 * workers):
            chosen = range(start, min(start + 2 * workers, len(examples)))
            for index, image in zip(chosen, threads.map(read, chosen), strict=True):
                if isinstance(image, np.ndarray):
                    found = True
                    yield image
                elif on_bad is not None:
                    on_bad(examples.place(index), image)
    if not found:
        raise DataError(
            f"none of the {len(examples)} image files can be read; the first: "
            f"{examples.place(0)}: {read(0)}"
        )


def _read(examples: Stored, index: int, channels: Channels) -> np.ndarray | str:
    """Return the pixels of an image, or why there are none."""
    try:
        return examples.pixels(index, channels)
    except ImageFileError as error:
        return error.reason


def _cached(
    folder: Path | None,
    examples: Examples,
    name: str,
    compute: Callable[[], tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """Return what `compute` returns, or what it returned for the same images before."""
    if folder is None:
        return compute()
    path = folder / f"statistics-{_key(examples)[:16]}.json"
    known: Any = None
    # A damaged file counts as a missing one.
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(path.read_text())
    known = known if isinstance(known, dict) else {}
    with contextlib.suppress(KeyError, TypeError, ValueError):
        first, second = (np.array(values, np.float64) for values in known[name])
        if all(a.size and np.isfinite(a).all() for a in (first, second)):
            return first, second
    arrays = compute()
    # Where nothing can be kept, the next run computes again.
    with contextlib.suppress(OSError, ConfigurationError):
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_output(path) as temporary:
            temporary.write_text(json.dumps(known | {name: [a.tolist() for a in arrays]}))
    return arrays


def _key(examples: Examples) -> str:
    """Return a SHA-256 of the images, in their order.

    Files are told apart by place, size and time of change, as reading them all takes as long as
    the statistics. A missing one has neither size nor time.
    """
    digest = hashlib.sha256()
    if isinstance(examples, Arrays):
        digest.update(f"{examples.images.shape}".encode())
        digest.update(np.ascontiguousarray(examples.images).data)
        return digest.hexdigest()
    if not isinstance(examples, Files):
        return hashlib.sha256(examples.identity()).hexdigest()
    for path in examples.paths:
        digest.update(f"{path.absolute()}\n".encode())
        with contextlib.suppress(OSError):
            found = path.stat()
            digest.update(f"{found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()
