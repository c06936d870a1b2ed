"""How long an operation keeps a GPU busy: without the time that the host takes to launch it."""

import statistics
from collections.abc import Callable
from typing import Any

import torch

from timetrial.kernels.kernel import Arguments, Function

FLUSH_BYTES = 256 * 2**20  # five times the level-2 cache of an H100
MOST_FLUSHES = 64
LEAST_REPEATS, MOST_REPEATS, LIMIT_SECONDS = 5, 100, 0.1

Call = Callable[[], Any]
Timer = Callable[[Call], float]


class DeviceTimer:
    """The median time between two events around a call, on the current CUDA device, with cold level-2 cache.

    Before each repeat the device overwrites memory, which empties the cache and keeps it busy while the host queues the
    call. Where it has come to the first event before the host has queued all, the repeat would tell of the host: it
    does not count, and from then on memory is overwritten twice as often. A call that waits for the device itself is
    always late, and is timed with its launches in the end.
    """

    def __init__(self) -> None:
        self._flushed = torch.empty(FLUSH_BYTES, dtype=torch.int8, device="cuda")

    def __call__(self, call: Call) -> float:
        """Seconds; the device is busy for about `LIMIT_SECONDS`, and repeats it at least five times."""
        for _ in range(2):  # the first may compile
            call()
            torch.cuda.synchronize()
        flushes, spent, seconds = 1, 0.0, list[float]()
        while len(seconds) < LEAST_REPEATS or (spent < LIMIT_SECONDS and len(seconds) < MOST_REPEATS):
            of_all, of_call, is_late = self._once(call, flushes)
            if is_late and flushes < MOST_FLUSHES:
                flushes *= 2
                continue
            spent += of_all
            seconds.append(of_call)
        return statistics.median(seconds)

    def _once(self, call: Call, flushes: int) -> tuple[float, float, bool]:
        """Seconds with the flushes and of the call alone, and whether the device had to wait for the host."""
        start, begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(3))
        start.record()
        for _ in range(flushes):
            self._flushed.zero_()
        begin.record()
        call()
        end.record()
        is_late = begin.query()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1e3, begin.elapsed_time(end) / 1e3, is_late


def passes(function: Function, arguments: Arguments) -> dict[str, Call]:
    """`forward`, with what it keeps for the backward pass, and `both`, if there is something to differentiate."""
    leaves = [a for a in arguments if isinstance(a, torch.Tensor) and a.requires_grad]

    def forward() -> list[torch.Tensor]:
        value = function(*arguments)
        return [o for o in (value if isinstance(value, tuple) else (value,)) if o.requires_grad]

    if not leaves:
        return {"forward": forward}
    above = [torch.randn_like(output) for output in forward()]
    return {
        "forward": forward,
        "both": lambda: torch.autograd.grad(forward(), leaves, above, allow_unused=True),
    }
