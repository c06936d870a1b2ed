"""Work ahead of the training loop, in threads, without changing its order."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_order(make: Callable[[T], R], items: Iterator[T], workers: int, depth: int) -> Iterator[R]:
    """`make(item)` of every item, in order; at most `depth` of them are made ahead, in `workers` threads.

    It pays where `make` releases the interpreter's lock: reading files, Fourier transforms, large copies. What
    `make` or `items` raises is raised where its result would have come. Closing the iterator ends the threads.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="prefetch")
    ahead: deque[Future[R]] = deque()
    try:
        ahead.extend(pool.submit(make, item) for item in islice(items, depth))
        while ahead:
            result = ahead.popleft().result()
            ahead.extend(pool.submit(make, item) for item in islice(items, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)
