"""Examples per second of processor time: what `loading.py` and `decoding.py` report."""

from collections.abc import Iterator
from time import process_time
from typing import Any

LEAST_SECONDS = 5.0  # of processor time that is measured for


def rate(batches: Iterator[Any], batch_size: int) -> float:
    """Of batches so large, all threads counted, after a first one that pays for opening or compiling."""
    next(batches)
    count, started = 0, process_time()
    while process_time() - started < LEAST_SECONDS:
        next(batches)
        count += 1
    return count * batch_size / (process_time() - started)
