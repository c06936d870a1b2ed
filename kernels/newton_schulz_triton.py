"""Orthogonalisation by Newton-Schulz iterations, of many matrices of one shape at once (Muon).

    X_0     = G / (|G| + eps)                       |G| the Frobenius norm
    X_{k+1} = (a I + b A + c A A) X,   A = X X^T    a, b, c = 3.4445, -4.7750, 2.0315

of G (B, M, N); if M > N, with A = X^T X and X P in place of P X, so that A is the smaller one. The singular values of G
go one by one through s -> a s + b s^3 + c s^5, which after five steps has brought them into 0.68 to 1.14 if they began
above 0.01 |G|, and under 1.21 if not; it does not converge to 1. Source: Jordan et al. 2024, "Muon: an optimizer for
hidden layers in neural networks" (kellerjordan.github.io/posts/muon).

A and P = a I + b A + c A A are symmetric, and one kernel makes both: `out = s (alpha x x^T + beta y + gamma I)`, or
with x^T x, in tiles of the upper triangle, each stored twice, the second time transposed. P X is cuBLAS's `bmm`. Of
square matrices that is 4 M^3 operations a step in place of 6. X_0 is not stored: s = 1 / (|G| + eps)^2 makes its A of
G, and s = 1 / (|G| + eps) a P that G is multiplied by. float32 is multiplied as three products of TF32 on the matrix
units, not as one: the error is about that of float32, at a third of TF32's rate.

It is not differentiated. Bytes of a step: X read twice and written, A read twice and written, P written and read.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from timetrial.kernels.choice import Choice
from timetrial.kernels.kernel import (
    ELEMENT_SIZES,
    Arguments,
    Case,
    Cost,
    Kernel,
    Launch,
    size_in_bytes,
    unsuitable,
)

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
EPSILON = 1e-7
# Rows and columns of a tile, warps, and stages. 1,024 x 1,024 matrices of bfloat16 have 36 tiles in the upper triangle,
# for 132 multiprocessors: several matrices fill them. Three stages of 2 tiles of 16 KiB each at most are 96 KiB, room
# for which an H100 has twice. float32 is split in two for three products of TF32, and a tile of half the side is what
# fits into the registers of an A100 without spills.
TILES = Choice(
    kernel="newton_schulz",
    launch="symmetric",
    passes="forward",
    options={2: ((128, 8, 3), (128, 8, 4), (64, 4, 4)), 4: ((64, 4, 3), (64, 4, 4), (64, 8, 3))},
)
DEPTH_BYTES = 128  # of a row of a tile: 64 bfloat16, 32 float32


def reference(gradient_BMN: Tensor, steps: int) -> Tensor:
    """Of G's shape and dtype, in which it also computes; the norm is at least float32."""
    x_BMN = (gradient_BMN / _norms(gradient_BMN)).to(gradient_BMN.dtype)
    is_tall = x_BMN.shape[1] > x_BMN.shape[2]
    x_BMN = x_BMN.mT if is_tall else x_BMN
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        gram_BMM = x_BMN @ x_BMN.mT
        polynomial_BMM = torch.baddbmm(gram_BMM, gram_BMM, gram_BMM, beta=b, alpha=c)
        x_BMN = torch.baddbmm(x_BMN, polynomial_BMM, x_BMN, beta=a)
    return (x_BMN.mT if is_tall else x_BMN).contiguous()


def _norms(gradient_BMN: Tensor) -> Tensor:
    """What each matrix is divided by, (B, 1, 1), at least float32."""
    wide = torch.promote_types(gradient_BMN.dtype, torch.float32)
    norms: Tensor = torch.linalg.vector_norm(gradient_BMN, dim=(1, 2), keepdim=True, dtype=wide)
    return norms + EPSILON


@triton.jit
def _symmetric(
    x, y, scales, out, rows, width, alpha, beta, gamma,
    HAS_Y: tl.constexpr, HAS_SCALES: tl.constexpr, IS_TALL: tl.constexpr, IN_FLOAT32: tl.constexpr,
    TILE: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    tiles = tl.cdiv(rows, TILE)
    above, left = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    if above <= left:
        matrix = tl.program_id(1).to(tl.int64)
        x += matrix * rows * width
        row = above * TILE + tl.arange(0, TILE)
        column = left * TILE + tl.arange(0, TILE)
        total = tl.zeros((TILE, TILE), tl.float32)
        # Of x^T x, columns of x take the place of rows.
        row_step, depth_step = 1 if IS_TALL else width, rows if IS_TALL else 1
        for first in range(0, width, DEPTH):
            at = first + tl.arange(0, DEPTH)
            one = tl.load(
                x + row[:, None] * row_step + at[None, :] * depth_step,
                mask=(row < rows)[:, None] & (at < width)[None, :], other=0.0,
            )  # fmt: skip
            two = tl.load(
                x + column[:, None] * row_step + at[None, :] * depth_step,
                mask=(column < rows)[:, None] & (at < width)[None, :], other=0.0,
            )  # fmt: skip
            if IN_FLOAT32:
                one, two = one.to(tl.float32), two.to(tl.float32)
            total = tl.dot(one, tl.trans(two), total, input_precision="tf32x3")
        total *= alpha
        out += matrix * rows * rows
        inside = (row < rows)[:, None] & (column < rows)[None, :]
        place = row[:, None] * rows + column[None, :]
        if HAS_Y:
            total += beta * tl.load(y + matrix * rows * rows + place, mask=inside, other=0.0).to(tl.float32)
        if above == left:
            total += tl.where(row[:, None] == column[None, :], gamma, 0.0)
        if HAS_SCALES:
            total *= tl.load(scales + matrix)
        value = total.to(out.dtype.element_ty)
        tl.store(out + place, value, mask=inside)
        if above < left:
            mirrored = column[:, None] * rows + row[None, :]
            tl.store(out + mirrored, tl.trans(value), mask=(column < rows)[:, None] & (row < rows)[None, :])


def _product(
    x: Tensor, y: Tensor | None, scales: Tensor | None, alpha: float, beta: float, gamma: float
) -> Tensor:
    """(alpha x x^T + beta y + gamma I) s of each matrix, with x^T x if it is tall, (B, M, M); scales (B,) float32."""
    matrices, rows, width = x.shape
    is_tall = rows > width
    if is_tall:
        rows, width = width, rows
    out = x.new_empty((matrices, rows, rows))
    tile, num_warps, num_stages = TILES[x.element_size()]
    if out.numel():
        _symmetric[(triton.cdiv(rows, tile) ** 2, matrices)](
            x, y, scales, out, rows, width, alpha, beta, gamma,
            HAS_Y=y is not None, HAS_SCALES=scales is not None, IS_TALL=is_tall,
            IN_FLOAT32=not x.is_cuda,  # Triton's interpreter multiplies bfloat16 wrongly
            TILE=tile, DEPTH=DEPTH_BYTES // x.element_size(), num_warps=num_warps, num_stages=num_stages,
        )  # fmt: skip
    return out


@torch.library.custom_op("timetrial::newton_schulz", mutates_args=())
def _fused(gradient: Tensor, steps: int) -> Tensor:
    # The matrix units take float32 by rows alone.
    is_turned = gradient.dtype == torch.float32 and gradient.shape[1] > gradient.shape[2]
    x = gradient.mT.contiguous() if is_turned else gradient
    a, b, c = COEFFICIENTS
    scales = 1 / _norms(gradient).flatten()
    for step in range(steps):
        gram = _product(x, None, None if step else scales.square(), 1.0, 0.0, 0.0)
        polynomial = _product(gram, gram, None if step else scales, c, b, a)
        x = torch.bmm(x, polynomial) if x.shape[1] > x.shape[2] else torch.bmm(polynomial, x)
    return x.mT.contiguous() if is_turned else x


@_fused.register_fake
def _(gradient: Tensor, steps: int) -> Tensor:
    return torch.empty_like(gradient)


def fused(gradient_BMN: Tensor, steps: int) -> Tensor:
    """As `reference`, of a contiguous tensor; without a gradient."""
    out: Tensor = _fused(gradient_BMN, steps)
    return out


def why_not(gradient_BMN: Tensor, steps: int) -> str | None:
    """Why the fused form does not apply, or None."""
    if steps < 1:
        return f"there are {steps} steps: there should be one or more"
    if gradient_BMN.ndim != 3:
        return f"gradients are {gradient_BMN.ndim}-D: they should be (matrices, rows, columns)"
    if gradient_BMN.requires_grad and torch.is_grad_enabled():
        return "the fused form has no gradient"
    return unsuitable(gradient_BMN)


def _case(name: str, *shape: int, steps: int = 5, scale: float = 1.0, **kind: Any) -> Case:
    def make(generator: torch.Generator, dtype: torch.dtype, device: torch.device) -> Arguments:
        return (scale * torch.randn(shape, generator=generator, device=device)).to(dtype), steps

    return Case(name=name, make=make, **kind)


def forward_cost(gradient: Tensor, steps: int) -> Cost:
    """G and the result; each step's three products, two of them of one half."""
    matrices, *shape = gradient.shape
    rows, width = sorted(shape)
    flops = matrices * steps * (rows * rows * width + rows**3 + 2 * rows * rows * width)
    return Cost(bytes_moved=2 * size_in_bytes(gradient), flops=flops)


def backward_cost(gradient: Tensor, steps: int) -> Cost:
    """There is none."""
    del gradient, steps
    return Cost(bytes_moved=0)


def _launch(element: str, is_tall: bool) -> Launch:
    signature = {
        "x": f"*{element}", "y": f"*{element}", "scales": "*fp32", "out": f"*{element}",
        "rows": "i32", "width": "i32",
        "alpha": "fp32", "beta": "fp32", "gamma": "fp32",
    }  # fmt: skip
    size = ELEMENT_SIZES[element]
    tile, num_warps, num_stages = TILES[size]
    return Launch(
        function=_symmetric,
        signature=signature,
        constants={
            "HAS_Y": not is_tall,
            "HAS_SCALES": True,
            "IS_TALL": is_tall,
            "IN_FLOAT32": False,
            "TILE": tile,
            "DEPTH": DEPTH_BYTES // size,
        },
        num_warps=num_warps,
        num_stages=num_stages,
        divisible=("x", "y", "scales", "out", "rows", "width"),
        is_matrix=True,
    )


KERNEL = Kernel(
    name="newton_schulz",
    reference=reference,
    fused=fused,
    why_not=why_not,
    cases=(
        _case("wide", 2, 9, 20),
        _case("tall", 2, 20, 9),
        _case("ragged tiles", 1, 140, 150, steps=2),
        _case("no matrices", 0, 3, 4),
        _case("one row", 3, 1, 7),
        _case("all zero", 2, 4, 4, scale=0.0),
        _case("tiny", 1, 8, 8, scale=1e-12),
        _case("moderate", 2, 512, 512, size="moderate"),
        _case("finewebedu_lm attention", 48, 1_024, 1_024, size="large"),
        _case("finewebedu_lm mlp", 12, 8_192, 1_024, size="large"),
    ),
    forward_cost=forward_cost,
    backward_cost=backward_cost,
    # Each product's rounding is magnified 3.4 times by each later step, and the interpreter cuts bfloat16 off.
    slack={"float32": 2e-6, "bfloat16": 2.0**-5},
    launches=lambda: (_launch("fp32", False), _launch("bf16", False), _launch("bf16", True)),
    choices=(TILES,),
)
