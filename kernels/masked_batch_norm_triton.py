"""Batch norm over the frames that are no padding, with the mean and the variance that running averages follow.

    m_c   = sum_r k_r x_rc / n,    v_c = sum_r k_r (x_rc - m_c)^2 / n,    n = max(sum_r k_r, 1)
    u_rc  = (x_rc - m_c) i_c,      i_c = 1 / sqrt(v_c + eps)
    y_rc  = k_r (u_rc (1 + w_c) + b_c)

    dx_rc = k_r (1 + w_c) i_c (dy_rc - db_c / n - u_rc dw_c / n)
    dw_c  = sum_r k_r dy_rc u_rc,  db_c = sum_r k_r dy_rc

of frames x (R, C), a mask k (R,) that is 0 for padding and else counts as 1, weights w (C,) and biases b (C,), all on
one device (AlgoPerf's speech models). Padding is not read, whatever stands there; y and dx are 0 at it. Where all is
padding, mean, variance and gradients are 0.

A program sees frames of its own, less the first one of all, and keeps for each of its threads' places their number,
mean and sum of squared differences (Welford 1962), so that nothing cancels where a mean is far from 0. These are joined
(Chan, Golub and LeVeque 1983) over a program's places, then over all programs. The backward pass sums in the same two
stages. All in float32, always in the same order.

Bytes: x twice, for its last frame counts in the first one's output, and y once forward; x and dy twice and dx once
backward.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from timetrial.kernels.kernel import (
    MOST_WARPS,
    Arguments,
    Case,
    Cost,
    Kernel,
    Launch,
    power_of_two,
    size_in_bytes,
    unsuitable,
    warps,
)

TILE = 2_048  # values that a program sums up together
EACH = 4_096  # that one of the other passes has: a thread reads a column's facts once for several rows
WIDEST = 128  # columns of a tile: 512 bytes of float32
PROGRAMS = 528  # of a pass that sums: four for each multiprocessor of an H100
UNROLL = 4  # tiles whose loads are under way together
PARTS = 128  # sums of programs that are joined together


def reference(
    x_RC: Tensor, mask_R: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """y (R, C) in x's dtype; mean and biased variance (C,), without gradients, float32 or 64 as all in between."""
    wide_RC = x_RC if x_RC.dtype == torch.float64 else x_RC.float()
    counts_R1 = (mask_R != 0)[:, None]
    wide_RC = torch.where(counts_R1, wide_RC, 0.0)
    number = counts_R1.sum().clamp_min(1)
    mean_C = wide_RC.sum(0) / number
    centred_RC = torch.where(counts_R1, wide_RC - mean_C, 0.0)
    var_C = centred_RC.square().sum(0) / number
    y_RC = centred_RC * (torch.rsqrt(var_C + eps) * (1 + weight_C)) + bias_C
    return torch.where(counts_R1, y_RC, 0.0).to(x_RC.dtype), mean_C.detach(), var_C.detach()


@triton.jit
def _columns(width, BLOCK: tl.constexpr):
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    return column, column < width


@triton.jit
def _counts(mask, tile, rows, ROWS: tl.constexpr):
    """Which frames of a tile are no padding."""
    row = tile * ROWS + tl.arange(0, ROWS)
    return tl.load(mask + row, mask=row < rows, other=0) != 0


@triton.jit
def _places(tile, column, width, ROWS: tl.constexpr):
    row = tile * ROWS + tl.arange(0, ROWS)
    return row.to(tl.int64)[:, None] * width + column[None, :]


@triton.jit
def _origin(x, mask, rows, column, exists):
    """What means are told from: the first frame, or 0 where that is padding."""
    return tl.load(x + column, mask=_counts(mask, 0, rows, 1) & exists, other=0.0).to(tl.float32)


@triton.jit
def _moments(
    x, mask, numbers, means, squares, rows, width, num_programs,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """Of a program's frames: how many there are, their mean, and the sum of their squared differences from it."""
    program = tl.program_id(0)
    column, exists = _columns(width, BLOCK)
    origin = _origin(x, mask, rows, column, exists)
    number = tl.zeros((ROWS,), tl.float32)
    mean, square = tl.zeros((ROWS, BLOCK), tl.float32), tl.zeros((ROWS, BLOCK), tl.float32)
    for tile in tl.range(program, tl.cdiv(rows, ROWS), num_programs, loop_unroll_factor=UNROLL):
        counts = _counts(mask, tile, rows, ROWS)
        inside = counts[:, None] & exists[None, :]
        value = tl.load(x + _places(tile, column, width, ROWS), mask=inside, other=0.0).to(tl.float32)
        value -= origin[None, :]
        number += counts.to(tl.float32)
        share = tl.where(counts, 1 / tl.maximum(number, 1.0), 0.0)
        away = tl.where(inside, value - mean, 0.0)
        mean += away * share[:, None]
        square += away * tl.where(inside, value - mean, 0.0)
    total = tl.sum(number, 0)
    joined = tl.sum(number[:, None] * mean, 0) / tl.maximum(total, 1.0)
    away = mean - joined[None, :]
    square = tl.sum(square + number[:, None] * away * away, 0)
    tl.store(means + program * width + column, joined, mask=exists)
    tl.store(squares + program * width + column, square, mask=exists)
    tl.store(numbers + program, total, mask=tl.program_id(1) == 0)


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
    column, exists = _columns(width, BLOCK)
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


@triton.jit
def _read(pointer, column, exists):
    return tl.load(pointer + column, mask=exists, other=0.0).to(tl.float32)[None, :]


@triton.jit
def _normalise(
    x, mask, weight, bias, mean, variance, y, rows, width, eps, ROWS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    column, exists = _columns(width, BLOCK)
    counts = _counts(mask, tl.program_id(0), rows, ROWS)[:, None]
    at = _places(tl.program_id(0), column, width, ROWS)
    value = tl.load(x + at, mask=counts & exists[None, :], other=0.0).to(tl.float32)
    gain = (1 + _read(weight, column, exists)) / tl.sqrt(_read(variance, column, exists) + eps)
    out = (value - _read(mean, column, exists)) * gain + _read(bias, column, exists)
    inside = (at < rows.to(tl.int64) * width) & exists[None, :]
    tl.store(y + at, tl.where(counts, out, 0.0).to(y.dtype.element_ty), mask=inside)


@triton.jit
def _sums(
    x, mask, grads, mean, variance, of_weight, of_bias, rows, width, num_programs, eps,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """Gradients of weights and biases of a program's frames."""
    program = tl.program_id(0)
    column, exists = _columns(width, BLOCK)
    m = _read(mean, column, exists)
    inverse = 1 / tl.sqrt(_read(variance, column, exists) + eps)
    total, total_u = tl.zeros((ROWS, BLOCK), tl.float32), tl.zeros((ROWS, BLOCK), tl.float32)
    for tile in tl.range(program, tl.cdiv(rows, ROWS), num_programs, loop_unroll_factor=UNROLL):
        inside = _counts(mask, tile, rows, ROWS)[:, None] & exists[None, :]
        at = _places(tile, column, width, ROWS)
        g = tl.load(grads + at, mask=inside, other=0.0).to(tl.float32)
        u = (tl.load(x + at, mask=inside, other=0.0).to(tl.float32) - m) * inverse
        total += g
        total_u += g * u
    tl.store(of_weight + program * width + column, tl.sum(total_u, 0), mask=exists)
    tl.store(of_bias + program * width + column, tl.sum(total, 0), mask=exists)


@triton.jit
def _backward(
    x, mask, grads, weight, number, mean, variance, of_weight, of_bias, out, rows, width, eps,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    column, exists = _columns(width, BLOCK)
    counts = _counts(mask, tl.program_id(0), rows, ROWS)[:, None]
    at = _places(tl.program_id(0), column, width, ROWS)
    g = tl.load(grads + at, mask=counts & exists[None, :], other=0.0).to(tl.float32)
    inverse = 1 / tl.sqrt(_read(variance, column, exists) + eps)
    u = tl.load(x + at, mask=counts & exists[None, :], other=0.0).to(tl.float32)
    u = (u - _read(mean, column, exists)) * inverse
    left = g - (_read(of_bias, column, exists) + u * _read(of_weight, column, exists)) / tl.load(number)
    gradient = left * inverse * (1 + _read(weight, column, exists))
    inside = (at < rows.to(tl.int64) * width) & exists[None, :]
    tl.store(out + at, tl.where(counts, gradient, 0.0).to(out.dtype.element_ty), mask=inside)


def _tile(width: int, values: int) -> dict[str, int]:
    """Rows and columns of what one program looks at together."""
    block = min(power_of_two(width), WIDEST)
    return {"ROWS": values // block, "BLOCK": block}


def _grids(rows: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Programs that take a tile each, and those that sum over several; one of either where there is none to take."""
    (each, block), (summed, _) = (_tile(width, values).values() for values in (EACH, TILE))
    blocks = triton.cdiv(width, block)
    few = min(triton.cdiv(rows, summed), triton.cdiv(PROGRAMS, blocks))
    return (max(triton.cdiv(rows, each), 1), blocks), (max(few, 1), blocks)


def _floats(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device=like.device)


@torch.library.custom_op("timetrial::masked_batch_norm", mutates_args=())
def _fused(
    x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, mean, variance, and the number of frames (1,) float32."""
    rows, width = x.shape
    y = torch.empty_like(x)
    mean, variance, number = _floats(x, width), _floats(x, width), _floats(x, 1)
    all_tiles, few = _grids(rows, width)
    numbers, means, squares = _floats(x, few[0]), _floats(x, few[0], width), _floats(x, few[0], width)
    summed, each = ({**_tile(width, values), "num_warps": MOST_WARPS} for values in (TILE, EACH))
    _moments[few](x, mask, numbers, means, squares, rows, width, few[0], **summed, UNROLL=UNROLL)
    narrow = min(summed["BLOCK"], TILE // PARTS)
    _join[(1, triton.cdiv(width, narrow))](
        x, mask, numbers, means, squares, number, mean, variance, rows, width, few[0],
        PARTS=PARTS, BLOCK=narrow, num_warps=warps(PARTS * narrow),
    )  # fmt: skip
    _normalise[all_tiles](x, mask, weight, bias, mean, variance, y, rows, width, eps, **each)
    return y, mean, variance, number


@_fused.register_fake
def _(
    x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return torch.empty_like(x), _floats(x, x.shape[1]), _floats(x, x.shape[1]), _floats(x, 1)


@torch.library.custom_op("timetrial::masked_batch_norm_backward", mutates_args=())
def _fused_backward(
    x: Tensor, mask: Tensor, grads: Tensor, weight: Tensor, number: Tensor, mean: Tensor, variance: Tensor, eps: float
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradients of x, and of weights and biases (2, C) float32."""
    rows, width = x.shape
    out = torch.empty_like(x)
    all_tiles, few = _grids(rows, width)
    parts = _floats(x, 2, few[0], width)
    _sums[few](
        x, mask, grads, mean, variance, parts[0], parts[1], rows, width, few[0], eps,
        **_tile(width, TILE), UNROLL=UNROLL, num_warps=MOST_WARPS,
    )  # fmt: skip
    of_both = parts.sum(1)
    _backward[all_tiles](
        x, mask, grads, weight, number, mean, variance, of_both[0], of_both[1], out, rows, width, eps,
        **_tile(width, EACH), num_warps=MOST_WARPS,
    )  # fmt: skip
    return out, of_both


@_fused_backward.register_fake
def _(
    x: Tensor, mask: Tensor, grads: Tensor, weight: Tensor, number: Tensor, mean: Tensor, variance: Tensor, eps: float
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return torch.empty_like(x), _floats(x, 2, x.shape[1])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, mask, weight, bias, ctx.eps = inputs
    _, mean, variance, number = output
    ctx.bias_dtype = bias.dtype
    ctx.mark_non_differentiable(mean, variance, number)
    ctx.save_for_backward(x, mask, weight, number, mean, variance)


def _gradients(ctx: Any, of_y: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    x, mask, weight, *statistics = ctx.saved_tensors
    of_x, (of_weight, of_bias) = _fused_backward(x, mask, of_y.contiguous(), weight, *statistics, ctx.eps)
    return of_x, None, of_weight.to(weight.dtype), of_bias.to(ctx.bias_dtype), None


_fused.register_autograd(_gradients, setup_context=_keep)


def fused(
    x_RC: Tensor, mask_R: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference`, of contiguous tensors."""
    y_RC, mean_C, var_C, _ = _fused(x_RC, mask_R, weight_C, bias_C, eps)
    return y_RC, mean_C, var_C


def why_not(x_RC: Tensor, mask_R: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float) -> str | None:
    """Why the fused form does not apply, or None. Statistics over several devices' frames are not its business."""
    del eps
    if x_RC.ndim != 2 or mask_R.shape != x_RC.shape[:1]:
        return f"x is {tuple(x_RC.shape)}, the mask {tuple(mask_R.shape)}: they should be (R, C) and (R,)"
    return unsuitable(x_RC, mask_R, weight_C, bias_C)


def _case(
    name: str,
    rows: int,
    width: int,
    *,
    masked: float = 0.3,
    scale: float = 1.0,
    mean: float = 3.0,
    **kind: Any,
) -> Case:
    def make(generator: torch.Generator, dtype: torch.dtype, device: torch.device) -> Arguments:
        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, device=device)

        x = (scale * (normal(rows, width) + mean)).to(dtype).requires_grad_()
        mask = (torch.rand(rows, generator=generator, device=device) >= masked).float()
        weight, bias = (normal(width).requires_grad_() for _ in range(2))
        return x, mask, weight, bias, 1e-3

    return Case(name=name, make=make, **kind)


def _frames(x: Tensor, mask: Tensor) -> int:
    """Bytes of those that are no padding."""
    return int((mask != 0).sum()) * x.shape[1] * x.element_size()


def forward_cost(x: Tensor, mask: Tensor, *_: Any) -> Cost:
    """Frames that count twice, once for the statistics, the mask, and y."""
    return Cost(bytes_moved=2 * _frames(x, mask) + size_in_bytes(mask, x))


def backward_cost(x: Tensor, mask: Tensor, *_: Any) -> Cost:
    """Frames that count and their gradients twice, once for sums, the mask, and the gradient of x."""
    return Cost(bytes_moved=4 * _frames(x, mask) + size_in_bytes(mask, x))


def _launches(element: str, width: int) -> tuple[Launch, ...]:
    summed, each = {**_tile(width, TILE), "UNROLL": UNROLL}, _tile(width, EACH)
    types = dict.fromkeys(("x", "grads", "y", "out"), f"*{element}") | {"eps": "fp32"}
    types |= dict.fromkeys(("rows", "width", "num_programs"), "i32")
    return tuple(
        Launch(
            function=function,
            signature={
                name: types.get(name, "*fp32") for name in function.arg_names if name not in constants
            },
            constants=constants,
            num_warps=MOST_WARPS,
            divisible=tuple({*function.arg_names} - {"rows", "num_programs", "eps", *constants}),
        )
        for function, constants in (
            (_moments, summed),
            (_join, {"PARTS": PARTS, "BLOCK": TILE // PARTS}),
            (_normalise, each),
            (_sums, summed),
            (_backward, each),
        )
    )


KERNEL = Kernel(
    name="masked_batch_norm",
    reference=reference,
    fused=fused,
    why_not=why_not,
    cases=(
        _case("plain", 6, 3),
        _case("ragged", 150, 21),
        _case("two blocks of columns", 45, WIDEST + 9, masked=0.6),
        _case("all masked", 9, 5, masked=2.0),
        _case("no frames", 0, 7),
        _case("far from 0", 300, 16, mean=1e3),
        _case("tiny", 40, 12, scale=1e-6),
        _case("huge", 40, 12, scale=1e6),
        _case("moderate", 8_192, 512, size="moderate"),
        _case("librispeech", 256 * 500, 512, size="large"),
    ),
    forward_cost=forward_cost,
    backward_cost=backward_cost,
    launches=tuple(launch for element in ("fp32", "bf16") for launch in _launches(element, 512)),
)
