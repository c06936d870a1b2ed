"""Batch norm over the frames that are no padding, with the mean and the variance that running averages follow.

    m_c   = sum_r k_r x_rc / n,    v_c = sum_r k_r (x_rc - m_c)^2 / n,    n = max(sum_r k_r, 1)
    u_rc  = (x_rc - m_c) i_c,      i_c = 1 / sqrt(v_c + eps)
    y_rc  = k_r (u_rc (1 + w_c) + b_c)

    dx_rc = k_r (1 + w_c) i_c (dy_rc - db_c / n - u_rc dw_c / n)
    dw_c  = sum_r k_r dy_rc u_rc,  db_c = sum_r k_r dy_rc

of frames x (R, C), a mask k (R,) that is 0 for padding and else counts as 1, weights w (C,) and biases b (C,), all on
one device (AlgoPerf's speech models). Padding is not read, whatever stands there; y and dx are 0 at it. Where all is
padding, mean, variance and gradients are 0.

Mean and variance are `masked_moments_triton.py`'s. The backward pass sums likewise, over a program's frames first. All
in float32, always in the same order.

Bytes: x twice, for its last frame counts in the first one's output, and y once forward; x and dy twice and dx once
backward.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from timetrial.kernels.choice import Choice
from timetrial.kernels.column_sums_triton import column_sums
from timetrial.kernels.kernel import (
    Arguments,
    Case,
    Cost,
    Kernel,
    Launch,
    shape_of,
    size_in_bytes,
    unsuitable,
)
from timetrial.kernels.masked_moments_triton import (
    SUMS,
    columns_of_block,
    floats,
    launches,
    launches_of,
    masked_moments,
    places,
    read_frames,
    summing,
    summing_how,
    tile_of,
    which_count,
)
from timetrial.kernels.plain_gradients_torch import plain_gradients

# Values of x that one program normalises, as a thread reads a column's facts once for several rows, and programs of a
# multiprocessor that find room at once.
EACH = Choice(
    kernel="masked_batch_norm",
    launch="each",
    passes="both",
    options={4: ((4_096, 3), (2_048, 4)), 2: ((8_192, 2), (4_096, 3), (2_048, 4))},
)


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
def _read(pointer, column, exists):
    return tl.load(pointer + column, mask=exists, other=0.0).to(tl.float32)[None, :]


@triton.jit
def _normalise(
    x, mask, weight, bias, mean, variance, y, rows, width, eps, ROWS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    column, exists = columns_of_block(width, BLOCK)
    counts = which_count(mask, tl.program_id(0), rows, ROWS)[:, None]
    at = places(tl.program_id(0), column, width, ROWS)
    value = tl.load(x + at, mask=counts & exists[None, :], other=0.0).to(tl.float32)
    gain = (1 + _read(weight, column, exists)) * tl.rsqrt(_read(variance, column, exists) + eps)
    out = (value - _read(mean, column, exists)) * gain + _read(bias, column, exists)
    inside = (at < rows.to(tl.int64) * width) & exists[None, :]
    tl.store(y + at, tl.where(counts, out, 0.0).to(y.dtype.element_ty), mask=inside)


@triton.jit
def _sums(
    x, mask, grads, mean, variance, of_weight, of_bias, rows, width, num_programs, eps,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, UNROLL: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Gradients of weights and biases of a program's frames."""
    program = tl.program_id(0)
    column, exists = columns_of_block(width, BLOCK)
    m = _read(mean, column, exists)
    total, total_u = tl.zeros((ROWS, BLOCK), tl.float32), tl.zeros((ROWS, BLOCK), tl.float32)
    for tile in tl.range(
        program, tl.cdiv(rows, ROWS), num_programs, loop_unroll_factor=UNROLL, num_stages=STAGES
    ):
        g, _, _ = read_frames(grads, mask, tile, column, exists, rows, width, ROWS)
        value, _, _ = read_frames(x, mask, tile, column, exists, rows, width, ROWS)
        total += g
        total_u += g * (value - m)
    total_u *= tl.rsqrt(_read(variance, column, exists) + eps)
    tl.store(of_weight + program * width + column, tl.sum(total_u, 0), mask=exists)
    tl.store(of_bias + program * width + column, tl.sum(total, 0), mask=exists)


@triton.jit
def _backward(
    x, mask, grads, weight, number, mean, variance, of_weight, of_bias, out, rows, width, eps,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    column, exists = columns_of_block(width, BLOCK)
    counts = which_count(mask, tl.program_id(0), rows, ROWS)[:, None]
    at = places(tl.program_id(0), column, width, ROWS)
    g = tl.load(grads + at, mask=counts & exists[None, :], other=0.0).to(tl.float32)
    value = tl.load(x + at, mask=counts & exists[None, :], other=0.0).to(tl.float32)
    # What is of a column, once for all its rows.
    inverse, each = tl.rsqrt(_read(variance, column, exists) + eps), 1 / tl.load(number)
    of_one, of_value = (
        _read(of_bias, column, exists) * each,
        _read(of_weight, column, exists) * inverse * each,
    )
    gain = inverse * (1 + _read(weight, column, exists))
    gradient = (g - of_one - (value - _read(mean, column, exists)) * of_value) * gain
    inside = (at < rows.to(tl.int64) * width) & exists[None, :]
    tl.store(out + at, tl.where(counts, gradient, 0.0).to(out.dtype.element_ty), mask=inside)


def _each(x: Tensor) -> tuple[tuple[int, int], dict[str, int]]:
    """Programs that take a tile each, one where there is none to take, and how they run."""
    (rows, width), size = x.shape, x.element_size()
    values, together = EACH[size]
    how = tile_of(width, values, together, size)
    return (max(triton.cdiv(rows, how["ROWS"]), 1), triton.cdiv(width, how["BLOCK"])), how


@torch.library.custom_op("timetrial::masked_batch_norm", mutates_args=())
def _fused(
    x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, mean, variance, and the number of frames (1,) float32."""
    y = torch.empty_like(x)
    mean, variance, number = masked_moments(x, mask)
    grid, how = _each(x)
    _normalise[grid](x, mask, weight, bias, mean, variance, y, *x.shape, eps, **how)
    return y, mean, variance, number


@_fused.register_fake
def _(
    x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return torch.empty_like(x), floats(x, x.shape[1]), floats(x, x.shape[1]), floats(x, 1)


@torch.library.custom_op("timetrial::masked_batch_norm_backward", mutates_args=())
def _fused_backward(
    x: Tensor, mask: Tensor, grads: Tensor, weight: Tensor, number: Tensor, mean: Tensor, variance: Tensor, eps: float
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradients of x, and of weights and biases (2, C) float32."""
    rows, width = x.shape
    out = torch.empty_like(x)
    grid, how = summing(x)
    parts = floats(x, 2, grid[0], width)
    _sums[grid](x, mask, grads, mean, variance, parts[0], parts[1], rows, width, grid[0], eps, **how)
    of_both = column_sums(parts)
    grid, how = _each(x)
    _backward[grid](
        x, mask, grads, weight, number, mean, variance, of_both[0], of_both[1], out, rows, width, eps, **how
    )
    return out, of_both


@_fused_backward.register_fake
def _(
    x: Tensor, mask: Tensor, grads: Tensor, weight: Tensor, number: Tensor, mean: Tensor, variance: Tensor, eps: float
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return torch.empty_like(x), floats(x, 2, x.shape[1])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, mask, weight, bias, ctx.eps = inputs
    _, mean, variance, number = output
    ctx.mark_non_differentiable(mean, variance, number)
    ctx.save_for_backward(x, mask, weight, bias, number, mean, variance)


def _gradients(ctx: Any, of_y: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    x, mask, weight, bias, *statistics = ctx.saved_tensors
    if torch.is_grad_enabled():
        return plain_gradients(lambda *inputs: reference(*inputs)[0], (x, mask, weight, bias, ctx.eps), of_y)
    of_x, (of_weight, of_bias) = _fused_backward(x, mask, of_y.contiguous(), weight, *statistics, ctx.eps)
    return of_x, None, of_weight.to(weight.dtype), of_bias.to(bias.dtype), None


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
        return f"x is {shape_of(x_RC)}, the mask {shape_of(mask_R)}: they should be (R, C) and (R,)"
    return unsuitable(x_RC, mask_R, weight_C, bias_C)


def _case(
    name: str,
    rows: int,
    width: int,
    *,
    masked: float = 0.3,
    frames: int = 0,
    scale: float = 1.0,
    mean: float = 3.0,
    **kind: Any,
) -> Case:
    """Padding is scattered, or begins at another one of `frames` in each sequence."""

    def make(generator: torch.Generator, dtype: torch.dtype, device: torch.device) -> Arguments:
        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, device=device)

        x = (scale * (normal(rows, width) + mean)).to(dtype).requires_grad_()
        mask = torch.rand(rows, generator=generator, device=device) >= masked
        if frames:
            lengths = frames * torch.rand((rows // frames, 1), generator=generator, device=device)
            mask = (torch.arange(frames, device=device) < lengths).flatten()
        weight, bias = (normal(width).requires_grad_() for _ in range(2))
        return x, mask.float(), weight, bias, 1e-3

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


def _launches(element: str, element_size: int, width: int) -> tuple[Launch, ...]:
    summed = summing_how(width, element_size)
    values, together = EACH[element_size]
    each = tile_of(width, values, together, element_size)
    return launches(element, element_size, width) + launches_of(
        element, (_normalise, each), (_sums, summed), (_backward, each)
    )


KERNEL = Kernel(
    name="masked_batch_norm",
    reference=reference,
    fused=fused,
    why_not=why_not,
    cases=(
        _case("plain", 6, 3),
        _case("ragged", 150, 21),
        _case("two blocks of columns", 45, 137, masked=0.6),
        _case("all masked", 9, 5, masked=2.0),
        _case("no frames", 0, 7),
        _case("far from 0", 300, 16, mean=1e3),
        _case("tiny", 40, 12, scale=1e-6),
        _case("huge", 40, 12, scale=1e6),
        _case("moderate", 8_192, 512, size="moderate"),
        _case("librispeech", 256 * 500, 512, frames=500, size="large"),
    ),
    forward_cost=forward_cost,
    backward_cost=backward_cost,
    launches=lambda: _launches("fp32", 4, 512) + _launches("bf16", 2, 512),
    choices=(SUMS, EACH),
)
