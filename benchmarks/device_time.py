"""How long an operation keeps a GPU busy, how fast the GPU copies and multiplies; all in seconds."""

import math
import statistics
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

import torch

FLUSH_BYTES = 256 * 2**20  # written before each repeat: five times the level-2 cache of an H100
HOST_CALLS = 5
LEAST_REPEATS, MOST_REPEATS, LIMIT_SECONDS = 5, 100, 0.1
COPIED_BYTES = tuple(2**power for power in range(12, 31, 2))
MATRIX_SIZE = 8_192

Call = Callable[[], Any]
Timer = Callable[[Call], float]


class DeviceTimer:
    """The median time between two events around a call, on the current CUDA device, with cold level-2 cache.

    The flushes before each repeat last longer than the host takes to queue the call, so that the device never waits
    for it inside what is measured: the time to launch is not in it.
    """

    def __init__(self) -> None:
        self._flushed = torch.empty(FLUSH_BYTES, dtype=torch.int8, device="cuda")
        self._flush_seconds = self._median(lambda: self._flushed.zero_(), flushes=1, repeats=10)

    def __call__(self, call: Call) -> float:
        """Seconds; up to `LIMIT_SECONDS` are spent on it, and at least five repeats."""
        for _ in range(2):  # the first may compile
            call()
            torch.cuda.synchronize()
        slowest = 0.0  # of the host, which does something else too now and then
        for _ in range(HOST_CALLS):
            started = perf_counter()
            call()
            slowest = max(slowest, perf_counter() - started)
            torch.cuda.synchronize()
        flushes = 1 + math.ceil(slowest / self._flush_seconds)
        one = self._median(call, flushes, repeats=1) + flushes * self._flush_seconds
        repeats = min(max(int(LIMIT_SECONDS / one), LEAST_REPEATS), MOST_REPEATS)
        return self._median(call, flushes, repeats)

    def _median(self, call: Call, flushes: int, repeats: int) -> float:
        pairs = []
        for _ in range(repeats):
            for _ in range(flushes):
                self._flushed.zero_()
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            call()
            end.record()
            pairs.append((begin, end))
        torch.cuda.synchronize()
        return statistics.median(begin.elapsed_time(end) for begin, end in pairs) / 1e3


def host_seconds(call: Call) -> float:
    """Of one call on a CPU, after another: no figure, but a sign of life."""
    call()
    started = perf_counter()
    call()
    return perf_counter() - started


def copy_seconds(timer: DeviceTimer) -> dict[int, float]:
    """Of copies on the device, by the bytes that they move: read and written."""
    seconds = {}
    for half in COPIED_BYTES:
        source = torch.empty(half, dtype=torch.int8, device="cuda")
        target = torch.empty_like(source)
        seconds[2 * half] = timer(partial(target.copy_, source))
    return seconds


def flops_per_second(timer: DeviceTimer) -> dict[str, float]:
    """Of a large matrix product: bfloat16, float16, float32 by TF32 ("tf32") and float32 itself ("float32")."""
    kinds = {"bfloat16": "highest", "float16": "highest", "tf32": "high", "float32": "highest"}
    rates = {}
    before = torch.get_float32_matmul_precision()
    for kind, precision in kinds.items():
        dtype = getattr(torch, kind, torch.float32)
        left, right = (torch.randn(2, MATRIX_SIZE, MATRIX_SIZE, device="cuda") / 100).to(dtype)
        torch.set_float32_matmul_precision(precision)
        rates[kind] = 2 * MATRIX_SIZE**3 / timer(lambda a=left, b=right: a @ b)
    torch.set_float32_matmul_precision(before)
    return rates
