"""One epoch of image files as a dataset, for a process that sees a part of each batch."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_alexnet.data.batches.file_epoch import FileEpoch
from keras_alexnet.data.batches.file_loader import FileLoader
from keras_alexnet.data.batches.plan import Plan
from keras_alexnet.data.batches.tensorflow_host import finished, python_step


class FileShares(FileEpoch):
    """The shares that a process has of the batches of one plan."""

    def __init__(self, source: FileLoader, plan: Plan) -> None:
        super().__init__(source, plan)
        settings = source.settings
        begins = settings.begins(plan)
        shares = [
            settings.shard.share(min(settings.batch_size, len(plan) - begin)) for begin in begins
        ]
        starts = zip(begins, shares, strict=True)
        nothing = np.zeros(0, np.int64)
        self._slots = np.concatenate([nothing, *(begin + where for begin, (where, _) in starts)])
        self._weights = np.concatenate([np.zeros(0, np.float32), *(w for _, w in shares)])
        # All shares but the last are of this size.
        self._size = len(shares[0][0]) if shares else 1

    def position(self, batches: int) -> int:
        """Return the position behind so many batches."""
        return self._source.settings.position(self._plan, batches)

    def dataset(self, tf: Any) -> Any:
        """Return the shares as a `tf.data.Dataset` of inputs, labels and weights."""
        source = self._source

        def batch(number: Any, positions: Any, images: Any, readable: Any) -> tuple[Any, ...]:
            colours, labels, weights = python_step(
                tf,
                self._settle_share,
                [number, positions, readable],
                ((None, source.colours), "float32"),
                ((None,), "int32"),
                ((None,), "float32"),
            )
            return source.recolour(tf, images, colours), labels, weights

        batches = self._images(tf).batch(self._size).enumerate()
        batches = batches.map(lambda number, share: (number, *share))
        # One after the other, as they note what is skipped.
        return finished(tf, batches.map(batch), self)

    def _decoded(self, tf: Any, files: Any, image: Callable[..., tuple[Any, ...]]) -> Any:
        """Return the images of files, a black one where TensorFlow's decoder fails."""
        black = np.zeros(self._source.image_shape, np.uint8)

        def one(position: Any, *others: Any) -> Any:
            file = tf.data.Dataset.from_tensors((position, *others))
            stand_in = tf.data.Dataset.from_tensors((position, black, False))
            return file.map(image).ignore_errors().concatenate(stand_in).take(1)

        threads = os.cpu_count()
        return files.interleave(
            one, cycle_length=threads, num_parallel_calls=threads, deterministic=True
        )

    def _settle_share(
        self, number: np.ndarray, positions: np.ndarray, readable: np.ndarray
    ) -> list[np.ndarray]:
        """Note who cannot be read; return colours, labels and weights."""
        source, plan = self._source, self._plan
        begin = int(number) * self._size
        weights = self._weights[begin : begin + len(positions)] * readable
        for index in plan.order[positions[~readable]]:
            source.skip(index)
        labels = source.examples.labels[plan.order[positions]]
        return [plan.draws.colours[positions], labels.astype(np.int32), weights]
