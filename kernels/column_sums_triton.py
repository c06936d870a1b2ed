"""Sums of columns: what the programs of a backward pass have each added up becomes one gradient.

    y_gd = sum_p x_gpd

of x (G, P, D) float32, without atomics, always in the same order. There are few columns for many rows, and no more to
do than a multiprocessor each can: what counts is that many rows are under way together, which a general reduction
does not see to. Bytes: x once.
"""

import triton
import triton.language as tl
from torch import Tensor

from timetrial.kernels.kernel import Launch

ROWS, COLUMNS, WARPS = 256, 8, 8


@triton.jit
def _add_up(x, out, rows, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    x += tl.program_id(1).to(tl.int64) * rows * width
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in tl.range(0, rows, ROWS, loop_unroll_factor=4):
        row = first + tl.arange(0, ROWS)
        inside = (row < rows)[:, None] & (column < width)[None, :]
        total += tl.load(x + row[:, None] * width + column[None, :], mask=inside, other=0.0)
    tl.store(out + tl.program_id(1) * width + column, tl.sum(total, 0), mask=column < width)


def column_sums(x_GPD: Tensor) -> Tensor:
    """(G, D) of a contiguous tensor of float32; 0 where P is."""
    groups, rows, width = x_GPD.shape
    out = x_GPD.new_empty((groups, width))
    if out.numel():
        grid = (triton.cdiv(width, COLUMNS), groups)
        _add_up[grid](x_GPD, out, rows, width, ROWS=ROWS, COLUMNS=COLUMNS, num_warps=WARPS)
    return out


LAUNCH = Launch(
    function=_add_up,
    signature={"x": "*fp32", "out": "*fp32", "rows": "i32", "width": "i32"},
    constants={"ROWS": ROWS, "COLUMNS": COLUMNS},
    num_warps=WARPS,
    divisible=("x", "out", "width"),
)
