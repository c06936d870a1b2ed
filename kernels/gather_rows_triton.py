"""Rows by their numbers, whose gradient is a segment sum: what edges look up at their nodes, or words in a table.

    y_ed  = x_sd at s = n_e,    dx_sd = sum_{e: n_e = s} dy_ed

of rows x (S, D) and numbers n (E,) below S. Forward, rows are copied 16 bytes at a time; the gradient is
`segment_sum_triton`'s, in float32 and in an order that is always the same, where torch adds up with atomics, in one
that never is. `order` and `first` are of `order_by_segment`, once for all uses of n.

Bytes: n and the rows that it names once and y once forward; dy and the order once and dx once backward.
"""

from typing import Any

import torch
from torch import Tensor

from timetrial.kernels import segment_sum_triton
from timetrial.kernels.kernel import Arguments, Case, Cost, Kernel, shape_of, size_in_bytes, unsuitable
from timetrial.kernels.segment_sum_triton import graph_numbers, order_by_segment


def reference(rows_SD: Tensor, numbers_E: Tensor, order_E: Tensor, first: Tensor) -> Tensor:
    """Rows (E, D) in the dtype they have; gradients are added up in float32 (or float64)."""
    del order_E, first
    wide_SD = rows_SD if rows_SD.dtype == torch.float64 else rows_SD.float()
    return wide_SD.index_select(0, numbers_E).to(rows_SD.dtype)


@torch.library.custom_op("timetrial::gather_rows", mutates_args=())
def _fused(rows: Tensor, numbers: Tensor, order: Tensor, first: Tensor) -> Tensor:
    del order, first
    taken: Tensor = segment_sum_triton.take_rows(rows, numbers)
    return taken


@_fused.register_fake
def _(rows: Tensor, numbers: Tensor, order: Tensor, first: Tensor) -> Tensor:
    return rows.new_empty(len(numbers), rows.shape[1])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[1:])


def _gradients(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
    return segment_sum_triton.fused(above.contiguous(), *ctx.saved_tensors), None, None, None


_fused.register_autograd(_gradients, setup_context=_keep)


def fused(rows_SD: Tensor, numbers_E: Tensor, order_E: Tensor, first: Tensor) -> Tensor:
    """As `reference`, of contiguous tensors."""
    gathered_ED: Tensor = _fused(rows_SD, numbers_E, order_E, first)
    return gathered_ED


def why_not(rows_SD: Tensor, numbers_E: Tensor, order_E: Tensor, first: Tensor) -> str | None:
    """Why the fused form does not apply, or None."""
    if rows_SD.ndim != 2 or numbers_E.shape != order_E.shape or first.shape != (len(rows_SD) + 1,):
        shapes = shape_of(rows_SD, numbers_E, order_E, first)
        return f"rows, numbers, order and first are {shapes}: they should be (S, D), (E,), (E,) and (S + 1,)"
    return unsuitable(rows_SD, numbers_E, order_E, first)


def _case(
    name: str, rows: int, width: int, uses: int, *, graph_padding: float | None = None, **kind: Any
) -> Case:
    """Edges at their nodes with a share of padding; or words, small numbers most: below n with log n / log S."""

    def make(generator: torch.Generator, dtype: torch.dtype, device: torch.device) -> Arguments:
        x = torch.randn((rows, width), generator=generator, device=device).to(dtype)
        if graph_padding is None:
            numbers = (rows ** torch.rand(uses, generator=generator, device=device)).int().clamp_max(rows - 1)
        else:
            numbers = graph_numbers(uses, rows, graph_padding, generator, device)
        return x.requires_grad_(), numbers, *order_by_segment(numbers, rows)

    return Case(name=name, make=make, **kind)


def _cost(rows: Tensor, numbers: Tensor, *read_too: Tensor, num_rows: int) -> Cost:
    row = rows.shape[1] * rows.element_size()
    return Cost(bytes_moved=row * (len(numbers) + num_rows) + size_in_bytes(*read_too))


def forward_cost(rows: Tensor, numbers: Tensor, order: Tensor, first: Tensor) -> Cost:
    """The numbers, each row that they name, and the rows gathered."""
    del order, first
    return _cost(rows, numbers, numbers, num_rows=len(numbers.unique()))


def backward_cost(rows: Tensor, numbers: Tensor, order: Tensor, first: Tensor) -> Cost:
    """Gradients of the rows gathered, the order, and gradients of all rows."""
    return _cost(rows, numbers, order, first, num_rows=len(rows))


KERNEL = Kernel(
    name="gather_rows",
    reference=reference,
    fused=fused,
    why_not=why_not,
    cases=(
        _case("plain", 5, 3, 9),
        _case("many uses of few", 7, 20, 150),
        _case("few uses of many", 80, 33, 11),
        _case("no uses", 4, 8, 0),
        _case("moderate", 13_313, 256, 28_672, size="moderate"),
        _case("ogbg", 13_313, 256, 28_672, graph_padding=0.02, size="large"),
        _case("criteo1tb", 4_194_304, 128, 26 * 262_144, size="large"),
    ),
    forward_cost=forward_cost,
    backward_cost=backward_cost,
    launches=tuple,  # those of segment_sum, and its choices
)
