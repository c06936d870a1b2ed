"""How fast a GPU copies and multiplies, in seconds; and the time of a call on a CPU, which stands in for one."""

from functools import partial
from time import perf_counter

import torch

from timetrial.kernels.device_time_torch import Call, Timer

COPIED_BYTES = tuple(2**power for power in range(12, 31, 2))
MATRIX_SIZE = 8_192


def host_seconds(call: Call) -> float:
    """Of one call on a CPU, after another: no figure, but a sign of life."""
    call()
    started = perf_counter()
    call()
    return perf_counter() - started


def copy_seconds(timer: Timer) -> dict[int, float]:
    """Of copies on the device, by the bytes that they move: read and written."""
    seconds = {}
    for half in COPIED_BYTES:
        source = torch.empty(half, dtype=torch.int8, device="cuda")
        target = torch.empty_like(source)
        seconds[2 * half] = timer(partial(target.copy_, source))
    return seconds


def flops_per_second(timer: Timer) -> dict[str, float]:
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
