"""Mean and variance of the frames that are no padding, column by column.

    m_c = sum_r k_r x_rc / n,    v_c = sum_r k_r (x_rc - m_c)^2 / n,    n = max(sum_r k_r, 1)

of frames x (R, C) and a mask k (R,) that is 0 for padding and else counts as 1. A program sees frames of its own. Each
of its threads' places sums frames up, and their squares, less the first of its own, so that little cancels where a mean
is far from 0. These are joined (Chan, Golub and LeVeque 1983) over a program's places, then over all programs, as what
is left of the first frame of all. In float32, always in the same order.

Bytes: x once. What `masked_batch_norm_triton.py` begins with, and where it has its tiles from.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from timetrial.kernels.choice import Choice
from timetrial.kernels.kernel import (
    MOST_WARPS,
    MULTIPROCESSORS,
    Launch,
    most_registers,
    power_of_two,
    warps,
)

# Of a pass that sums: values that a program sums up together, programs of a multiprocessor, all of which find room at
# once, tiles whose loads are under way together, and stages: with several, the next tiles are copied to shared memory
# meanwhile. Three programs of bfloat16, not four, leave registers for four loads at once: by arithmetic, not yet timed.
SUMS = Choice(
    kernel="masked_batch_norm",
    launch="sums",
    passes="both",
    options={
        4: ((2_048, 4, 2, 1), (1_024, 6, 2, 1), (2_048, 3, 1, 4)),
        2: ((2_048, 3, 4, 1), (2_048, 4, 4, 1), (2_048, 4, 1, 4)),
    },
)
WIDEST = {4: 64, 2: 128}  # columns of a tile, by the size of an element: 256 bytes
PARTS, PART_VALUES = (
    128,
    2_048,
)  # sums of programs that are joined together, of so many columns that there are as many


@triton.jit
def columns_of_block(width, BLOCK: tl.constexpr):
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    return column, column < width


@triton.jit
def which_count(mask, tile, rows, ROWS: tl.constexpr):
    """Which frames of a tile are no padding."""
    row = tile * ROWS + tl.arange(0, ROWS)
    return tl.load(mask + row, mask=row < rows, other=0) != 0


@triton.jit
def places(tile, column, width, ROWS: tl.constexpr):
    row = tile * ROWS + tl.arange(0, ROWS)
    return row.to(tl.int64)[:, None] * width + column[None, :]


@triton.jit
def read_frames(x, mask, tile, column, exists, rows, width, ROWS: tl.constexpr):
    """A tile's frames that count, which rows these are, and which places."""
    counts = which_count(mask, tile, rows, ROWS)
    inside = counts[:, None] & exists[None, :]
    at = places(tile, column, width, ROWS)
    return tl.load(x + at, mask=inside, other=0.0).to(tl.float32), counts, inside


@triton.jit
def _origin(x, mask, rows, column, exists):
    """What means are told from: the first frame, or 0 where that is padding."""
    return tl.load(x + column, mask=which_count(mask, 0, rows, 1) & exists, other=0.0).to(tl.float32)


@triton.jit
def _moments(
    x, mask, numbers, means, squares, rows, width, num_programs,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, UNROLL: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Of a program's frames: how many there are, their mean, and the sum of their squared differences from it."""
    program = tl.program_id(0)
    column, exists = columns_of_block(width, BLOCK)
    origin = _origin(x, mask, rows, column, exists)[None, :]
    # Of the first tile, and of the second where that is padding.
    near, _, is_near = read_frames(x, mask, program, column, exists, rows, width, ROWS)
    second = program + num_programs
    other, _, is_other = read_frames(x, mask, second, column, exists, rows, width, ROWS)
    near = tl.where(is_near, near, tl.where(is_other, other, origin))
    number = tl.zeros((ROWS,), tl.float32)
    total, square = tl.zeros((ROWS, BLOCK), tl.float32), tl.zeros((ROWS, BLOCK), tl.float32)
    for tile in tl.range(
        program, tl.cdiv(rows, ROWS), num_programs, loop_unroll_factor=UNROLL, num_stages=STAGES
    ):
        value, counts, inside = read_frames(x, mask, tile, column, exists, rows, width, ROWS)
        number += counts.to(tl.float32)
        away = tl.where(inside, value - near, 0.0)
        total += away
        square += away * away
    left = total / tl.maximum(number, 1.0)[:, None]
    square -= total * left
    square = tl.where(square < 0, 0.0, square)
    mean = near - origin + left
    number_of_all = tl.sum(number, 0)
    joined = tl.sum(number[:, None] * mean, 0) / tl.maximum(number_of_all, 1.0)
    away = mean - joined[None, :]
    square = tl.sum(square + number[:, None] * away * away, 0)
    tl.store(means + program * width + column, joined, mask=exists)
    tl.store(squares + program * width + column, square, mask=exists)
    tl.store(numbers + program, number_of_all, mask=tl.program_id(1) == 0)


@triton.jit
def _parts(some, num_programs, width, column, exists, PARTS: tl.constexpr):
    part = some + tl.arange(0, PARTS)
    return part, part[:, None] * width + column[None, :], (part < num_programs)[:, None] & exists[None, :]


@triton.jit
def _join(
    x, mask, numbers, means, squares, number, mean, variance, rows, width, num_programs,
    PARTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Those of all programs in one: once to know the mean, once for what is away from it."""
    column, exists = columns_of_block(width, BLOCK)
    count, total = tl.zeros((PARTS,), tl.float32), tl.zeros((PARTS, BLOCK), tl.float32)
    for some in range(0, num_programs, PARTS):
        part, at, inside = _parts(some, num_programs, width, column, exists, PARTS)
        n = tl.load(numbers + part, mask=part < num_programs, other=0.0)
        count += n
        total += n[:, None] * tl.load(means + at, mask=inside, other=0.0)
    divisor = tl.maximum(tl.sum(count, 0), 1.0)
    joined = tl.sum(total, 0) / divisor
    total = tl.zeros((PARTS, BLOCK), tl.float32)
    for some in range(0, num_programs, PARTS):
        part, at, inside = _parts(some, num_programs, width, column, exists, PARTS)
        n = tl.load(numbers + part, mask=part < num_programs, other=0.0)
        away = tl.load(means + at, mask=inside, other=0.0) - joined[None, :]
        total += tl.load(squares + at, mask=inside, other=0.0) + n[:, None] * away * away
    tl.store(mean + column, _origin(x, mask, rows, column, exists) + joined, mask=exists)
    tl.store(variance + column, tl.sum(total, 0) / divisor, mask=exists)
    tl.store(number, divisor, mask=tl.program_id(1) == 0)


def tile_of(width: int, values: int, together: int, element_size: int) -> dict[str, int]:
    """Rows and columns of what one program looks at together, and how it runs beside others on a multiprocessor."""
    block = min(power_of_two(width), WIDEST[element_size])
    run = {"num_warps": MOST_WARPS, "maxnreg": most_registers(together, MOST_WARPS)}
    return {"ROWS": values // block, "BLOCK": block, **run}


def summing_how(width: int, element_size: int) -> dict[str, int]:
    """How a program of a pass that sums runs."""
    values, together, unroll, stages = SUMS[element_size]
    return {**tile_of(width, values, together, element_size), "UNROLL": unroll, "STAGES": stages}


def summing(x: Tensor) -> tuple[tuple[int, int], dict[str, int]]:
    """Programs that sum over several tiles, one where there is none to sum over, and how they run."""
    (rows, width), size = x.shape, x.element_size()
    _, together, _, _ = SUMS[size]
    how = summing_how(width, size)
    blocks = triton.cdiv(width, how["BLOCK"])
    few = min(triton.cdiv(rows, how["ROWS"]), MULTIPROCESSORS * together // blocks)
    return (max(few, 1), blocks), how


def floats(like: Tensor, *shape: int) -> Tensor:
    """Of float32, with nothing in it, on the same device."""
    return torch.empty(shape, dtype=torch.float32, device=like.device)


def masked_moments(x_RC: Tensor, mask_R: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance (C,), and the number of frames (1,), float32; of contiguous tensors, without gradients."""
    rows, width = x_RC.shape
    number, mean, variance = floats(x_RC, 1), floats(x_RC, width), floats(x_RC, width)
    grid, how = summing(x_RC)
    numbers, means, squares = (
        floats(x_RC, grid[0]),
        floats(x_RC, grid[0], width),
        floats(x_RC, grid[0], width),
    )
    _moments[grid](x_RC, mask_R, numbers, means, squares, rows, width, grid[0], **how)
    narrow = min(how["BLOCK"], PART_VALUES // PARTS)
    _join[(1, triton.cdiv(width, narrow))](
        x_RC, mask_R, numbers, means, squares, number, mean, variance, rows, width, grid[0],
        PARTS=PARTS, BLOCK=narrow, num_warps=warps(PARTS * narrow),
    )  # fmt: skip
    return mean, variance, number


def launches_of(element: str, *functions: tuple[Any, dict[str, Any]]) -> tuple[Launch, ...]:
    """Of functions over frames, here and where they are normalised, and how they run, ahead of time."""
    run = ("num_warps", "maxnreg")
    types = dict.fromkeys(("x", "grads", "y", "out"), f"*{element}") | {"eps": "fp32"}
    types |= dict.fromkeys(("rows", "width", "num_programs"), "i32")
    return tuple(
        Launch(
            function=function,
            signature={name: types.get(name, "*fp32") for name in function.arg_names if name not in how},
            constants={name: value for name, value in how.items() if name not in run},
            num_warps=how.get("num_warps", MOST_WARPS),
            most_registers=how.get("maxnreg"),
            divisible=tuple({*function.arg_names} - {"rows", "num_programs", "eps", *how}),
        )
        for function, how in functions
    )


def launches(element: str, element_size: int, width: int) -> tuple[Launch, ...]:
    """Of both functions here."""
    summed = summing_how(width, element_size)
    return launches_of(element, (_moments, summed), (_join, {"PARTS": PARTS, "BLOCK": PART_VALUES // PARTS}))
