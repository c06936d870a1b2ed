"""How long kernels take beside what else computes the same, and their floor."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import click
import numpy as np
import torch
from kernel_checks import compiled
from kernel_rivals import rivals

from timetrial.kernels.all_triton import KERNELS
from timetrial.kernels.device_time_torch import Timer, passes
from timetrial.kernels.exactness_torch import copies, made
from timetrial.kernels.kernel import Arguments, Case, Cost, Function, Kernel


@dataclass(frozen=True)
class Rates:
    """What a device can do."""

    copies: dict[int, float]  # bytes read and written to seconds
    flops: dict[str, float]  # a second

    @property
    def copied_bytes(self) -> float:
        """A second, in the largest copy."""
        largest = max(self.copies)
        return largest / self.copies[largest]

    def floor(self, cost: Cost, dtype: str) -> float:
        """Seconds of a copy that moves as many bytes, or of the products, whichever takes longer.

        float32 is exact on the matrix units as three products of TF32.
        """
        sizes, seconds = zip(*sorted(self.copies.items()), strict=True)
        copy = float(np.interp(cost.bytes_moved, sizes, seconds))
        if cost.bytes_moved > sizes[-1]:
            copy = seconds[-1] * cost.bytes_moved / sizes[-1]
        rate = self.flops["tf32"] / 3 if dtype == "float32" else self.flops[dtype]
        return max(copy, cost.flops / rate)


@dataclass
class Row:
    """One large case in one dtype."""

    kernel: str
    case: str
    dtype: str
    floor: dict[str, float]  # seconds of each pass: forward, both, or step
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)  # of each form, of each pass

    @property
    def title(self) -> str:
        return f"{self.kernel}, {self.case}, {self.dtype}"


def timed(
    cases: Iterable[tuple[Kernel, Case, str]], rates: Rates, timer: Timer, device: torch.device
) -> Iterator[Row]:
    """Fused, plain and rivals; nothing compiled."""
    for kernel, case, dtype in cases:
        arguments = made(case, dtype, device)
        forward, backward = kernel.forward_cost(*arguments), kernel.backward_cost(*arguments)
        floor = {"forward": rates.floor(forward, dtype)}
        floor["both"] = floor["forward"] + rates.floor(backward, dtype)
        row = Row(kernel.name, case.name, dtype, floor)
        forms = {"fused": kernel.fused, "plain": kernel.reference} | rivals(kernel.name, arguments)
        for form, function in forms.items():
            _time_form(row, form, function, arguments, timer)
        yield row


def time_compiled(row: Row, timer: Timer, device: torch.device) -> None:
    """Add the plain form under `torch.compile` to a row."""
    kernel = KERNELS[row.kernel]
    case = next(case for case in kernel.cases if case.name == row.case)
    _time_form(row, "compiled", compiled(kernel, device), made(case, row.dtype, device), timer)


@contextmanager
def going_on(row: Row, form: str) -> Iterator[None]:
    """A form that fails, by whatever its library or the driver raise, is told of, and the others go on."""
    try:
        yield
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        click.echo(f"  {row.title}: {form} failed: {type(error).__name__}: {reason}", err=True)


def _time_form(row: Row, form: str, function: Function, arguments: Arguments, timer: Timer) -> None:
    with going_on(row, form):
        calls = passes(function, copies(arguments))
        row.seconds[form] = {which: timer(call) for which, call in calls.items()}
