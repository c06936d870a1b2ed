"""Whether kernels are as exact as they must be, found out in several processes at once.

What takes long is compiling, and compilers keep what they made on disk: processes that check kernels also compile what
is to be timed, so that the one that times finds it there.
"""

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from typing import Literal
from unittest import mock

import click
import torch

from timetrial.kernels.all_triton import KERNELS
from timetrial.kernels.exactness_torch import copies, exactness, is_repeatable, made, results
from timetrial.kernels.kernel import Case, Function, Kernel

Size = Literal["small", "large"]
# Most large cases in their plain form; others may have to be compiled later.
GPU_BYTES_A_PROCESS = 20 * 2**30


def chosen(
    names: tuple[str, ...], size: Size, only_dtype: str | None = None
) -> Iterator[tuple[Kernel, Case, str]]:
    """Cases of a size and dtypes of kernels."""
    for name in names:
        kernel = KERNELS[name]
        for case in kernel.cases:
            if case.size == size:
                for dtype in kernel.dtypes:
                    if only_dtype in (None, dtype):
                        yield kernel, case, dtype


def compiled(kernel: Kernel, device: torch.device) -> Function:
    """The plain form under `torch.compile`, for one shape."""
    torch._dynamo.reset()
    backend = "inductor" if device.type == "cuda" else "aot_eager"
    function: Function = torch.compile(kernel.reference, fullgraph=True, dynamic=False, backend=backend)
    return function


def check(
    names: tuple[str, ...], size: Size, device: torch.device, only_dtype: str | None = None
) -> tuple[int, list[str]]:
    """How many cases were checked, and a line for each thing that is wrong."""
    checked, lines = 0, []
    for kernel, case, dtype in chosen(names, size, only_dtype):
        title = f"{kernel.name}, {case.name}, {dtype}"
        try:
            found = _faults(kernel, case, dtype, device)
        except torch.OutOfMemoryError:
            click.echo(
                f"  {title}: not checked, the plain form in float64 does not fit into memory", err=True
            )
            continue
        except Exception as error:  # whatever Triton's compiler and the driver raise: the other cases go on
            found = [f"{type(error).__name__}: {error}"]
        finally:
            if device.type == "cuda":
                torch.cuda.empty_cache()
        checked += 1
        lines += [f"  {title}: {fault}" for fault in found]
    return checked, lines


def check_small_at_once(names: tuple[str, ...], device: torch.device) -> tuple[int, list[str]]:
    """As `check`, of small cases; on a GPU, what is to be timed is compiled too."""
    workers = os.cpu_count() or 1
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
        workers = max(min(workers, memory // GPU_BYTES_A_PROCESS), 1)
    spawn = multiprocessing.get_context("spawn")
    # A pool of compiling threads for each of the processes would be more than there are processors.
    with (
        mock.patch.dict(os.environ, TORCHINDUCTOR_COMPILE_THREADS="1"),
        ProcessPoolExecutor(workers, mp_context=spawn) as pool,
    ):
        tasks = [(name, device, dtype) for name in names for dtype in KERNELS[name].dtypes]
        found = list(pool.map(_check_small, *zip(*tasks, strict=True)))
    return sum(checked for checked, _ in found), [line for _, lines in found for line in lines]


def _check_small(name: str, device: torch.device, dtype: str) -> tuple[int, list[str]]:
    found = check((name,), "small", device, dtype)
    if device.type == "cuda":
        for kernel, case, _ in chosen((name,), "large", dtype):
            for form in (kernel.fused, compiled(kernel, device)):
                with suppress(Exception):  # told of when it is timed
                    results(form, made(case, dtype, device))
                torch.cuda.empty_cache()
    return found


def _faults(kernel: Kernel, case: Case, dtype: str, device: torch.device) -> list[str]:
    """What is wrong with a kernel on a case."""
    arguments = made(case, dtype, device)
    if case.size == "large" and (why := kernel.why_not(*arguments)):
        return [f"does not apply: {why}"]
    found = [
        f"{one.what} is off by {one.error:.3g}, of {one.allowed:.3g} allowed"
        for one in exactness(kernel, arguments, dtype)
        if not one.is_good
    ]
    if not is_repeatable(kernel, copies(arguments)):
        found.append("does not repeat to the last bit")
    return found
