"""Work that threads do ahead of whoever needs its results."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_END: Any = object()

# Items that a thread does before it hands them over, which wakes the other threads.
GROUP = 8


def ahead(
    function: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item], *, count: int
) -> Iterator[Result]:
    """Yield the result of each item, in their order, while threads do the next `count`.

    The function takes some items at a time, and returns as many results.
    """
    threads = os.cpu_count() or 1
    pool = ThreadPoolExecutor(threads)
    pending: deque[Future[Sequence[Result]]] = deque()
    try:
        for begin in range(0, len(items), GROUP):
            pending.append(pool.submit(function, items[begin : begin + GROUP]))
            if len(pending) >= count / GROUP + threads:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def in_background(results: Iterator[Result], count: int) -> Iterator[Result]:
    """Yield results that another thread asks for, up to `count` of them ahead."""
    pool = ThreadPoolExecutor(1)
    pending = deque(pool.submit(next, results, _END) for _ in range(count))
    try:
        while (result := pending.popleft().result()) is not _END:
            pending.append(pool.submit(next, results, _END))
            yield result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
