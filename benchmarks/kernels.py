"""Every Triton kernel checked and timed on a GPU: `python benchmarks/kernels.py [KERNEL…]`.

First the GPU's own rates: of a large copy, and of large matrix products. Then each kernel on all its cases against its
plain form in float64 (`kernels/exactness_torch.py`), twice, since it must repeat to the last bit. Then, on its large
cases, the time of a training's forward pass and of forward and backward: fused, plain, plain under `torch.compile`, and
other libraries' (`kernel_rivals.py`) where they are installed. Beside a time stands the share of the floor in it: the
bytes that must move at the rate of the copy, or the products at the rate of the matrix product (TF32's for float32),
whichever takes longer.

A time is the median on the device, the level-2 cache flushed before each, launching left out (`device_time.py`). What
takes long is compiling: when --minutes are over, what has not been timed is left out, and a line or a dash says so. The
command ends with 1 if a kernel is wrong. --record writes results/kernels.json.

Without a GPU, `TRITON_INTERPRET=1 python benchmarks/kernels.py --small` goes through the same: all small cases are
checked, and each kernel's first one is timed, which only shows that this program works.
"""

import math
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from time import monotonic
from typing import Literal

import click
import torch
from device_time import DeviceTimer, Timer, copied_bytes_per_second, flops_per_second, host_seconds
from kernel_rivals import rivals

from timetrial.engine import provenance
from timetrial.engine.clock import utc_timestamp
from timetrial.engine.records import write_json_atomic
from timetrial.kernels.all_triton import KERNELS
from timetrial.kernels.exactness_torch import copies, exactness, is_repeatable, made
from timetrial.kernels.kernel import Arguments, Case, Cost, Function, Kernel

RESULTS = Path(__file__).parent / "results" / "kernels.json"
PASSES = ("forward", "both")
Size = Literal["small", "large"]


@dataclass(frozen=True)
class Rates:
    """What a device does in a second."""

    copied_bytes: float
    flops: dict[str, float]

    def floor(self, cost: Cost, dtype: str) -> float:
        """The least seconds for `cost`."""
        rate = self.flops["tf32" if dtype == "float32" else dtype]
        return max(cost.bytes_moved / self.copied_bytes, cost.flops / rate)


@dataclass
class Row:
    """One large case in one dtype."""

    kernel: str
    case: str
    dtype: str
    floor: dict[str, float]  # seconds of each pass
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)  # of each form, of each pass

    @property
    def title(self) -> str:
        return f"{self.kernel}, {self.case}, {self.dtype}"


def chosen(names: tuple[str, ...], size: Size) -> Iterator[tuple[Kernel, Case, str]]:
    for name in names:
        kernel = KERNELS[name]
        for case in kernel.cases:
            if case.size == size:
                for dtype in kernel.dtypes:
                    yield kernel, case, dtype


def faults(kernel: Kernel, case: Case, dtype: str, device: torch.device) -> list[str]:
    """What is wrong with a kernel on a case."""
    arguments = made(case, dtype, device)
    if device.type == "cuda" and (why := kernel.why_not(*arguments)):
        return [f"does not apply: {why}"]
    found = [
        f"{one.what} is off by {one.error:.3g}, of {one.allowed:.3g} allowed"
        for one in exactness(kernel, arguments, dtype)
        if not one.is_good
    ]
    if not is_repeatable(kernel, arguments):
        found.append("does not repeat to the last bit")
    return found


def check(names: tuple[str, ...], size: Size, device: torch.device) -> int:
    """Print what is wrong, and how many cases went well; the number of cases that did not."""
    checked, bad = 0, 0
    for kernel, case, dtype in chosen(names, size):
        title = f"{kernel.name}, {case.name}, {dtype}"
        try:
            found = faults(kernel, case, dtype, device)
        except torch.OutOfMemoryError:
            click.echo(f"  {title}: not checked, the plain form in float64 does not fit into memory")
            continue
        except Exception as error:  # whatever Triton's compiler and the driver raise: the other cases go on
            found = [f"{type(error).__name__}: {error}"]
        finally:
            if device.type == "cuda":
                torch.cuda.empty_cache()
        checked += 1
        bad += bool(found)
        for fault in found:
            click.echo(f"  {title}: {fault}", err=True)
    click.echo(f"{checked - bad} of {checked} {size} cases are as exact as they must be")
    return bad


def time_passes(function: Function, arguments: Arguments, timer: Timer) -> dict[str, float]:
    """Seconds of the forward pass with what it keeps for the backward pass, and of both."""
    leaves = [a for a in arguments if isinstance(a, torch.Tensor) and a.requires_grad]

    def outputs() -> list[torch.Tensor]:
        value = function(*arguments)
        return [o for o in (value if isinstance(value, tuple) else (value,)) if o.requires_grad]

    found = {"forward": timer(partial(function, *arguments))}
    if leaves:
        above = [torch.randn_like(output) for output in outputs()]
        found["both"] = timer(lambda: torch.autograd.grad(outputs(), leaves, above, allow_unused=True))
    return found


def time_form(row: Row, form: str, function: Function, arguments: Arguments, timer: Timer) -> None:
    """Add a form to a row; one that fails is told of, and the others go on."""
    try:
        row.seconds[form] = time_passes(function, copies(arguments), timer)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        click.echo(f"  {row.title}: {form} failed: {type(error).__name__}: {reason}", err=True)


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
            time_form(row, form, function, arguments, timer)
        yield row


def time_compiled(row: Row, timer: Timer, device: torch.device) -> None:
    """Add the plain form under `torch.compile` to a row."""
    kernel = KERNELS[row.kernel]
    case = next(case for case in kernel.cases if case.name == row.case)
    torch._dynamo.reset()
    backend = "inductor" if device.type == "cuda" else "aot_eager"
    compiled = torch.compile(kernel.reference, fullgraph=True, dynamic=False, backend=backend)
    time_form(row, "compiled", compiled, made(case, row.dtype, device), timer)


def table(rows: list[Row]) -> Iterator[str]:
    """Microseconds, and per cent of the floor in them."""
    forms = list(
        dict.fromkeys(["fused", "plain", "compiled", *(form for row in rows for form in row.seconds)])
    )
    width = max(len(row.title) for row in rows)
    yield f"{'microseconds (per cent of the floor)':{width + 9}}{'floor':>10}" + "".join(
        f"{f:>16}" for f in forms
    )
    for row in rows:
        for which in PASSES:
            cells = []
            for form in forms:
                seconds = row.seconds.get(form, {}).get(which)
                share = f"({100 * row.floor[which] / seconds:.0f})" if seconds else ""
                cells.append(f"{seconds * 1e6:10.1f}{share:>6}" if seconds else f"{'-':>16}")
            if any(which in seconds for seconds in row.seconds.values()):
                yield f"{row.title:{width}} {which:8}{row.floor[which] * 1e6:10.1f}" + "".join(cells)


def record(rows: list[Row], rates: Rates) -> None:
    versions = {name: metadata.version(name) for name in ("torch", "triton")}
    machine = {**provenance.hardware(), **provenance.versions(), **versions, "cuda": torch.version.cuda}
    write_json_atomic(
        RESULTS,
        {
            "command": "python benchmarks/kernels.py --record",
            "date": utc_timestamp(),
            "machine": machine,
            "per_second": asdict(rates),
            "rows": [asdict(row) for row in rows],
        },
    )


@click.command()
@click.argument("kernels", nargs=-1, type=click.Choice(list(KERNELS)))
@click.option("--small", is_flag=True, help="Small cases under Triton's interpreter, on the CPU.")
@click.option("--minutes", default=7.0, show_default=True, help="After these, nothing more is timed.")
@click.option("--record", "is_recorded", is_flag=True, help="Write results/kernels.json.")
def main(kernels: tuple[str, ...], small: bool, minutes: float, is_recorded: bool) -> None:
    """Check and time KERNELS, or all."""
    started: float = monotonic()
    names = kernels or tuple(KERNELS)
    if small and (os.environ.get("TRITON_INTERPRET") != "1" or is_recorded):
        raise click.UsageError("--small needs TRITON_INTERPRET=1 in the environment, and is not recorded")
    if not small and not torch.cuda.is_available():
        raise click.ClickException("there is no GPU here: with TRITON_INTERPRET=1, --small does without")
    device = torch.device("cpu" if small else "cuda")
    timer: Timer
    if small:
        timer, rates = host_seconds, Rates(math.inf, {"tf32": math.inf})
        click.echo("Under an interpreter: no time and no share below is a figure.")
    else:
        timer = DeviceTimer()
        rates = Rates(copied_bytes_per_second(timer), flops_per_second(timer))
        flops = ", ".join(f"{rate / 1e12:.0f} in {kind}" for kind, rate in rates.flops.items())
        click.echo(
            f"{torch.cuda.get_device_name()}: {rates.copied_bytes / 1e12:.2f} TB/s copied; TFLOP/s {flops}"
        )
    bad = check(names, "small", device)
    if not small:
        bad += check(names, "large", device)
    cases = chosen(names, "large")
    if small:
        cases = ((KERNELS[name], KERNELS[name].cases[0], "float32") for name in names)
    rows = []
    for row in timed(cases, rates, timer, device):
        rows.append(row)
        if monotonic() - started > 60 * minutes:
            click.echo(f"no time is left for what comes after {row.title}", err=True)
            break
    for row in rows:
        if monotonic() - started < 60 * minutes:
            time_compiled(row, timer, device)
    for line in table(rows):
        click.echo(line)
    click.echo(f"{(monotonic() - started) / 60:.1f} minutes")
    if is_recorded:
        record(rows, rates)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
