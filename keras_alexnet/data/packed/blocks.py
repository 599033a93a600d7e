"""Shards in blocks of some megabytes, which are read ahead of their records."""

import os
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from keras_alexnet.data.packed.records import HEAD, TAIL
from keras_alexnet.data.packed.storage import Storage
from keras_alexnet.errors import DataError

# Bytes of a block: large enough for a network disk, small enough for many at once.
BLOCK = 4 << 20
# Blocks whose images a random order mixes. Packing has shuffled them before, so that a block holds
# a random sample.
WINDOW = 32
# Blocks in memory: those of a window, those of the next, and of one that is not through yet.
_KEPT = 3 * WINDOW
_READERS = 4


class Blocks:
    """Reads the records of shards, block by block.

    Attributes:
        of: Number of the block of each record, int64 (N,); records that lie together have the same.
    """

    def __init__(self, storage: Storage, files: list[str], rows: np.ndarray) -> None:
        self._storage, self._files, self._rows = storage, files, rows
        key = rows["shard"].astype(np.int64) << 32 | (rows["start"] // BLOCK).astype(np.int64)
        _, first, self.of = np.unique(key, return_index=True, return_inverse=True)
        ends = (rows["start"] + rows["length"] + np.uint64(HEAD + TAIL)).astype(np.int64)
        self._begins = rows["start"][first].astype(np.int64)
        self._ends = np.maximum.reduceat(ends, first) if len(first) else first
        self._shards = rows["shard"][first]
        self._kept: OrderedDict[int, Future[bytes]] = OrderedDict()
        self._next: dict[int, list[int]] = {}
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def expect(self, records: np.ndarray) -> None:
        """Take note of the order in which records are going to be read."""
        blocks, first = np.unique(self.of[records], return_index=True)
        order = blocks[np.argsort(first)].tolist()
        with self._lock:
            # Whoever reads a block for the first time has the one behind the next window read.
            self._next = {
                block: order[place + 1 : place + 1 + WINDOW] for place, block in enumerate(order)
            }

    def record(self, number: int) -> memoryview:
        """Return a record of a shard, with its head and its tail.

        Raises:
            DataError: Its shard is missing or cannot be read.
        """
        row, block = self._rows[number], int(self.of[number])
        try:
            content = self._block(block).result()
        except DataError:
            with self._lock:
                self._kept.pop(block, None)  # the next one that asks for it may find it
            raise
        begin = int(row["start"]) - int(self._begins[block])
        return memoryview(content)[begin : begin + HEAD + int(row["length"]) + TAIL]

    def _block(self, block: int) -> "Future[bytes]":
        with self._lock:
            wanted = self._wanted(block)
            for other in self._next.pop(block, ()):
                self._wanted(other)
            self._kept.move_to_end(block)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            return wanted

    def _wanted(self, block: int) -> "Future[bytes]":
        found = self._kept.get(block)
        if found is None:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(min(_READERS, os.cpu_count() or 1))
            found = self._kept[block] = self._pool.submit(self._read, block)
        return found

    def _read(self, block: int) -> bytes:
        file = self._files[self._shards[block]]
        return self._storage.read(file, int(self._begins[block]), int(self._ends[block]))
