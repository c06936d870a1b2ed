"""Gated linear unit, mask and depthwise convolution over time, the middle of a Conformer's convolution block.

    g_btd  = a_btd s(b_btd) (1 - p_bt)                     s(b) = 1 / (1 + exp(-b))
    y_btd  = sum_k w_dk g_b(t+k-2)d                        k from 0 to 4; g = 0 beyond the frames

    h_btd  = (1 - p_bt) sum_k w_dk dy_b(t-k+2)d            the gradient of a s(b)
    da_btd = h_btd s(b_btd),   db_btd = h_btd a_btd s(b_btd) (1 - s(b_btd))
    dw_dk  = sum_bt g_btd dy_b(t-k+2)d

of values a and gates b (B, T, D), padding p (B, T) of 1.0 where there is nothing, else 0.0, weights w (D, 5) and the
gradient dy of y. A NaN spreads to the frames around it, from padded frames too, as in plain torch.

A program walks along a strip of frames and keeps the last four rows in registers, in float32: each gate is evaluated
once, and no g is stored. Sums of dw are kept along the strip, and `column_sums_triton.py` adds the strips up: always in
the same order.

Bytes, in units of B T D elements: 3 forward (a, b, y) and 5 backward (a, b, dy, da, db), of 131 MB each at
librispeech_conformer's B 256, T 500, D 512 in bfloat16: 8 units are 0.35 ms at 3 TB/s. What a compiler moves follows
from where it must store, and was not measured:

    conv1d, as the model has it, is a call that nothing is fused into. Forward a and b are read, g is stored time last,
    read and convolved, and y is turned back: 7 units, or 5 where whatever reads y turns it. Backward dy is turned (2),
    both gradients are calls that read dy (2) and g (1) and store dg (1), and da and db follow from it, a and b (5): 11.
    The plain form below is fused: forward 3 units too, but each gate is evaluated for each tap: 2 special functions of
    5 x 65.5 million values are 0.18 ms at 16 a clock on 132 multiprocessors of 1.75 GHz, and the bytes 0.13 ms.
    Backward 5, and at least 3 more for the sums of dw.

So this moves 0.44 to 0.5 of conv1d's bytes, and 0.73 of the plain form's.
"""

from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from timetrial.kernels.choice import Choice
from timetrial.kernels.column_sums_triton import column_sums
from timetrial.kernels.exponential_triton import sigmoid
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
    warps,
)
from timetrial.kernels.plain_gradients_torch import plain_gradients

TAPS = 5  # frames that the convolution sees
# Features of a warp, frames that it walks along, and frames together, so that rows that are kept change places by name.
# 4 features a thread, whose few registers let many warps be there, keep an H200 busier than 16 bytes of bfloat16. 256
# rows of 500 frames 512 wide are 8,192 programs. Four frames of 68 are read by two.
HOW = Choice(
    kernel="depthwise_conv_glu",
    launch="both",
    passes="both",
    options={4: ((128, 64, 4), (128, 32, 4), (128, 64, 2)), 2: ((128, 64, 2), (128, 32, 2), (256, 64, 2))},
)


def reference(a_BTD: Tensor, b_BTD: Tensor, padding_BT: Tensor, weight_DK: Tensor) -> Tensor:
    """y (B, T, D) in a's dtype; float32 (or float64) in between."""
    wide = torch.float64 if a_BTD.dtype == torch.float64 else torch.float32
    gated_BTD = a_BTD.to(wide) * b_BTD.to(wide).sigmoid() * (1 - padding_BT.to(wide))[..., None]
    frames, taps = a_BTD.shape[1], weight_DK.shape[1]
    weight_KD = weight_DK.t().to(wide)
    g_BTD = F.pad(gated_BTD, (0, 0, taps // 2, taps // 2))
    # Not conv1d: a compiler fuses what is written out.
    y_BTD = sum(
        (g_BTD[:, k : k + frames] * weight_KD[k] for k in range(1, taps)), g_BTD[:, :frames] * weight_KD[0]
    )
    return y_BTD.to(a_BTD.dtype)


@triton.jit
def _row(x, at, frame, frames, column, inside):
    """0 before the first frame and after the last."""
    return tl.load(x + at + column, mask=inside & (frame >= 0) & (frame < frames), other=0.0)


@triton.jit
def _mask(padding, batch, frame, frames):
    is_frame = (frame >= 0) & (frame < frames)
    return 1 - tl.load(padding + batch.to(tl.int64) * frames + frame, mask=is_frame, other=1.0).to(tl.float32)


@triton.jit
def _weight(weight, column, inside, tap: tl.constexpr, TAPS: tl.constexpr):
    return tl.load(weight + column * TAPS + tap, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _forward(
    a, b, padding, weight, y, frames, width, strips, TAPS: tl.constexpr, FRAMES: tl.constexpr, UNROLL: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    batch, first = tl.program_id(0) // strips, tl.program_id(0) % strips * FRAMES
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    w0, w1 = _weight(weight, column, inside, 0, TAPS), _weight(weight, column, inside, 1, TAPS)
    w2, w3 = _weight(weight, column, inside, 2, TAPS), _weight(weight, column, inside, 3, TAPS)
    w4 = _weight(weight, column, inside, 4, TAPS)
    # What is there of the next four sums: a frame ends one, and adding to the others moves them up. Each is made for
    # itself: of two names of one value, Triton's compiler takes what a loop changes for unchanged.
    y0, y1 = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    y2, y3 = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    last = tl.minimum(first + FRAMES, frames)
    # Two frames are under way while one is reckoned with.
    at = (batch.to(tl.int64) * frames + first - 2) * width
    a_next, b_next = (
        _row(a, at, first - 2, frames, column, inside),
        _row(b, at, first - 2, frames, column, inside),
    )
    at += width
    a_after, b_after = (
        _row(a, at, first - 1, frames, column, inside),
        _row(b, at, first - 1, frames, column, inside),
    )
    for frame in tl.range(first - 2, last + 2, loop_unroll_factor=UNROLL):
        value, gate = a_next.to(tl.float32), b_next.to(tl.float32)
        a_next, b_next = a_after, b_after
        at += width
        a_after, b_after = (
            _row(a, at, frame + 2, frames, column, inside),
            _row(b, at, frame + 2, frames, column, inside),
        )
        g = value * sigmoid(gate) * _mask(padding, batch, frame, frames)
        out, y0, y1, y2, y3 = y0 + w4 * g, y1 + w3 * g, y2 + w2 * g, y3 + w1 * g, w0 * g
        tl.store(
            y + (at - 4 * width) + column, out.to(y.dtype.element_ty), mask=inside & (frame - 2 >= first)
        )


@triton.jit
def _backward(
    a, b, padding, weight, grads, of_a, of_b, sums, frames, width, strips,
    TAPS: tl.constexpr, FRAMES: tl.constexpr, UNROLL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    batch, first = tl.program_id(0) // strips, tl.program_id(0) % strips * FRAMES
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    w0, w1 = _weight(weight, column, inside, 0, TAPS), _weight(weight, column, inside, 1, TAPS)
    w2, w3 = _weight(weight, column, inside, 2, TAPS), _weight(weight, column, inside, 3, TAPS)
    w4 = _weight(weight, column, inside, 4, TAPS)
    s0, s1 = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    s2, s3 = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    s4 = tl.zeros((BLOCK,), tl.float32)
    at = (batch.to(tl.int64) * frames + first) * width
    d0 = _row(grads, at - 2 * width, first - 2, frames, column, inside).to(tl.float32)
    d1 = _row(grads, at - width, first - 1, frames, column, inside).to(tl.float32)
    d2 = _row(grads, at, first, frames, column, inside).to(tl.float32)
    d3 = _row(grads, at + width, first + 1, frames, column, inside).to(tl.float32)
    d_next = _row(grads, at + 2 * width, first + 2, frames, column, inside)
    a_next, b_next = _row(a, at, first, frames, column, inside), _row(b, at, first, frames, column, inside)
    d_after = _row(grads, at + 3 * width, first + 3, frames, column, inside)
    at += width
    a_after, b_after = (
        _row(a, at, first + 1, frames, column, inside),
        _row(b, at, first + 1, frames, column, inside),
    )
    for frame in tl.range(first, tl.minimum(first + FRAMES, frames), loop_unroll_factor=UNROLL):
        d4, value, gate = d_next.to(tl.float32), a_next.to(tl.float32), sigmoid(b_next.to(tl.float32))
        d_next, a_next, b_next = d_after, a_after, b_after
        to = at - width
        at += width
        d_after = _row(grads, at + 2 * width, frame + 4, frames, column, inside)
        a_after, b_after = (
            _row(a, at, frame + 2, frames, column, inside),
            _row(b, at, frame + 2, frames, column, inside),
        )
        open_ = gate * _mask(padding, batch, frame, frames)
        g = value * open_
        h = open_ * (w4 * d0 + w3 * d1 + w2 * d2 + w1 * d3 + w0 * d4)
        tl.store(of_a + to + column, h.to(of_a.dtype.element_ty), mask=inside)
        tl.store(of_b + to + column, (h * value * (1 - gate)).to(of_b.dtype.element_ty), mask=inside)
        s0, s1, s2, s3, s4 = s0 + g * d4, s1 + g * d3, s2 + g * d2, s3 + g * d1, s4 + g * d0
        d0, d1, d2, d3 = d1, d2, d3, d4
    begin = sums + tl.program_id(0).to(tl.int64) * TAPS * width + column
    tl.store(begin, s0, mask=inside)
    tl.store(begin + width, s1, mask=inside)
    tl.store(begin + 2 * width, s2, mask=inside)
    tl.store(begin + 3 * width, s3, mask=inside)
    tl.store(begin + 4 * width, s4, mask=inside)


def _how(width: int, element_size: int) -> dict[str, int]:
    most, frames, unroll = HOW[element_size]
    block = min(power_of_two(width), most)
    return {"FRAMES": frames, "UNROLL": unroll, "BLOCK": block, "num_warps": warps(block)}


def _strips(x: Tensor, how: dict[str, int]) -> tuple[int, tuple[int, int]]:
    """Of a row, and the grid: strips of all rows, and blocks of features."""
    batch, frames, width = x.shape
    strips = triton.cdiv(frames, how["FRAMES"])
    return strips, (batch * strips, triton.cdiv(width, how["BLOCK"]))


@torch.library.custom_op("timetrial::depthwise_conv_glu", mutates_args=())
def _fused(a: Tensor, b: Tensor, padding: Tensor, weight: Tensor) -> Tensor:
    _, frames, width = a.shape
    y = torch.empty_like(a)
    how = _how(width, a.element_size())
    strips, grid = _strips(a, how)
    if a.numel():
        _forward[grid](a, b, padding, weight, y, frames, width, strips, TAPS=TAPS, **how)
    return y


@_fused.register_fake
def _(a: Tensor, b: Tensor, padding: Tensor, weight: Tensor) -> Tensor:
    return torch.empty_like(a)


@torch.library.custom_op("timetrial::depthwise_conv_glu_backward", mutates_args=())
def _fused_backward(
    a: Tensor, b: Tensor, padding: Tensor, weight: Tensor, grads: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a, b and weight."""
    _, frames, width = a.shape
    of_a, of_b = torch.empty_like(a), torch.empty_like(b)
    how = _how(width, a.element_size())
    strips, grid = _strips(a, how)
    sums = torch.empty((grid[0], TAPS, width), dtype=torch.float32, device=a.device)
    if a.numel():
        _backward[grid](
            a, b, padding, weight, grads, of_a, of_b, sums, frames, width, strips, TAPS=TAPS, **how
        )
    of_weight = column_sums(sums.view(1, grid[0], TAPS * width)).view(TAPS, width).t()
    return of_a, of_b, of_weight.to(weight.dtype).contiguous()


@_fused_backward.register_fake
def _(a: Tensor, b: Tensor, padding: Tensor, weight: Tensor, grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(a), torch.empty_like(b), torch.empty_like(weight)


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    del output
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, of_y: Tensor) -> tuple[Tensor | None, ...]:
    a, b, padding, weight = ctx.saved_tensors
    if torch.is_grad_enabled():
        return plain_gradients(reference, (a, b, padding, weight), of_y)
    of_a, of_b, of_weight = _fused_backward(a, b, padding, weight, of_y.contiguous())
    return of_a, of_b, None, of_weight


_fused.register_autograd(_gradients, setup_context=_keep)


def fused(a_BTD: Tensor, b_BTD: Tensor, padding_BT: Tensor, weight_DK: Tensor) -> Tensor:
    """As `reference`, of contiguous tensors and five taps. No gradient flows to padding."""
    y_BTD: Tensor = _fused(a_BTD, b_BTD, padding_BT, weight_DK)
    return y_BTD


def why_not(a_BTD: Tensor, b_BTD: Tensor, padding_BT: Tensor, weight_DK: Tensor) -> str | None:
    """Why the fused form does not apply, or None."""
    if a_BTD.ndim != 3 or (b_BTD.shape, padding_BT.shape) != (a_BTD.shape, a_BTD.shape[:2]):
        return (
            f"a is {shape_of(a_BTD)}, b {shape_of(b_BTD)} and padding {shape_of(padding_BT)}: they should be "
            "(B, T, D), (B, T, D) and (B, T)"
        )
    if weight_DK.shape != (a_BTD.shape[2], TAPS):
        return f"weight is {shape_of(weight_DK)} for a of {shape_of(a_BTD)}: it should be (D, {TAPS})"
    return unsuitable(a_BTD, b_BTD, padding_BT, weight_DK)


def _case(
    name: str, batch: int, frames: int, width: int, *, scale: float = 1.0, padded: float = 0.3, **kind: Any
) -> Case:
    def make(generator: torch.Generator, dtype: torch.dtype, device: torch.device) -> Arguments:
        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, device=device)

        a, b = ((scale * normal(batch, frames, width)).to(dtype).requires_grad_() for _ in range(2))
        lengths = frames - (padded * frames * torch.rand(batch, generator=generator, device=device)).ceil()
        padding = (torch.arange(frames, device=device) >= lengths[:, None]).float()
        return a, b, padding, normal(width, TAPS).requires_grad_()

    return Case(name=name, make=make, **kind)


def forward_cost(a: Tensor, b: Tensor, padding: Tensor, weight: Tensor) -> Cost:
    """a, b and y; padding and weights."""
    return Cost(bytes_moved=size_in_bytes(a, b, a, padding, weight))


def backward_cost(a: Tensor, b: Tensor, padding: Tensor, weight: Tensor) -> Cost:
    """a, b, the gradient of y and theirs; padding, weights and theirs."""
    return Cost(bytes_moved=size_in_bytes(a, b, a, a, b, padding, weight, weight))


def _launches(element: str, width: int) -> tuple[Launch, ...]:
    x, rest = f"*{element}", {"frames": "i32", "width": "i32", "strips": "i32"}
    inputs = {"a": x, "b": x, "padding": "*fp32", "weight": "*fp32"}
    forward = {**inputs, "y": x, **rest}
    backward = {**inputs, "grads": x, "of_a": x, "of_b": x, "sums": "*fp32", **rest}
    how = _how(width, ELEMENT_SIZES[element])
    num_warps = how.pop("num_warps")
    return tuple(
        Launch(
            function=function,
            signature=signature,
            constants={"TAPS": TAPS, **how},
            num_warps=num_warps,
            divisible=tuple(name for name in signature if name not in ("frames", "strips")),
            is_vectorised=element == "fp32",
        )
        for function, signature in ((_forward, forward), (_backward, backward))
    )


KERNEL = Kernel(
    name="depthwise_conv_glu",
    reference=reference,
    fused=fused,
    why_not=why_not,
    cases=(
        _case("plain", 2, 5, 7),
        _case("ragged", 2, 69, 23),
        _case("two blocks and a bit", 2, 3, 2 * 128 + 3),
        _case("one frame", 2, 1, 6, padded=0.0),
        _case("all masked", 2, 6, 9, padded=1.0),
        _case("no rows", 0, 4, 6),
        _case("extreme", 2, 9, 12, scale=100.0),
        _case("tiny", 2, 9, 12, scale=1e-6),
        _case("moderate", 4, 200, 512, size="moderate"),
        _case("librispeech_conformer", 256, 500, 512, size="large"),
    ),
    forward_cost=forward_cost,
    backward_cost=backward_cost,
    launches=lambda: tuple(launch for element in ("fp32", "bf16") for launch in _launches(element, 512)),
    choices=(HOW,),
)
