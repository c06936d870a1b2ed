"""Structural similarity (SSIM) of images whose normalisation is undone on the way: one pass over both.

    u = (x std + mean) / L,   v = (y std + mean) / L                  of each image: std, mean and data range L
    S_w = (2 a b + c1) (2 cov + c2) / ((a^2 + b^2 + c1) (var + c2)),  c1 = 0.01^2, c2 = 0.03^2
    ssim = mean_w S_w, clipped to [-1, 1]

of images x and targets y (B, H, W), over all whole windows w of 7 x 7 pixels; a, b the means of u and v in a window,
var the sum of their variances and cov their covariance, both divided by 48 (Wang et al. 2004). float32 in between. A
NaN in an image makes its ssim NaN.

Variances come from sums of u, v, u^2 + v^2 and u v, of pixels less a target's value near by: that cancels little where
100 data ranges are added to both images. A program walks down a strip of rows: sums over 7 columns by loads that the
first cache serves, over 7 rows by the last six of those sums, in registers. It stores one sum of similarities, and
torch adds the strips up: always in the same order. There is no gradient: what needs one is left to plain torch.

Bytes: x and y once, 210 MB for 256 images of 320 x 320 in float32, 0.07 ms at 3 TB/s. Each pair of pixels is loaded
7 x 38 / 32 times from the first cache: 0.44 G loads of 4 bytes, 0.06 ms at 32 a clock on 132 multiprocessors of
1.75 GHz. A compiler stores moments (4 images) and their sums over columns (4), and reads each again, after x, y and the
target once more for its mean: 19 images instead of 2.
"""

from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from timetrial.kernels.kernel import Arguments, Case, Cost, Kernel, Launch, size_in_bytes, unsuitable

WINDOW = 7  # pixels on a side
C1, C2 = 0.01**2, 0.03**2
# Of 314 x 314 windows: 5 blocks of 64 columns and 10 strips of 32 rows waste 4 %, and are 12,800 programs of two warps
# for 256 images. A program reads 38 rows.
BLOCK = 64
ROWS = 32
WARPS = 2


def reference(
    images_BHW: Tensor, targets_BHW: Tensor, mean_B: Tensor, std_B: Tensor, data_range_B: Tensor
) -> Tensor:
    """The mean similarity of each image, (B,) float32 or float64."""
    wide = torch.float64 if images_BHW.dtype == torch.float64 else torch.float32
    mean, std, scale = (value.to(wide)[:, None, None] for value in (mean_B, std_B, data_range_B))
    x, y = ((pixels.to(wide) * std + mean) / scale for pixels in (images_BHW, targets_BHW))
    shift = y.mean((1, 2), keepdim=True)
    x, y = x - shift, y - shift
    # Two averages of 7 are one of 7 x 7. Pooling rather than a convolution, which GPUs may round to TF32.
    moments = torch.stack((x, y, x * x + y * y, x * y), 1)
    moments = F.avg_pool2d(F.avg_pool2d(moments, (WINDOW, 1), 1), (1, WINDOW), 1)
    mean_x, mean_y, squares, products = moments.unbind(1)
    sample = WINDOW**2 / (WINDOW**2 - 1)
    variances = sample * (squares - mean_x * mean_x - mean_y * mean_y)
    covariance = sample * (products - mean_x * mean_y)
    a, b = mean_x + shift, mean_y + shift
    similarity = (2 * a * b + C1) * (2 * covariance + C2) / ((a * a + b * b + C1) * (variances + C2))
    return similarity.mean((1, 2)).clamp(-1, 1)


@triton.jit
def _moments(images, targets, begin, shift, scale, inside, WINDOW: tl.constexpr):
    """Sums over the pixels from `begin` on, of both images, of their squares and of their products."""
    x = tl.zeros_like(shift)
    y, squares, products = x, x, x
    for place in tl.static_range(WINDOW):
        u = (tl.load(images + begin + place, mask=inside, other=0.0).to(tl.float32) - shift) * scale
        v = (tl.load(targets + begin + place, mask=inside, other=0.0).to(tl.float32) - shift) * scale
        x, y, squares, products = x + u, y + v, squares + (u * u + v * v), products + u * v
    return x, y, squares, products


@triton.jit
def _similarity(x, y, squares, products, shift, C1: tl.constexpr, C2: tl.constexpr, WINDOW: tl.constexpr):
    """Of windows with these sums of pixels less `shift`, all in data ranges."""
    COUNT: tl.constexpr = WINDOW * WINDOW
    mean_x, mean_y = x / COUNT, y / COUNT
    variances = (squares - x * mean_x - y * mean_y) / (COUNT - 1)
    covariance = (products - x * mean_y) / (COUNT - 1)
    a, b = mean_x + shift, mean_y + shift
    return (2 * a * b + C1) * (2 * covariance + C2) / ((a * a + b * b + C1) * (variances + C2))


@triton.jit
def _forward(
    images, targets, mean, std, data_range, sums, height, width, strips, C1: tl.constexpr, C2: tl.constexpr,
    WINDOW: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    batch, first = tl.program_id(0) // strips, tl.program_id(0) % strips * ROWS
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column <= width - WINDOW
    begin = batch.to(tl.int64) * height * width + column
    unit = 1 / tl.load(data_range + batch).to(tl.float32)
    scale = tl.load(std + batch).to(tl.float32) * unit
    shift = tl.load(targets + begin + first * width + WINDOW // 2, mask=inside, other=0.0).to(tl.float32)
    level = shift * scale + tl.load(mean + batch).to(tl.float32) * unit
    # Sums over 7 columns, of the six rows before this one.
    x0 = tl.zeros((BLOCK,), tl.float32)
    x1, x2, x3, x4, x5 = x0, x0, x0, x0, x0
    y0, y1, y2, y3, y4, y5 = x0, x0, x0, x0, x0, x0
    q0, q1, q2, q3, q4, q5 = x0, x0, x0, x0, x0, x0
    p0, p1, p2, p3, p4, p5 = x0, x0, x0, x0, x0, x0
    total = x0
    for row in range(first, tl.minimum(first + ROWS + WINDOW - 1, height)):
        x, y, q, p = _moments(images, targets, begin + row * width, shift, scale, inside, WINDOW)
        similarity = _similarity(
            x0 + x1 + x2 + x3 + x4 + x5 + x,
            y0 + y1 + y2 + y3 + y4 + y5 + y,
            q0 + q1 + q2 + q3 + q4 + q5 + q,
            p0 + p1 + p2 + p3 + p4 + p5 + p,
            level, C1, C2, WINDOW,
        )  # fmt: skip
        total += tl.where(inside & (row >= first + WINDOW - 1), similarity, 0.0)
        x0, x1, x2, x3, x4, x5 = x1, x2, x3, x4, x5, x
        y0, y1, y2, y3, y4, y5 = y1, y2, y3, y4, y5, y
        q0, q1, q2, q3, q4, q5 = q1, q2, q3, q4, q5, q
        p0, p1, p2, p3, p4, p5 = p1, p2, p3, p4, p5, p
    tl.store(sums + tl.program_id(0) * tl.num_programs(1) + tl.program_id(1), tl.sum(total, 0))


@torch.library.custom_op("timetrial::ssim", mutates_args=())
def _fused(images: Tensor, targets: Tensor, mean: Tensor, std: Tensor, data_range: Tensor) -> Tensor:
    batch, height, width = images.shape
    across, down = width - WINDOW + 1, height - WINDOW + 1
    strips, blocks = triton.cdiv(down, ROWS), triton.cdiv(across, BLOCK)
    sums = torch.empty((batch, strips * blocks), dtype=torch.float32, device=images.device)
    if batch:
        _forward[(batch * strips, blocks)](
            images, targets, mean, std, data_range, sums, height, width, strips,
            C1=C1, C2=C2, WINDOW=WINDOW, ROWS=ROWS, BLOCK=BLOCK, num_warps=WARPS,
        )  # fmt: skip
    return (sums.sum(1) / (across * down)).clamp(-1, 1)


@_fused.register_fake
def _(images: Tensor, targets: Tensor, mean: Tensor, std: Tensor, data_range: Tensor) -> Tensor:
    return images.new_empty(len(images), dtype=torch.float32)


def fused(
    images_BHW: Tensor, targets_BHW: Tensor, mean_B: Tensor, std_B: Tensor, data_range_B: Tensor
) -> Tensor:
    """As `reference`, of contiguous tensors; float32, without a gradient."""
    ssim: Tensor = _fused(images_BHW, targets_BHW, mean_B, std_B, data_range_B)
    return ssim


def why_not(
    images_BHW: Tensor, targets_BHW: Tensor, mean_B: Tensor, std_B: Tensor, data_range_B: Tensor
) -> str | None:
    """Why the fused form does not apply, or None."""
    tensors = (images_BHW, targets_BHW, mean_B, std_B, data_range_B)
    if images_BHW.ndim != 3 or images_BHW.shape != targets_BHW.shape or min(images_BHW.shape[1:]) < WINDOW:
        return (
            f"images are {tuple(images_BHW.shape)} and targets {tuple(targets_BHW.shape)}: both should be (B, H, W), "
            f"H and W at least {WINDOW}"
        )
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return "a gradient is asked for, and the fused form has none"
    return unsuitable(*tensors)


def _case(
    name: str, batch: int, height: int, width: int, *, scale: float = 1.0, level: float = 0.5, **kind: Any
) -> Case:
    def make(generator: torch.Generator, dtype: torch.dtype, device: torch.device) -> Arguments:
        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, device=device)

        targets = normal(batch, height, width).cumsum(2) / 4 if width else normal(batch, height, width)
        images = targets + 0.3 * normal(batch, height, width)
        std = scale * (0.5 + torch.rand(batch, generator=generator, device=device))
        return images.to(dtype), targets.to(dtype), level * scale + std, std, 6 * std

    return Case(name=name, make=make, **kind)


def forward_cost(images: Tensor, targets: Tensor, *facts: Tensor) -> Cost:
    """Both images, three numbers an image, and one more."""
    return Cost(bytes_moved=size_in_bytes(images, targets, *facts) + 4 * len(images))


def backward_cost(*_: Tensor) -> Cost:
    """Nothing: there is no gradient."""
    return Cost(bytes_moved=0)


def _launch(element: str) -> Launch:
    x, number = f"*{element}", "*fp32"
    signature = {
        "images": x, "targets": x, "mean": number, "std": number, "data_range": number, "sums": number,
        "height": "i32", "width": "i32", "strips": "i32",
    }  # fmt: skip
    return Launch(
        function=_forward,
        signature=signature,
        constants={"C1": C1, "C2": C2, "WINDOW": WINDOW, "ROWS": ROWS, "BLOCK": BLOCK},
        num_warps=WARPS,
        divisible=tuple(name for name in signature if name != "strips"),
        is_vectorised=False,  # windows begin at every pixel: neighbours load from neighbouring addresses
    )


KERNEL = Kernel(
    name="ssim",
    reference=reference,
    fused=fused,
    why_not=why_not,
    cases=(
        _case("plain", 2, 9, 12),
        _case("ragged", 1, ROWS + 9, BLOCK + 8),
        _case("one window", 3, 7, 7),
        _case("no rows", 0, 8, 8),
        _case("100 data ranges above", 2, 9, 10, level=600.0),
        _case("tiny", 2, 9, 10, scale=1e-6),
        _case("huge", 2, 9, 10, scale=1e6),
        _case("fastmri", 256, 320, 320, is_large=True),
    ),
    forward_cost=forward_cost,
    backward_cost=backward_cost,
    launches=tuple(map(_launch, ("fp32", "bf16"))),
)
