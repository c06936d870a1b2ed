"""Every Triton kernel checked and timed on a GPU: `python benchmarks/kernels.py [KERNEL…]`.

First the GPU's own rates: of a large copy, and of large matrix products. Then each kernel on all its cases against its
plain form in float64 (`kernels/exactness_torch.py`), twice, since it must repeat to the last bit. Then, on its large
cases, the time of a training's forward pass and of forward and backward: fused, plain, other libraries' where they are
installed (`kernel_rivals.py`), and plain under `torch.compile`; likewise of optimizer steps (`kernel_optimizers.py`).
Beside a time stands the share of the floor in it: the time of a copy that moves as many bytes as must be moved, or of
the products at the rate of large matrix products (float32's as three of TF32), whichever is longer.

A time is the median on the device, the level-2 cache flushed before each, launching left out (`DeviceTimer`). What
takes long is compiling, which is done by several processes before (`kernel_checks.py`): when --minutes are over, what
has not been timed is left out, and a line or a dash says so. The command ends with 1 if a kernel is wrong. --record
writes results/kernels.json, also when half of it is done.

Without a GPU, `TRITON_INTERPRET=1 python benchmarks/kernels.py --small` goes through the same: all small cases are
checked, and each kernel's first one is timed, which only shows that this program works.
"""

import math
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from time import monotonic

import click
import kernel_optimizers
import torch
from device_rates import copy_seconds, flops_per_second, host_seconds
from kernel_checks import check, check_small_at_once, chosen
from kernel_times import Rates, Row, time_compiled, timed

from timetrial.engine import provenance
from timetrial.engine.clock import utc_timestamp
from timetrial.engine.records import write_json_atomic
from timetrial.kernels.all_triton import KERNELS
from timetrial.kernels.device_time_torch import DeviceTimer, Timer

RESULTS = Path(__file__).parent / "results" / "kernels.json"
PASSES = ("forward", "both", "step")


def tell(size: str, found: tuple[int, list[str]]) -> int:
    """Print what is wrong, and how many were checked; the number of faults."""
    checked, lines = found
    for line in lines:
        click.echo(line, err=True)
    click.echo(f"{checked} {size} checked, {len(lines)} faults")
    return len(lines)


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
    """In results/kernels.json."""
    versions = {name: metadata.version(name) for name in ("torch", "triton")}
    machine = {**provenance.hardware(), **provenance.versions(), **versions, "cuda": torch.version.cuda}
    write_json_atomic(
        RESULTS,
        {
            "command": "python benchmarks/kernels.py --record",
            "date": utc_timestamp(),
            "machine": machine,
            "seconds_of_copies": rates.copies,
            "flops_per_second": rates.flops,
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
        timer, rates = host_seconds, Rates({1: 0.0}, {"tf32": math.inf})
        click.echo("Under an interpreter: no time and no share below is a figure.")
    else:
        timer = DeviceTimer()
        rates = Rates(copy_seconds(timer), flops_per_second(timer))
        flops = ", ".join(f"{rate / 1e12:.0f} in {kind}" for kind, rate in rates.flops.items())
        click.echo(
            f"{torch.cuda.get_device_name()}: {rates.copied_bytes / 1e12:.2f} TB/s copied; TFLOP/s {flops}"
        )

    def is_late() -> bool:
        return monotonic() - started > 60 * minutes

    bad = tell("small cases", check_small_at_once(names, device))
    cases = chosen(names, "large")
    if small:
        cases = ((KERNELS[name], KERNELS[name].cases[0], "float32") for name in names)
    else:
        bad += tell("large cases", check(names, "large", device))
    rows: list[Row] = []
    has_optimizers = not small and not kernels
    if has_optimizers:
        bad += tell("optimizers", kernel_optimizers.check(device))
        rows += kernel_optimizers.timed(rates, timer, device)
    for row in timed(cases, rates, timer, device):
        rows.append(row)
        if is_late():
            click.echo(f"no time is left for what comes after {row.title}", err=True)
            break
    if is_recorded:
        record(rows, rates)
    for row in sorted(rows, key=lambda row: row.kernel not in KERNELS):
        if not is_late():
            compile_it = time_compiled if row.kernel in KERNELS else kernel_optimizers.time_compiled
            compile_it(row, timer, device)
    for line in table(rows):
        click.echo(line)
    click.echo(f"{(monotonic() - started) / 60:.1f} minutes")
    if is_recorded:
        record(rows, rates)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
