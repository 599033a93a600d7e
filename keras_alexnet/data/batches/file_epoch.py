"""One epoch of image files as a dataset: who is loaded how, who is missing, where batches end."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_alexnet.data.augmentation.cropping import crop_jpeg
from keras_alexnet.data.augmentation.draws import crop_geometry
from keras_alexnet.data.batches.file_loader import FileLoader
from keras_alexnet.data.batches.plan import Plan
from keras_alexnet.data.batches.tensorflow_host import finished, python_step

# Files whose headers are read, and whose boxes are computed, at once.
_BLOCK = 64
# Blocks of headers under way: on a slow disk they wait more than they work.
_BLOCKS_AHEAD = 4

_END_OF_IMAGE = b"\xff\xd9"


class FileEpoch:
    """The batches of one plan."""

    def __init__(self, source: FileLoader, plan: Plan) -> None:
        self._source, self._plan = source, plan
        # Positions in the order in which they are loaded.
        self._slots = np.arange(plan.start, len(plan))
        self._ends: list[int] = []

    def position(self, batches: int) -> int:
        """Return the position behind so many batches, which were made already."""
        return self._ends[batches - 1] if batches else self._plan.start

    def dataset(self, tf: Any) -> Any:
        """Return the batches as a `tf.data.Dataset`."""
        source = self._source
        images = self._images(tf).filter(lambda position, image, readable: readable)
        images = images.batch(source.settings.batch_size, source.settings.drop_remainder)
        images = images.map(lambda positions, images, readable: (positions, images))

        # An empty batch marks the end. Each is held back until the next one is known, since what
        # follows the last one counts as done.
        nothing = (np.zeros(0, np.int64), np.zeros((0, *source.image_shape), np.uint8))
        marked = images.concatenate(tf.data.Dataset.from_tensors(nothing))
        held = marked.scan(nothing, lambda before, now: (now, (*before, now[0]))).skip(1)

        def batch(positions: Any, images: Any, following: Any) -> tuple[dict[str, Any], Any]:
            colours, labels = python_step(
                tf,
                self._settle,
                [positions, following],
                ((None, source.colours), "float32"),
                ((None,), "int32"),
            )
            return source.recolour(tf, images, colours), labels

        # One after the other, as `_settle` counts them.
        return finished(tf, held.map(batch), self)

    def _images(self, tf: Any) -> Any:
        """Return a dataset of int64 position, uint8 image, and whether it is one of use.

        Those that TensorFlow cannot decode are missing, or not, as `_decoded` says.
        """
        source, size = self._source, self._source.settings.size
        threads = os.cpu_count()

        def by_pillow(position: Any) -> list[Any]:
            results = (source.image_shape, "uint8"), ((), "bool")
            return python_step(tf, self._crop, [position], *results)

        def image(position: Any, path: Any, geometry: Any, plain: Any) -> tuple[Any, ...]:
            def by_tensorflow() -> list[Any]:
                contents = tf.io.read_file(path)
                box, flip = tf.cast(geometry[:4], "int32"), geometry[4] > 0.5
                # A JPEG that does not end as it should may be cut off below the box: Pillow tells.
                return tf.cond(
                    tf.strings.substr(contents, -2, 2) == _END_OF_IMAGE,
                    lambda: [crop_jpeg(tf, contents, box, flip, size), tf.constant(True)],
                    lambda: by_pillow(position),
                )

            return position, *tf.cond(plain, by_tensorflow, lambda: by_pillow(position))

        def block(begin: Any) -> tuple[Any, ...]:
            shapes = (None,), (None,), (None, 5), (None,)
            results = zip(shapes, ("int64", "string", "float32", "bool"), strict=True)
            return tuple(python_step(tf, self._block, [begin], *results))

        if source.fuses:
            files = tf.data.Dataset.range(0, len(self._slots), _BLOCK)
            files = files.map(block, num_parallel_calls=_BLOCKS_AHEAD).unbatch()
            return self._decoded(tf, files, image)
        return tf.data.Dataset.from_tensor_slices(self._slots).map(
            lambda position: (position, *by_pillow(position)), num_parallel_calls=threads
        )

    def _decoded(self, tf: Any, files: Any, image: Callable[..., tuple[Any, ...]]) -> Any:
        """Return the images of files, without those at which TensorFlow's decoder fails."""
        # It has no other way to say that it cannot.
        return files.map(image, num_parallel_calls=os.cpu_count()).ignore_errors()

    def _crop(self, position: np.ndarray) -> tuple[np.ndarray, np.bool_]:
        return self._source.crop(self._plan, int(position))

    def _block(self, begin: np.ndarray) -> list[np.ndarray]:
        """Return position, path, geometry (n, 5) and whether it is a plain JPEG of some files.

        The geometry is that of the plain ones; others must be decoded to know their size.
        """
        source, plan = self._source, self._plan
        positions = self._slots[int(begin) : int(begin) + _BLOCK]
        indices = plan.order[positions]
        sizes = source.plain_sizes(indices)
        plain = sizes[:, 0] > 0
        heights, widths = np.where(plain[:, None], sizes, 1).T
        geometry = crop_geometry(
            source.settings.augmentation,
            plan.draws.take(positions),
            heights,
            widths,
            source.settings.size,
        )
        paths = [os.fsencode(source.examples.paths[index]) for index in indices]
        return [positions, np.array(paths, object), geometry, plain]

    def _settle(self, positions: np.ndarray, following: np.ndarray) -> list[np.ndarray]:
        """Note where a batch ends and who is missing from it; return colours and labels."""
        source, plan = self._source, self._plan
        begin, end = self._ends[-1] if self._ends else plan.start, int(positions[-1]) + 1
        missing = np.setdiff1d(np.arange(begin, end), positions)
        if not len(following):
            if not source.settings.drop_remainder:  # else usable ones are dropped too
                missing = np.concatenate([missing, np.arange(end, len(plan))])
            end = len(plan)
        for index in plan.order[missing]:
            source.skip(index)
        self._ends.append(end)
        labels = source.examples.labels[plan.order[positions]]
        return [plan.draws.colours[positions], labels.astype(np.int32)]
