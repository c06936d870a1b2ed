"""Which option of each choice (`choice.py`) is fastest on a GPU, found by timing all of them on the large cases."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from triton.errors import TritonError

from timetrial.kernels.choice import Choice, Option
from timetrial.kernels.device_time_torch import Timer, passes
from timetrial.kernels.exactness_torch import exactness, made
from timetrial.kernels.kernel import Case, Kernel

LEAST_GAIN = 1.02  # over the first option, below which it stays: noise would choose
DTYPES = {4: "float32", 2: "bfloat16"}  # by the size of an element


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One choice for elements of one size."""

    choice: Choice
    element_size: int  # bytes
    seconds: dict[Option, float]  # geometric means over the cases; infinite for what is in `failures`
    failures: dict[Option, str]  # why an option does not run here, or what it gets wrong

    @property
    def fastest(self) -> Option:
        """The one to take."""
        first = self.choice.options[self.element_size][0]
        best = min(self.seconds, key=lambda option: self.seconds[option])
        return best if self.seconds[best] * LEAST_GAIN < self.seconds[first] else first


def tried(
    kernel: Kernel, timer: Timer, device: torch.device, size: Literal["small", "large"] = "large"
) -> Iterator[Tried]:
    """All choices of a kernel; an option that does not run here, or is not as exact as it must be, is not taken."""
    cases = [case for case in kernel.cases if case.size == size]
    checked = next(case for case in kernel.cases if case.size == ("moderate" if size == "large" else size))
    for choice in kernel.choices:
        for element_size, options in choice.options.items():
            dtype = DTYPES[element_size]
            seconds = dict.fromkeys(options, math.inf)
            failures: dict[Option, str] = {}
            for option in options:
                with choice.trying(element_size, option):
                    try:
                        for found in exactness(kernel, made(checked, dtype, device), dtype):
                            if not found.is_good:
                                failures.setdefault(option, f"{found.what} is off by {found.error:.3g}")
                        times = [_time(kernel, choice, case, dtype, timer, device) for case in cases]
                    except (RuntimeError, TritonError) as error:  # of torch and the driver, or no room for it
                        failures[option] = f"{type(error).__name__}: {error}"
                if option not in failures:
                    seconds[option] = math.prod(times) ** (1 / len(times))
            yield Tried(choice=choice, element_size=element_size, seconds=seconds, failures=failures)


def _time(
    kernel: Kernel, choice: Choice, case: Case, dtype: str, timer: Timer, device: torch.device
) -> float:
    return timer(passes(kernel.fused, made(case, dtype, device))[choice.passes])
