"""Layer norm and RMS norm over the last axis, of a sum where a residual is given.

    h_rd   = x_rd + r_rd                                   (h = x without a residual)
    u_rd   = (h_rd - m_r) i_r                              i_r = 1 / sqrt(mean_d (h_rd - m_r)^2 + eps)
    y_rd   = u_rd s_d + b_d                                m_r = mean_d h_rd; 0 for RMS norm, which has no b

    dh_rd  = (c_rd - mean_d c_rd - u_rd mean_d (c_rd u_rd)) i_r + e_rd,   c_rd = dy_rd s_d; no mean_d c for RMS norm
    ds_d   = sum_r dy_rd u_rd,   db_d = sum_r dy_rd

of rows x (R, D), gradients dy of y and e of h. A row lies in registers whole, in float32, so that its variance is a
mean of squared differences. Each program sums ds and db over rows of its own, and `column_sums_triton.py` adds those
sums up: always in the same order, so that they repeat to the last bit.

Bytes: x (and r) once and y (and h) once forward; h, dy (and e) once and dh once backward.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from timetrial.kernels.choice import Choice
from timetrial.kernels.column_sums_triton import column_sums
from timetrial.kernels.kernel import (
    ELEMENT_SIZES,
    MULTIPROCESSORS,
    Arguments,
    Case,
    Cost,
    Kernel,
    Launch,
    most_registers,
    power_of_two,
    shape_of,
    size_in_bytes,
    unsuitable,
)
from timetrial.kernels.plain_gradients_torch import plain_gradients

LONGEST_ROW = 8_192
# Values that a program looks at together if a row is not longer, and its warps; backward, programs of a
# multiprocessor too, all of which find room at once.
FORWARD = Choice(
    kernel="layer_norm",
    launch="forward",
    passes="forward",
    options=dict.fromkeys((4, 2), ((4_096, 4), (2_048, 4), (4_096, 8))),
)
BACKWARD = Choice(
    kernel="layer_norm",
    launch="backward",
    passes="both",
    options={
        4: ((1_024, 2, 6), (2_048, 4, 3), (4_096, 8, 1)),
        2: ((2_048, 4, 4), (1_024, 2, 7), (4_096, 8, 2)),
    },
)


def reference(
    x_RD: Tensor, residual_RD: Tensor | None, scale_D: Tensor, bias_D: Tensor | None, eps: float, is_rms: bool
) -> Tensor | tuple[Tensor, Tensor]:
    """y (R, D) in x's dtype; with a residual, h too. float32 (or float64) in between."""
    h_RD = x_RD if residual_RD is None else x_RD + residual_RD
    wide_RD = h_RD if h_RD.dtype == torch.float64 else h_RD.float()
    centred_RD = wide_RD if is_rms else wide_RD - wide_RD.mean(1, keepdim=True)
    u_RD = centred_RD * torch.rsqrt(centred_RD.square().mean(1, keepdim=True) + eps)
    y_RD = (u_RD * scale_D if bias_D is None else u_RD * scale_D + bias_D).to(x_RD.dtype)
    return y_RD if residual_RD is None else (y_RD, h_RD)


@triton.jit
def _places(tile, rows, width, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    row = tile * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    inside = (row < rows)[:, None] & (column < width)[None, :]
    return row, column, row.to(tl.int64)[:, None] * width + column[None, :], inside


@triton.jit
def _forward(
    x, residual, scale, bias, y, h, means, inverses, rows, width, eps,
    HAS_RESIDUAL: tl.constexpr, HAS_BIAS: tl.constexpr, IS_RMS: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, column, at, inside = _places(tl.program_id(0), rows, width, ROWS, BLOCK)
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    if HAS_RESIDUAL:
        value += tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
        rounded = value.to(h.dtype.element_ty)
        tl.store(h + at, rounded, mask=inside)
        value = rounded.to(tl.float32)
    mean = tl.zeros((ROWS,), tl.float32)
    if not IS_RMS:
        mean = tl.sum(value, 1) / width
    centred = tl.where(inside, value - mean[:, None], 0.0)
    inverse = tl.rsqrt(tl.sum(centred * centred, 1) / width + eps)
    s = tl.load(scale + column, mask=column < width, other=0.0).to(tl.float32)
    out = centred * inverse[:, None] * s[None, :]
    if HAS_BIAS:
        out += tl.load(bias + column, mask=column < width, other=0.0).to(tl.float32)[None, :]
    tl.store(y + at, out.to(y.dtype.element_ty), mask=inside)
    tl.store(means + row, mean, mask=row < rows)
    tl.store(inverses + row, inverse, mask=row < rows)


@triton.jit
def _ahead(h, grads, means, inverses, tile, rows, width, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    row, _, at, inside = _places(tile, rows, width, ROWS, BLOCK)
    mean, inverse = (
        tl.load(means + row, mask=row < rows, other=0.0), tl.load(inverses + row, mask=row < rows, other=0.0)
    )  # fmt: skip
    return tl.load(h + at, mask=inside, other=0.0), tl.load(grads + at, mask=inside, other=0.0), mean, inverse


@triton.jit
def _backward(
    h, grads, grads_h, scale, means, inverses, out, sums, rows, width, num_programs,
    HAS_RESIDUAL: tl.constexpr, HAS_BIAS: tl.constexpr, IS_RMS: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    s = tl.load(scale + columns, mask=columns < width, other=0.0).to(tl.float32)
    of_scale, of_bias = tl.zeros((ROWS, BLOCK), tl.float32), tl.zeros((ROWS, BLOCK), tl.float32)
    h_ahead, g_ahead, mean_ahead, inverse_ahead = _ahead(
        h, grads, means, inverses, program, rows, width, ROWS, BLOCK
    )
    for tile in range(program, tl.cdiv(rows, ROWS), num_programs):
        _, _, at, inside = _places(tile, rows, width, ROWS, BLOCK)
        value, g, mean, inverse = h_ahead.to(tl.float32), g_ahead.to(tl.float32), mean_ahead, inverse_ahead
        # The next rows are on their way while sums over these wait for all threads.
        if HAS_RESIDUAL:
            of_h = tl.load(grads_h + at, mask=inside, other=0.0)
        h_ahead, g_ahead, mean_ahead, inverse_ahead = _ahead(
            h, grads, means, inverses, tile + num_programs, rows, width, ROWS, BLOCK
        )
        u = (value - mean[:, None]) * inverse[:, None]  # behind the row's end g, and with it c, is 0
        of_scale += g * u
        if HAS_BIAS:
            of_bias += g
        c = g * s[None, :]
        scaled = inverse / width
        if IS_RMS:
            gradient = c * inverse[:, None] - u * (tl.sum(c * u, 1) * scaled)[:, None]
        else:
            of_u, of_one = tl.split(tl.sum(tl.join(c * u, c), 1))
            gradient = c * inverse[:, None] - (of_one * scaled)[:, None] - u * (of_u * scaled)[:, None]
        if HAS_RESIDUAL:
            gradient += of_h.to(tl.float32)
        tl.store(out + at, gradient.to(out.dtype.element_ty), mask=inside)
    to = sums + program * width + columns
    tl.store(to, tl.sum(of_scale, 0), mask=columns < width)
    if HAS_BIAS:
        tl.store(to + num_programs * width, tl.sum(of_bias, 0), mask=columns < width)


def _how(width: int, values: int, most_warps: int) -> dict[str, int]:
    """What a program looks at together, `values` if a row is not longer; for a longer one, as many more warps."""
    block = power_of_two(width)
    rows, most_warps = max(values // block, 1), most_warps * max(block // values, 1)
    return {"ROWS": rows, "BLOCK": block, "num_warps": min(most_warps, max(rows * block // 128, 1))}


def _backward_how(width: int, element_size: int) -> tuple[dict[str, int], int]:
    """The same of the backward pass, and how many programs there are at most; with so few registers of a thread that
    all of them find room at once.
    """
    values, most_warps, together = BACKWARD[element_size]
    how = _how(width, values, most_warps)
    together = max(together * values // max(how["BLOCK"], values), 1)
    return {**how, "maxnreg": most_registers(together, how["num_warps"])}, MULTIPROCESSORS * together


@torch.library.custom_op("timetrial::layer_norm", mutates_args=())
def _fused(
    x: Tensor, residual: Tensor | None, scale: Tensor, bias: Tensor | None, eps: float, is_rms: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, h (nothing without a residual), and m and i of each row (R,) float32."""
    rows, width = x.shape
    y = torch.empty_like(x)
    h = torch.empty_like(x) if residual is not None else x.new_empty(0)
    means, inverses = (torch.empty(rows, dtype=torch.float32, device=x.device) for _ in range(2))
    how = _how(width, *FORWARD[x.element_size()])
    if x.numel():
        _forward[(triton.cdiv(rows, how["ROWS"]),)](
            x, residual, scale, bias, y, h, means, inverses, rows, width, eps,
            HAS_RESIDUAL=residual is not None, HAS_BIAS=bias is not None, IS_RMS=is_rms, **how,
        )  # fmt: skip
    return y, h, means, inverses


@_fused.register_fake
def _(
    x: Tensor, residual: Tensor | None, scale: Tensor, bias: Tensor | None, eps: float, is_rms: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows = x.new_empty(len(x), dtype=torch.float32)
    h = torch.empty_like(x) if residual is not None else x.new_empty(0)
    return torch.empty_like(x), h, rows, torch.empty_like(rows)


@torch.library.custom_op("timetrial::layer_norm_backward", mutates_args=())
def _fused_backward(
    h: Tensor, grads: Tensor, grads_h: Tensor | None, scale: Tensor, means: Tensor, inverses: Tensor,
    has_bias: bool, is_rms: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradients of h, and of scale and, if there is one, bias: (1 or 2, D) float32."""
    rows, width = h.shape
    out = torch.empty_like(h)
    how, programs = _backward_how(width, h.element_size())
    programs = min(programs, triton.cdiv(rows, how["ROWS"]))
    sums = torch.empty((1 + has_bias, programs, width), dtype=torch.float32, device=h.device)
    if h.numel():
        _backward[(programs,)](
            h, grads, grads_h, scale, means, inverses, out, sums, rows, width, programs,
            HAS_RESIDUAL=grads_h is not None, HAS_BIAS=has_bias, IS_RMS=is_rms, **how,
        )  # fmt: skip
    return out, column_sums(sums)


@_fused_backward.register_fake
def _(
    h: Tensor, grads: Tensor, grads_h: Tensor | None, scale: Tensor, means: Tensor, inverses: Tensor,
    has_bias: bool, is_rms: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return torch.empty_like(h), scale.new_empty((1 + has_bias, len(scale)), dtype=torch.float32)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, residual, scale, bias, ctx.eps, ctx.is_rms = inputs
    _, h, means, inverses = output
    ctx.has_residual = residual is not None
    ctx.mark_non_differentiable(means, inverses)
    ctx.save_for_backward(h if ctx.has_residual else x, scale, bias, means, inverses)


def _gradients(ctx: Any, of_y: Tensor, of_h: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    h, scale, bias, means, inverses = ctx.saved_tensors
    if torch.is_grad_enabled():
        first, _residual, *others = plain_gradients(
            reference, (h, None, scale, bias, ctx.eps, ctx.is_rms), of_y
        )
        first = first + of_h if ctx.has_residual and first is not None else first
        return first, first if ctx.has_residual else None, *others
    of_h_too = of_h.contiguous() if ctx.has_residual else None
    of_x, of_both = _fused_backward(
        h, of_y.contiguous(), of_h_too, scale, means, inverses, bias is not None, ctx.is_rms
    )
    of_residual = of_x if ctx.has_residual else None
    of_both = of_both.to(scale.dtype)
    return of_x, of_residual, of_both[0], of_both[1] if bias is not None else None, None, None


_fused.register_autograd(_gradients, setup_context=_keep)


def fused(
    x_RD: Tensor, residual_RD: Tensor | None, scale_D: Tensor, bias_D: Tensor | None, eps: float, is_rms: bool
) -> Tensor | tuple[Tensor, Tensor]:
    """As `reference`, of contiguous tensors."""
    y_RD, h_RD, _, _ = _fused(x_RD, residual_RD, scale_D, bias_D, eps, is_rms)
    return y_RD if residual_RD is None else (y_RD, h_RD)


def why_not(
    x_RD: Tensor, residual_RD: Tensor | None, scale_D: Tensor, bias_D: Tensor | None, eps: float, is_rms: bool
) -> str | None:
    """Why the fused form does not apply, or None."""
    del eps
    if x_RD.ndim != 2 or x_RD.shape[1] > LONGEST_ROW:
        return f"x is {shape_of(x_RD)}: it should be (R, D) with D of at most {LONGEST_ROW}"
    if residual_RD is not None and (residual_RD.shape, residual_RD.dtype) != (x_RD.shape, x_RD.dtype):
        return "the residual is not of x's shape and dtype"
    if is_rms and bias_D is not None:
        return "RMS norm has no bias"
    return unsuitable(x_RD, residual_RD, scale_D, bias_D)


def _case(
    name: str,
    rows: int,
    width: int,
    *,
    residual: bool = False,
    is_rms: bool = False,
    scale: float = 1.0,
    **kind: Any,
) -> Case:
    def make(generator: torch.Generator, dtype: torch.dtype, device: torch.device) -> Arguments:
        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, device=device)

        # A mean far from 0: a difference of squares would lose it.
        x = (scale * (normal(rows, width) + 3)).to(dtype).requires_grad_()
        r = normal(rows, width).to(dtype).requires_grad_() if residual else None
        s, b = (normal(width).requires_grad_() for _ in range(2))
        return x, r, s, None if is_rms else b, 1e-6, is_rms

    return Case(name=name, make=make, **kind)


def forward_cost(x: Tensor, residual: Tensor | None, *_: Any) -> Cost:
    """x and y; the residual and h."""
    return Cost(bytes_moved=size_in_bytes(x) * (2 if residual is None else 4) + 8 * len(x))


def backward_cost(x: Tensor, residual: Tensor | None, *_: Any) -> Cost:
    """h, dy and dh; the gradient of h."""
    return Cost(bytes_moved=size_in_bytes(x) * (3 if residual is None else 4) + 8 * len(x))


def _launches(element: str, width: int, *, has_residual: bool, is_rms: bool) -> tuple[Launch, ...]:
    x = f"*{element}"
    rest = {"rows": "i32", "width": "i32"}
    sums = {"means": "*fp32", "inverses": "*fp32"}
    forward = {
        "x": x, "residual": x, "scale": "*fp32", "bias": "*fp32", "y": x, "h": x, **sums, **rest, "eps": "fp32"
    }  # fmt: skip
    backward = {
        "h": x, "grads": x, "grads_h": x, "scale": "*fp32", **sums, "out": x,
        "sums": "*fp32", **rest, "num_programs": "i32",
    }  # fmt: skip
    launches = []
    size = ELEMENT_SIZES[element]
    for function, signature, how in (
        (_forward, forward, _how(width, *FORWARD[size])),
        (_backward, backward, _backward_how(width, size)[0]),
    ):
        num_warps, most_registers = how.pop("num_warps"), how.pop("maxnreg", None)
        launches.append(
            Launch(
                function=function,
                signature=signature,
                constants={
                    "HAS_RESIDUAL": has_residual, "HAS_BIAS": not is_rms, "IS_RMS": is_rms, **how
                },
                num_warps=num_warps,
                most_registers=most_registers,
                divisible=tuple(name for name in signature if name not in ("rows", "eps", "num_programs")),
            )
        )  # fmt: skip
    return tuple(launches)


KERNEL = Kernel(
    name="layer_norm",
    reference=reference,
    fused=fused,
    why_not=why_not,
    cases=(
        _case("plain", 3, 5),
        _case("ragged", 13, 517),
        _case("residual", 7, 96, residual=True),
        _case("rms", 9, 130, is_rms=True),
        _case("rms with residual", 600, 6, is_rms=True, residual=True),
        _case("long rows", 3, 5_000, residual=True),
        _case("no rows", 0, 16),
        _case("tiny", 4, 33, scale=1e-6),
        _case("huge", 4, 33, scale=1e6),
        _case("moderate", 4_096, 1_024, size="moderate"),
        _case("wmt", 16_384, 1_024, size="large"),
        _case("wmt with residual", 16_384, 1_024, residual=True, size="large"),
        _case("finewebedu_lm", 65_536, 768, is_rms=True, size="large"),
    ),
    forward_cost=forward_cost,
    backward_cost=backward_cost,
    launches=lambda: tuple(
        launch
        for element in ("fp32", "bf16")
        for has_residual, is_rms in ((False, False), (True, False), (False, True))
        for launch in _launches(element, 1_024, has_residual=has_residual, is_rms=is_rms)
    ),
    choices=(FORWARD, BACKWARD),
)
