"""`timetrial tune`: find out how kernels run fastest on this machine's GPU, and keep it for later races."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from timetrial.engine.errors import UsageError

if TYPE_CHECKING:
    from timetrial.kernels.choice import Option
    from timetrial.kernels.tuning_torch import Tried


@click.command(name="tune")
@click.argument("kernels", nargs=-1)
def command(kernels: tuple[str, ...]) -> None:
    """Time the few ways in which each of KERNELS, or of all, can be launched, and keep the fastest.

    What is kept belongs to this kind of GPU and this version of Triton. Races on it launch kernels so from then on, and
    say so in trial.json; before, they launch them as was chosen on an H200. It takes some minutes, in which nothing
    else should use the GPU. Races that are compared should run with the same.

    \b
    Examples:
      timetrial tune
      timetrial tune softmax_cross_entropy masked_batch_norm
    """
    try:
        import torch

        if not torch.cuda.is_available():
            raise UsageError("there is no NVIDIA GPU here that torch can use, so there is nothing to tune")
        from timetrial.kernels.all_triton import KERNELS
    except ModuleNotFoundError as error:
        raise UsageError(
            f"kernels need torch and Triton ({error.name} is missing): pip install 'timetrial[torch]'"
        ) from error
    from timetrial.engine.cli.places import kernels_folder
    from timetrial.kernels.choice import file_of_this_gpu
    from timetrial.kernels.device_time_torch import DeviceTimer
    from timetrial.kernels.tuning_torch import tried

    for name in kernels:
        if name not in KERNELS:
            raise UsageError(f"there is no kernel {name!r}; there are {', '.join(KERNELS)}")
    path = file_of_this_gpu(kernels_folder())
    timer, device, is_sound = DeviceTimer(), torch.device("cuda"), True
    for kernel in [KERNELS[name] for name in kernels or KERNELS]:
        for found in tried(kernel, timer, device):
            show(found)
            if found.fastest in found.failures:  # none works, and the first would be taken all the same
                is_sound = False
            else:
                keep(found, path)
        torch.cuda.empty_cache()
    if path.exists():
        click.echo(f"kept in {path}")
    if not is_sound:
        raise UsageError(
            "kernels of which no option works here are named above, and nothing was kept of them"
        )


def show(found: "Tried") -> None:
    """What was tried, the fastest first, and what failed."""
    title = f"{found.choice.name}, {found.element_size} bytes"
    times = "; ".join(
        f"{_words(option)} {seconds * 1e6:.1f}"
        for option, seconds in sorted(found.seconds.items(), key=lambda item: item[1])
        if option not in found.failures
    )
    if times:
        click.echo(f"{title:38} takes {_words(found.fastest)} (microseconds: {times})")
    for option, why in found.failures.items():
        click.echo(f"  {title}: {_words(option)} failed: {' '.join(why.split())}", err=True)


def keep(found: "Tried", path: Path) -> None:
    """In the file, beside what was kept of other choices; a damaged file begins anew."""
    from timetrial.engine.records import write_json_atomic
    from timetrial.kernels.choice import KeptFile, read

    kept = KeptFile(options={})
    if path.exists():
        with contextlib.suppress(ValueError):
            kept.options = read(path)
    kept.options.setdefault(found.choice.name, {})[str(found.element_size)] = list(found.fastest)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomic(path, kept)


def _words(option: "Option") -> str:
    return " ".join(map(str, option))
