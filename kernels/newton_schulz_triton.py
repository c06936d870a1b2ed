"""Orthogonalisation by Newton-Schulz iterations, of many matrices of one shape at once (Muon).

    X_0     = G / (|G| + eps)                       |G| the Frobenius norm
    X_{k+1} = a X + (b A + c A A) X,   A = X X^T    a, b, c = 3.4445, -4.7750, 2.0315

of G (B, M, N), transposed while it is iterated if M > N, so that A is the smaller one. The singular values of G go one
by one through s -> a s + b s^3 + c s^5, which after five steps has brought them into 0.68 to 1.14 if they began above
0.01 |G|, and under 1.21 if not; it does not converge to 1. Source: Jordan et al. 2024, "Muon: an optimizer for hidden
layers in neural networks" (kellerjordan.github.io/posts/muon).

A and P = b A + c A A (which is b A + c A A^T) are symmetric, and one kernel makes both: `out = alpha x x^T + beta y` in
tiles of the upper triangle, each stored twice, the second time transposed. a X + P X is cuBLAS's `baddbmm`. Of square
matrices that is 4 M^3 operations a step in place of 6. float32 is multiplied as three products of TF32 on the matrix
units, not as one: the error is about that of float32, at a third of TF32's rate.

It is not differentiated. Bytes of a step: X read twice and written, A read twice and written, P written and read.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from timetrial.kernels.kernel import Arguments, Case, Cost, Kernel, Launch, size_in_bytes, unsuitable

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
EPSILON = 1e-7
# Rows and columns of a tile, and warps, by the size of an element. 1,024 x 1,024 matrices of bfloat16 have 36 tiles in
# the upper triangle, for 132 multiprocessors: several matrices fill them. float32 is split in two for three products of
# TF32, and a tile of half the side is what fits into the registers of an A100 without spills.
TILES = {2: (128, 8), 4: (64, 4)}
DEPTH_BYTES = 128  # of a row of a tile: 64 bfloat16, 32 float32
STAGES = 4  # of 2 tiles of 16 KiB each at most: 128 KiB of 163 on an A100


def reference(gradient_BMN: Tensor, steps: int) -> Tensor:
    """Of G's shape and dtype, in which it also computes; the norm is at least float32."""
    x_BMN = _start(gradient_BMN)
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        gram_BMM = x_BMN @ x_BMN.mT
        polynomial_BMM = torch.baddbmm(gram_BMM, gram_BMM, gram_BMM, beta=b, alpha=c)
        x_BMN = torch.baddbmm(x_BMN, polynomial_BMM, x_BMN, beta=a)
    return _end(x_BMN, gradient_BMN)


def _start(gradient_BMN: Tensor) -> Tensor:
    """X_0, contiguous, of at least as many columns as rows."""
    wide = gradient_BMN if gradient_BMN.dtype == torch.float64 else gradient_BMN.float()
    norm_B11 = wide.square().sum((1, 2), keepdim=True).sqrt()
    x_BMN = (wide / (norm_B11 + EPSILON)).to(gradient_BMN.dtype)
    return (x_BMN.mT if x_BMN.shape[1] > x_BMN.shape[2] else x_BMN).contiguous()


def _end(x: Tensor, gradient_BMN: Tensor) -> Tensor:
    """Back in the shape that was given."""
    return (x if x.shape == gradient_BMN.shape else x.mT).contiguous()


@triton.jit
def _symmetric(
    x, y, out, rows, width, alpha, beta,
    HAS_Y: tl.constexpr, IN_FLOAT32: tl.constexpr, TILE: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    tiles = tl.cdiv(rows, TILE)
    above, left = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    if above <= left:
        matrix = tl.program_id(1).to(tl.int64)
        x += matrix * rows * width
        row = above * TILE + tl.arange(0, TILE)
        column = left * TILE + tl.arange(0, TILE)
        total = tl.zeros((TILE, TILE), tl.float32)
        for first in range(0, width, DEPTH):
            at = first + tl.arange(0, DEPTH)
            one = tl.load(
                x + row[:, None] * width + at[None, :],
                mask=(row < rows)[:, None] & (at < width)[None, :], other=0.0,
            )  # fmt: skip
            two = tl.load(
                x + column[:, None] * width + at[None, :],
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
        value = total.to(out.dtype.element_ty)
        tl.store(out + place, value, mask=inside)
        if above < left:
            mirrored = column[:, None] * rows + row[None, :]
            tl.store(out + mirrored, tl.trans(value), mask=(column < rows)[:, None] & (row < rows)[None, :])


def _product(x: Tensor, y: Tensor | None, alpha: float, beta: float) -> Tensor:
    """alpha x x^T + beta y of each matrix, (B, M, M)."""
    matrices, rows, width = x.shape
    out = x.new_empty((matrices, rows, rows))
    tile, num_warps = TILES[x.element_size()]
    if out.numel():
        _symmetric[(triton.cdiv(rows, tile) ** 2, matrices)](
            x, y, out, rows, width, alpha, beta,
            HAS_Y=y is not None, IN_FLOAT32=not x.is_cuda,  # Triton's interpreter multiplies bfloat16 wrongly
            TILE=tile, DEPTH=DEPTH_BYTES // x.element_size(), num_warps=num_warps, num_stages=STAGES,
        )  # fmt: skip
    return out


@torch.library.custom_op("timetrial::newton_schulz", mutates_args=())
def _fused(gradient: Tensor, steps: int) -> Tensor:
    x = _start(gradient)
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        gram = _product(x, None, 1.0, 0.0)
        x = torch.baddbmm(x, _product(gram, gram, c, b), x, beta=a)
    out = _end(x, gradient)
    return out.clone() if out.data_ptr() == gradient.data_ptr() else out


@_fused.register_fake
def _(gradient: Tensor, steps: int) -> Tensor:
    return torch.empty_like(gradient)


def fused(gradient_BMN: Tensor, steps: int) -> Tensor:
    """As `reference`, of a contiguous tensor; without a gradient."""
    out: Tensor = _fused(gradient_BMN, steps)
    return out


def why_not(gradient_BMN: Tensor, steps: int) -> str | None:
    """Why the fused form does not apply, or None."""
    del steps
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


def _launch(element: str) -> Launch:
    signature = {
        "x": f"*{element}", "y": f"*{element}", "out": f"*{element}",
        "rows": "i32", "width": "i32", "alpha": "fp32", "beta": "fp32",
    }  # fmt: skip
    size = 4 if element == "fp32" else 2
    tile, num_warps = TILES[size]
    return Launch(
        function=_symmetric,
        signature=signature,
        constants={"HAS_Y": True, "IN_FLOAT32": False, "TILE": tile, "DEPTH": DEPTH_BYTES // size},
        num_warps=num_warps,
        num_stages=STAGES,
        divisible=("x", "y", "out", "rows", "width"),
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
    launches=tuple(_launch(element) for element in ("fp32", "bf16")),
)
