"""What every Triton kernel compiles to, without a GPU: `python benchmarks/kernel_code.py [KERNEL…]`.

Each specialisation that a kernel lists is compiled for sm_80 (A100) and sm_90 (H100, H200). Printed are registers of a
thread, spilled stores, shared memory, loads from global memory and how many of them are of 16 bytes, and matrix
instructions; and what is wrong with it, in which case the command ends with 1. See `kernels/ahead_of_time_triton.py`.
"""

import sys

import click

from timetrial.kernels.ahead_of_time_triton import TARGETS, faults, inspect
from timetrial.kernels.all_triton import KERNELS


@click.command()
@click.argument("kernels", nargs=-1, type=click.Choice(list(KERNELS)))
def main(kernels: tuple[str, ...]) -> None:
    """Compile KERNELS, or all."""
    click.echo(
        f"{'kernel':58}{'target':>7}{'regs':>6}{'spills':>8}{'shared':>9}{'loads':>7}{'of 16 B':>9}{'matrix':>8}"
    )
    has_faults = False
    for name in kernels or KERNELS:
        for launch in KERNELS[name].launches:
            types = next(iter(launch.signature.values()))
            constants = " ".join(f"{key}={value}" for key, value in launch.constants.items())
            title = f"{name}{launch.function.__name__} {types} {constants}"
            for target in TARGETS:
                report = inspect(launch, target)
                click.echo(
                    f"{title:58}{target:>7}{report.registers:6}{report.spills:8}{report.shared_bytes:9}"
                    f"{report.loads:7}{report.wide_loads:9}{report.matrix_instructions:8}"
                )
                for fault in faults(launch, report):
                    has_faults = True
                    click.echo(f"  {title} on {target}: {fault}", err=True)
    sys.exit(1 if has_faults else 0)


if __name__ == "__main__":
    main()
