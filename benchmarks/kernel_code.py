"""What every Triton kernel compiles to, without a GPU: `python benchmarks/kernel_code.py [KERNEL…]`.

Each specialisation that a kernel lists is compiled for sm_80 (A100) and sm_90 (H100, H200), as it is launched where
nothing was tuned, and with --options in every way that `timetrial tune` may choose. Printed are registers of a thread,
spilled stores, shared memory, instructions, those that load from global memory and how many of them load 16 bytes, and
those of the matrix units; and what is wrong with it, in which case the command ends with 1. See
`kernels/ahead_of_time_triton.py`.
"""

import sys
from collections.abc import Iterator

import click

from timetrial.kernels.ahead_of_time_triton import TARGETS, faults, inspect
from timetrial.kernels.all_triton import CHOICES, LAUNCHES
from timetrial.kernels.choice import most_options, trying_each_nth
from timetrial.kernels.kernel import Launch


def title(launch: Launch) -> str:
    """File, function, type of the first tensor, and constants: those that are true by name, numbers by value."""
    file = launch.function.__module__.rpartition(".")[2].removesuffix("_triton")
    element = next(iter(launch.signature.values())).removeprefix("*")
    numbers = [f"{name}={value}" for name, value in launch.constants.items() if not isinstance(value, bool)]
    truths = [name for name, value in launch.constants.items() if value is True]
    run = f"{launch.num_warps} warps, {launch.num_stages} stages"
    return f"{' '.join([f'{file}{launch.function.__name__}', element, *truths, *numbers])}, {run}"


def launches(kernels: tuple[str, ...], *, with_options: bool) -> Iterator[Launch]:
    """Each once."""
    for name in kernels:
        found: list[Launch] = []
        for n in range(most_options(CHOICES) if with_options else 1):
            with trying_each_nth(CHOICES, n):
                found += (launch for launch in LAUNCHES[name]() if launch not in found)
        yield from found


@click.command()
@click.argument("kernels", nargs=-1, type=click.Choice(list(LAUNCHES)))
@click.option("--target", "targets", multiple=True, default=tuple(TARGETS), type=click.Choice(list(TARGETS)))
@click.option("--options", "with_options", is_flag=True, help="In every way that may be chosen.")
def main(kernels: tuple[str, ...], targets: tuple[str, ...], with_options: bool) -> None:
    """Compile KERNELS, or all."""
    chosen = list(launches(kernels or tuple(LAUNCHES), with_options=with_options))
    width = max(len(title(launch)) for launch in chosen)
    click.echo(
        f"{'kernel':{width}}{'target':>7}{'regs':>6}{'spills':>8}{'shared':>9}{'instr':>7}{'loads':>7}{'of 16 B':>9}"
        f"{'matrix':>8}"
    )
    has_faults = False
    for launch in chosen:
        for target in targets:
            report = inspect(launch, target)
            click.echo(
                f"{title(launch):{width}}{target:>7}{report.registers:6}{report.spills:8}{report.shared_bytes:9}"
                f"{report.instructions:7}{report.loads:7}{report.wide_loads:9}{report.matrix_instructions:8}"
            )
            for fault in faults(launch, report):
                has_faults = True
                click.echo(f"  {title(launch)} on {target}: {fault}", err=True)
    sys.exit(1 if has_faults else 0)


if __name__ == "__main__":
    main()
