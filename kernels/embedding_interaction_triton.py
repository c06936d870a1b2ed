"""Rows of an embedding table and their dot products, as DLRM (Naumov et al. 2019) looks them up and pairs them.

    v_b0e = x_be,    v_bce = t_re at r = n_bc, c from 1 to C
    y_b   = x_b, then (v_bi . v_bj) for i <= j, i slower

    dv_bi = sum_{j > i} g_bij v_bj + sum_{j < i} g_bji v_bj + 2 g_bii v_bi,   and dy_be is added to dv_b0e
    dt_re = sum_{b, c: n_bc = r} dv_bce

of a bottom perceptron's output x (B, E), row numbers n (B, C) below R, and a table t (R, E). A vector is paired with
itself too (AlgoPerf's criteo1tb). A program takes one example, whose vectors never leave the chip, and multiplies them
on the matrix units. A product of float32 is of three products of TF32, all but that of both remainders, and is off by
2^-19 of itself at most (of one product: 2^-10); one of bfloat16 or float16 is exact. Sums are of float32. The
gradients of the rows looked up become that of the table by a segment sum, always in the same order
(`segment_sum_triton.py`).

Bytes: n, x and the rows that n names once, y once forward; the same and dy, dv written and read in between, dx and the
whole of dt backward.
"""

from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from timetrial.kernels import segment_sum_triton
from timetrial.kernels.choice import Choice
from timetrial.kernels.kernel import (
    ELEMENT_SIZES,
    Arguments,
    Case,
    Cost,
    Kernel,
    Launch,
    power_of_two,
    shape_of,
    size_in_bytes,
    unsuitable,
)
from timetrial.kernels.plain_gradients_torch import plain_gradients

MOST_VECTORS = 32  # of an example
LEAST_TILE = 16  # of what tl.dot multiplies
# Columns that are multiplied at a time, blocks of them under way, and warps. Vectors of float32 fill more registers,
# with both parts of each factor.
HOW = Choice(
    kernel="embedding_interaction",
    launch="both",
    passes="both",
    options={4: ((16, 4, 1), (32, 2, 1), (32, 2, 2)), 2: ((64, 2, 1), (32, 4, 1), (64, 2, 2))},
)


def num_pairs(num_vectors: int) -> int:
    """Of vectors, each with itself too."""
    return num_vectors * (num_vectors + 1) // 2


def reference(bottom_BE: Tensor, numbers_BC: Tensor, table_RE: Tensor) -> Tensor:
    """The bottom's output and the products, (B, E + (C + 1)(C + 2) / 2) in its dtype; float32 (or float64) sums."""
    embeddings_BCE = F.embedding(numbers_BC, table_RE)
    vectors_BFE = torch.cat((bottom_BE.unsqueeze(1), embeddings_BCE), 1)
    wide_BFE = vectors_BFE if vectors_BFE.dtype == torch.float64 else vectors_BFE.float()
    products_BFF = torch.bmm(wide_BFE, wide_BFE.transpose(1, 2))
    num_vectors = vectors_BFE.shape[1]
    first_P, second_P = torch.triu_indices(num_vectors, num_vectors, device=bottom_BE.device)
    pairs_BP = (first_P * num_vectors + second_P).expand(len(bottom_BE), -1)
    return torch.cat((bottom_BE, products_BFF.flatten(1).gather(1, pairs_BP).to(bottom_BE.dtype)), 1)


@triton.jit
def _rows(numbers, example, num_numbers, VECTORS: tl.constexpr):
    """Which of an example's vectors are looked up, and in which rows."""
    vector = tl.arange(0, VECTORS)
    is_looked_up = (vector > 0) & (vector <= num_numbers)
    row = tl.load(numbers + example * num_numbers + vector - 1, mask=is_looked_up, other=0)
    return vector[:, None], is_looked_up[:, None], row.to(tl.int64)[:, None]


@triton.jit
def _pairs(num_numbers, VECTORS: tl.constexpr):
    """The pair's place of each two vectors, whether both exist, and their numbers."""
    one, other = tl.arange(0, VECTORS)[:, None], tl.arange(0, VECTORS)[None, :]
    low, high = tl.minimum(one, other), tl.maximum(one, other)
    return low * (2 * num_numbers + 1 - low) // 2 + high, high <= num_numbers, one, other


@triton.jit
def _columns(
    bottom, table, example, vector, is_looked_up, row, some, width, BLOCK: tl.constexpr, IN_FLOAT32: tl.constexpr
):  # fmt: skip
    """Some columns of an example's vectors, 0 where there is none: its bottom's output, then its embeddings."""
    column = some + tl.arange(0, BLOCK)[None, :]
    inside = is_looked_up & (column < width)
    value = tl.load(table + row * width + column, mask=inside, other=0.0)
    first = tl.load(bottom + example * width + column, mask=column < width, other=0.0)
    v = tl.where(vector == 0, first, value)
    return column, first, v.to(tl.float32) if IN_FLOAT32 else v


@triton.jit
def _forward(
    bottom, numbers, table, out, num_numbers, width, length,
    VECTORS: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr, IN_FLOAT32: tl.constexpr,
):  # fmt: skip
    example = tl.program_id(0).to(tl.int64)
    vector, is_looked_up, row = _rows(numbers, example, num_numbers, VECTORS)
    begin = out + example * length
    products = tl.zeros((VECTORS, VECTORS), tl.float32)
    for some in range(0, width, BLOCK):
        column, first, v = _columns(
            bottom, table, example, vector, is_looked_up, row, some, width, BLOCK, IN_FLOAT32
        )
        products = tl.dot(v, tl.trans(v), products, input_precision=PRECISION)
        tl.store(begin + column, first, mask=column < width)
    pair, exists, one, other = _pairs(num_numbers, VECTORS)
    tl.store(begin + width + pair, products.to(out.dtype.element_ty), mask=exists & (one <= other))


@triton.jit
def _backward(
    bottom, numbers, table, grads, of_bottom, of_rows, num_numbers, width, length,
    VECTORS: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr, IN_FLOAT32: tl.constexpr,
):  # fmt: skip
    example = tl.program_id(0).to(tl.int64)
    vector, is_looked_up, row = _rows(numbers, example, num_numbers, VECTORS)
    begin = grads + example * length
    pair, exists, one, other = _pairs(num_numbers, VECTORS)
    g = tl.load(begin + width + pair, mask=exists, other=0.0).to(tl.float32)
    g = tl.where(one == other, 2 * g, g)
    for some in range(0, width, BLOCK):
        column, _, v = _columns(
            bottom, table, example, vector, is_looked_up, row, some, width, BLOCK, IN_FLOAT32
        )
        is_bottom = (vector == 0) & (column < width)
        gradient = tl.dot(g.to(v.dtype), v, input_precision=PRECISION)  # g came in v's dtype
        gradient += tl.load(begin + vector + column, mask=is_bottom, other=0.0).to(tl.float32)
        to = of_bottom + example * width + vector + column
        tl.store(to, gradient.to(of_bottom.dtype.element_ty), mask=is_bottom)
        to = of_rows + (example * num_numbers + vector - 1) * width + column
        tl.store(to, gradient.to(of_rows.dtype.element_ty), mask=is_looked_up & (column < width))


def _how(
    num_numbers: int, element_size: int, *, is_interpreted: bool
) -> tuple[dict[str, Any], dict[str, int]]:
    """Constants for so many embeddings, and how a program is run. Triton's interpreter multiplies bfloat16 wrongly."""
    block, num_stages, num_warps = HOW[element_size]
    constants = {
        "VECTORS": max(power_of_two(num_numbers + 1), LEAST_TILE),
        "BLOCK": block,
        "PRECISION": "tf32x3",  # of float32; products of two bfloat16 are exact
        "IN_FLOAT32": is_interpreted,
    }
    return constants, {"num_stages": num_stages, "num_warps": num_warps}


@torch.library.custom_op("timetrial::embedding_interaction", mutates_args=())
def _fused(bottom: Tensor, numbers: Tensor, table: Tensor) -> Tensor:
    (batch, num_numbers), width = numbers.shape, bottom.shape[1]
    length = width + num_pairs(num_numbers + 1)
    out = torch.empty((batch, length), dtype=bottom.dtype, device=bottom.device)
    if batch:
        constants, run = _how(num_numbers, bottom.element_size(), is_interpreted=not bottom.is_cuda)
        _forward[(batch,)](bottom, numbers, table, out, num_numbers, width, length, **constants, **run)
    return out


@_fused.register_fake
def _(bottom: Tensor, numbers: Tensor, table: Tensor) -> Tensor:
    return bottom.new_empty(len(bottom), bottom.shape[1] + num_pairs(numbers.shape[1] + 1))


@torch.library.custom_op("timetrial::embedding_interaction_backward", mutates_args=())
def _fused_backward(bottom: Tensor, numbers: Tensor, table: Tensor, grads: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the bottom's output and of the rows looked up, (B C, E)."""
    (batch, num_numbers), width = numbers.shape, bottom.shape[1]
    of_bottom = torch.empty_like(bottom)
    of_rows = torch.empty((batch * num_numbers, width), dtype=table.dtype, device=table.device)
    if batch:
        constants, run = _how(num_numbers, bottom.element_size(), is_interpreted=not bottom.is_cuda)
        _backward[(batch,)](
            bottom, numbers, table, grads, of_bottom, of_rows, num_numbers, width, grads.shape[1],
            **constants, **run,
        )  # fmt: skip
    return of_bottom, of_rows


@_fused_backward.register_fake
def _(bottom: Tensor, numbers: Tensor, table: Tensor, grads: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(bottom), table.new_empty(numbers.numel(), bottom.shape[1])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
    bottom, numbers, table = ctx.saved_tensors
    if torch.is_grad_enabled():
        return plain_gradients(reference, (bottom, numbers, table), above)
    of_bottom, of_rows = _fused_backward(bottom, numbers, table, above.contiguous())
    if not ctx.needs_input_grad[2]:
        return of_bottom, None, None
    segments = numbers.flatten()
    order, first = segment_sum_triton.order_by_segment(segments, len(table))
    return of_bottom, None, segment_sum_triton.fused(of_rows, segments, order, first)


_fused.register_autograd(_gradients, setup_context=_keep)


def fused(bottom_BE: Tensor, numbers_BC: Tensor, table_RE: Tensor) -> Tensor:
    """As `reference`, of contiguous tensors. The gradient of the table is a whole one, with rows of 0."""
    joined: Tensor = _fused(bottom_BE, numbers_BC, table_RE)
    return joined


def why_not(bottom_BE: Tensor, numbers_BC: Tensor, table_RE: Tensor) -> str | None:
    """Why the fused form does not apply, or None."""
    tensors = (bottom_BE, numbers_BC, table_RE)
    if any(tensor.ndim != 2 for tensor in tensors) or bottom_BE.shape[1] != table_RE.shape[1]:
        return (
            f"the bottom's output, numbers and table are {shape_of(*tensors)}: "
            "they should be (B, E), (B, C) and (R, E)"
        )
    if numbers_BC.shape[1] >= MOST_VECTORS:
        return f"numbers are {shape_of(numbers_BC)}, (B, C): C should be below {MOST_VECTORS}"
    if bottom_BE.dtype != table_RE.dtype:
        return f"the bottom's output is of {bottom_BE.dtype} and the table of {table_RE.dtype}"
    return unsuitable(*tensors)


def _case(
    name: str, batch: int, num_numbers: int, rows: int, width: int, *, scale: float = 1.0, **kind: Any
) -> Case:
    """Small numbers are looked up most: that one is below n has the probability log n / log R."""

    def make(generator: torch.Generator, dtype: torch.dtype, device: torch.device) -> Arguments:
        bottom = scale * torch.randn((batch, width), generator=generator, device=device)
        table = scale * torch.randn((rows, width), generator=generator, device=device)
        numbers = rows ** torch.rand((batch, num_numbers), generator=generator, device=device)
        numbers = numbers.int().clamp_max(rows - 1)
        return bottom.to(dtype).requires_grad_(), numbers, table.to(dtype).requires_grad_()

    return Case(name=name, make=make, **kind)


def forward_cost(bottom: Tensor, numbers: Tensor, table: Tensor) -> Cost:
    """What is looked up, each row once, and what is put out; the products of all pairs."""
    row, vectors = table.shape[1] * table.element_size(), numbers.shape[1] + 1
    out = len(bottom) * (row + num_pairs(vectors) * table.element_size())
    return Cost(
        bytes_moved=size_in_bytes(bottom, numbers) + len(numbers.unique()) * row + out,
        flops=2 * len(bottom) * num_pairs(vectors) * table.shape[1],
    )


def backward_cost(bottom: Tensor, numbers: Tensor, table: Tensor) -> Cost:
    """The same, and gradients of the bottom's output and of the table; all vectors times all gradients of pairs."""
    forward, vectors = forward_cost(bottom, numbers, table), numbers.shape[1] + 1
    return Cost(
        bytes_moved=forward.bytes_moved + size_in_bytes(bottom, table),
        flops=2 * len(bottom) * vectors**2 * table.shape[1],
    )


def _launches(element: str, element_size: int) -> tuple[Launch, ...]:
    x, numbers = f"*{element}", {"num_numbers": "i32", "width": "i32", "length": "i32"}
    given = {"bottom": x, "numbers": "*i32", "table": x}
    constants, run = _how(26, element_size, is_interpreted=False)
    forward = {**given, "out": x, **numbers}
    backward = {**given, "grads": x, "of_bottom": x, "of_rows": x, **numbers}
    return tuple(
        Launch(
            function=function,
            signature=signature,
            constants=constants,
            num_warps=run["num_warps"],
            num_stages=run["num_stages"],
            divisible=tuple(name for name in signature if name not in ("num_numbers", "length")),
            is_matrix=True,
        )
        for function, signature in ((_forward, forward), (_backward, backward))
    )


KERNEL = Kernel(
    name="embedding_interaction",
    reference=reference,
    fused=fused,
    why_not=why_not,
    cases=(
        _case("plain", 2, 2, 5, 3),
        _case("pocket", 9, 8, 40, 16),
        _case("criteo1tb's widths", 4, 26, 70, 128),
        _case("most vectors", 3, 31, 9, 100),
        _case("no examples", 0, 3, 6, 8),
        _case("tiny", 3, 4, 10, 20, scale=2.0**-11),
        _case("huge", 3, 4, 10, 20, scale=1e6),
        _case("moderate", 2_048, 26, 65_536, 128, size="moderate"),
        _case("criteo1tb", 262_144, 26, 4_194_304, 128, size="large"),
    ),
    forward_cost=forward_cost,
    backward_cost=backward_cost,
    launches=lambda: tuple(
        launch
        for element, element_size in ELEMENT_SIZES.items()
        for launch in _launches(element, element_size)
    ),
    choices=(HOW,),
)
