"""Structural similarity (SSIM) of images whose normalisation is undone on the way: one pass over both.

    u = (x std + mean) / L,   v = (y std + mean) / L                  of each image: std, mean and data range L
    S_w = (2 a b + c1) (2 cov + c2) / ((a^2 + b^2 + c1) (var + c2)),  c1 = 0.01^2, c2 = 0.03^2
    ssim = mean_w S_w, clipped to [-1, 1]

of images x and targets y (B, H, W), over all whole windows w of 7 x 7 pixels; a, b the means of u and v in a window,
var the sum of their variances and cov their covariance, both divided by 48 (Wang et al. 2004). float32 in between. A
NaN in an image makes its ssim NaN. With partial derivatives of S by a, b, var and cov,

    dx_p = f (sum_w (S_a - Q a - R b) + u_p sum_w Q + v_p sum_w R),   Q = (49/24) S_var,  R = (49/48) S_cov
    dy_p = f (sum_w (S_b - Q b - R a) + v_p sum_w Q + u_p sum_w R),   f = g std / (49 L W)

over the windows w that pixel p lies in, W all windows of an image and g the gradient of its ssim. Clipping, which only
rounding brings about, is left out of it.

Variances come from sums of u, v, u^2 + v^2 and u v, of pixels less a target's value near by: that cancels little where
100 data ranges are added to both images. A program walks down a strip of rows: sums over 7 columns by loads that the
first cache serves, over 7 rows in registers. It stores one sum of similarities, and torch adds the strips up: always in
the same order. The backward pass stores each window's four summands and adds them up around each pixel likewise.

Bytes, forward: x and y once, 210 MB for 256 images of 320 x 320 in float32, 0.07 ms at 3 TB/s. Each pair of pixels is
loaded 7 x 38 / 32 times from the first cache: 0.44 G loads of 4 bytes, 0.06 ms at 32 a clock on 132 multiprocessors of
1.75 GHz. A compiler stores moments (4 images) and their sums over columns (4), and reads each again, after x, y and the
target once more for its mean: 19 images instead of 2. Backward: 14 images, as this is a metric and not worth more.
"""

from typing import Any

import torch
import torch.nn.functional as F
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
    shape_of,
    size_in_bytes,
    unsuitable,
)
from timetrial.kernels.plain_gradients_torch import plain_gradients

WINDOW, C1, C2 = 7, 0.01**2, 0.03**2  # pixels on a side, and what keeps quotients finite
# Columns, rows and warps of a program. Of 314 x 314 windows, 5 blocks of 64 columns and 10 strips of 32 rows waste 4 %,
# and are 12,800 programs of two warps for 256 images. A program reads 38 rows.
OPTIONS = ((64, 32, 2), (64, 64, 2), (128, 32, 4))
BACKWARD_REGISTERS = 96  # of a thread: in fewer, not all 30 loads of a row are under way together
HOW = Choice(kernel="ssim", launch="both", passes="both", options=dict.fromkeys((4, 2), OPTIONS))


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
def _zeros(BLOCK: tl.constexpr):
    """Each made for itself: of two names of one value, Triton's compiler takes what a loop changes for unchanged."""
    return (
        tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32),
        tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32),
    )  # fmt: skip


@triton.jit
def _pixels(image, at, scale, origin):
    """In data ranges, less `origin`."""
    return tl.fma(tl.load(image + at).to(tl.float32), scale, -origin)


@triton.jit
def _moments(images, targets, begin, scale, origin, WINDOW: tl.constexpr):
    """Sums over the pixels from `begin` on, of both images, of their squares and of their products."""
    x, y = tl.zeros(begin.shape, tl.float32), tl.zeros(begin.shape, tl.float32)
    squares, products = tl.zeros(begin.shape, tl.float32), tl.zeros(begin.shape, tl.float32)
    for place in tl.static_range(WINDOW):
        u = _pixels(images, begin + place, scale, origin)
        v = _pixels(targets, begin + place, scale, origin)
        x, y, squares, products = x + u, y + v, squares + u * u + v * v, products + u * v
    return x, y, squares, products


@triton.jit
def _windows(x, y, squares, products, level, C1: tl.constexpr, C2: tl.constexpr, WINDOW: tl.constexpr):
    """Of windows with these sums of pixels less `level`: both factors of S, their divisors' inverses, and means."""
    COUNT: tl.constexpr = WINDOW * WINDOW
    mean_x, mean_y = x / COUNT, y / COUNT
    variances = (squares - x * mean_x - y * mean_y) / (COUNT - 1)
    covariance = (products - x * mean_y) / (COUNT - 1)
    a, b = mean_x + level, mean_y + level
    root_means, root_variances = tl.rsqrt(a * a + b * b + C1), tl.rsqrt(variances + C2)
    per_means, per_variances = root_means * root_means, root_variances * root_variances
    of_means, of_variances = (2 * a * b + C1) * per_means, (2 * covariance + C2) * per_variances
    return of_means, of_variances, per_means, per_variances, mean_x, mean_y


@triton.jit
def _store_summands(
    maps, at, size, here, of_means, of_variances, per_means, per_variances, mean_x, mean_y, level, WINDOW: tl.constexpr,
):  # fmt: skip
    """S_a - Q a - R b, S_b - Q b - R a, Q and R, of means a and b that are less `level`."""
    SAMPLE: tl.constexpr = WINDOW * WINDOW / (WINDOW * WINDOW - 1)
    a, b = mean_x + level, mean_y + level
    r = 2 * SAMPLE * of_means * per_variances
    q = -of_variances * r
    outer = 2 * of_variances * per_means
    tl.store(maps + at, outer * (b - of_means * a) - q * mean_x - r * mean_y, mask=here)
    tl.store(maps + size + at, outer * (a - of_means * b) - q * mean_y - r * mean_x, mask=here)
    tl.store(maps + 2 * size + at, q, mask=here)
    tl.store(maps + 3 * size + at, r, mask=here)


@triton.jit
def _forward(
    images, targets, mean, std, data_range, out, height, width, strips, size,
    STORES_SUMMANDS: tl.constexpr, C1: tl.constexpr, C2: tl.constexpr,
    WINDOW: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sums of similarities to `out`, one a program; or the summands of the gradient, `size` windows of each."""
    batch, first = tl.program_id(0) // strips, tl.program_id(0) % strips * ROWS
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column <= width - WINDOW
    # Behind the last window it is reckoned again, and not stored.
    image = batch.to(tl.int64) * height * width
    begin = image + tl.minimum(column, width - WINDOW)
    unit = 1 / tl.load(data_range + batch).to(tl.float32)
    scale = tl.load(std + batch).to(tl.float32) * unit
    near = image if STORES_SUMMANDS else begin + first * width + WINDOW // 2
    origin = tl.load(targets + near).to(tl.float32) * scale
    level = origin + tl.load(mean + batch).to(tl.float32) * unit
    # Sums over 7 columns, and over the rows so far of the next six windows: adding a row moves them up.
    x0, x1, x2, x3, x4, x5 = _zeros(BLOCK)
    y0, y1, y2, y3, y4, y5 = _zeros(BLOCK)
    q0, q1, q2, q3, q4, q5 = _zeros(BLOCK)
    p0, p1, p2, p3, p4, p5 = _zeros(BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for row in range(first, tl.minimum(first + ROWS + WINDOW - 1, height)):
        x, y, q, p = _moments(images, targets, begin + row * width, scale, origin, WINDOW)
        of_means, of_variances, per_means, per_variances, mean_x, mean_y = _windows(
            x0 + x, y0 + y, q0 + q, p0 + p, level, C1, C2, WINDOW
        )
        exists = inside & (row >= first + WINDOW - 1)
        if STORES_SUMMANDS:
            down, across = height - WINDOW + 1, width - WINDOW + 1
            at = (batch.to(tl.int64) * down + row - WINDOW + 1) * across + column
            _store_summands(
                out, at, size, exists, of_means, of_variances, per_means, per_variances, mean_x, mean_y, level, WINDOW
            )  # fmt: skip
        else:
            total += tl.where(exists, of_means * of_variances, 0.0)
        x0, x1, x2, x3, x4, x5 = x1 + x, x2 + x, x3 + x, x4 + x, x5 + x, x
        y0, y1, y2, y3, y4, y5 = y1 + y, y2 + y, y3 + y, y4 + y, y5 + y, y
        q0, q1, q2, q3, q4, q5 = q1 + q, q2 + q, q3 + q, q4 + q, q5 + q, q
        p0, p1, p2, p3, p4, p5 = p1 + p, p2 + p, p3 + p, p4 + p, p5 + p, p
    if not STORES_SUMMANDS:
        tl.store(out + tl.program_id(0) * tl.num_programs(1) + tl.program_id(1), tl.sum(total, 0))


@triton.jit
def _across(maps, begin, column, across, is_row, WINDOW: tl.constexpr, BLOCK: tl.constexpr):
    """Sums over the windows of a row that a pixel of these columns lies in."""
    total = tl.zeros((BLOCK,), tl.float32)
    for place in tl.static_range(WINDOW):
        window = column - place
        total += tl.load(maps + begin + window, mask=is_row & (window >= 0) & (window < across), other=0.0)
    return total


@triton.jit
def _backward(
    images, targets, std, data_range, maps, grads, of_images, of_targets, height, width, strips, size,
    WINDOW: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    batch, first = tl.program_id(0) // strips, tl.program_id(0) % strips * ROWS
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    begin = batch.to(tl.int64) * height * width
    down, across = height - WINDOW + 1, width - WINDOW + 1
    scale = tl.load(std + batch).to(tl.float32) / tl.load(data_range + batch).to(tl.float32)
    factor = tl.load(grads + batch) * scale / (WINDOW * WINDOW) / (down * across)
    origin = tl.load(targets + begin).to(tl.float32) * scale
    x0, x1, x2, x3, x4, x5 = _zeros(BLOCK)
    y0, y1, y2, y3, y4, y5 = _zeros(BLOCK)
    q0, q1, q2, q3, q4, q5 = _zeros(BLOCK)
    r0, r1, r2, r3, r4, r5 = _zeros(BLOCK)
    for row in range(first - WINDOW + 1, tl.minimum(first + ROWS, height)):
        is_row = (row >= 0) & (row < down)
        window = (batch.to(tl.int64) * down + row) * across
        x = _across(maps, window, column, across, is_row, WINDOW, BLOCK)
        y = _across(maps + size, window, column, across, is_row, WINDOW, BLOCK)
        q = _across(maps + 2 * size, window, column, across, is_row, WINDOW, BLOCK)
        r = _across(maps + 3 * size, window, column, across, is_row, WINDOW, BLOCK)
        of_x, of_y, of_same, of_other = x0 + x, y0 + y, q0 + q, r0 + r
        inside = (column < width) & (row >= first)
        at = begin + tl.maximum(row, 0) * width + tl.minimum(column, width - 1)
        u, v = _pixels(images, at, scale, origin), _pixels(targets, at, scale, origin)
        of_x, of_y = of_x + u * of_same + v * of_other, of_y + v * of_same + u * of_other
        tl.store(of_images + at, (factor * of_x).to(of_images.dtype.element_ty), mask=inside)
        tl.store(of_targets + at, (factor * of_y).to(of_targets.dtype.element_ty), mask=inside)
        x0, x1, x2, x3, x4, x5 = x1 + x, x2 + x, x3 + x, x4 + x, x5 + x, x
        y0, y1, y2, y3, y4, y5 = y1 + y, y2 + y, y3 + y, y4 + y, y5 + y, y
        q0, q1, q2, q3, q4, q5 = q1 + q, q2 + q, q3 + q, q4 + q, q5 + q, q
        r0, r1, r2, r3, r4, r5 = r1 + r, r2 + r, r3 + r, r4 + r, r5 + r, r


def _how(element_size: int) -> dict[str, int]:
    block, rows, num_warps = HOW[element_size]
    return {"WINDOW": WINDOW, "ROWS": rows, "BLOCK": block, "num_warps": num_warps}


def _strips(down: int, across: int, how: dict[str, int]) -> tuple[int, int]:
    """Strips and blocks of an image."""
    return triton.cdiv(down, how["ROWS"]), triton.cdiv(across, how["BLOCK"])


@torch.library.custom_op("timetrial::ssim", mutates_args=())
def _fused(images: Tensor, targets: Tensor, mean: Tensor, std: Tensor, data_range: Tensor) -> Tensor:
    batch, height, width = images.shape
    down, across = height - WINDOW + 1, width - WINDOW + 1
    how = _how(images.element_size())
    strips, blocks = _strips(down, across, how)
    sums = torch.empty((batch, strips * blocks), dtype=torch.float32, device=images.device)
    if batch:
        _forward[(batch * strips, blocks)](
            images, targets, mean, std, data_range, sums, height, width, strips, 0,
            STORES_SUMMANDS=False, C1=C1, C2=C2, **how,
        )  # fmt: skip
    return (sums.sum(1) / (down * across)).clamp(-1, 1)


@_fused.register_fake
def _(images: Tensor, targets: Tensor, mean: Tensor, std: Tensor, data_range: Tensor) -> Tensor:
    return images.new_empty(len(images), dtype=torch.float32)


@torch.library.custom_op("timetrial::ssim_backward", mutates_args=())
def _fused_backward(
    images: Tensor, targets: Tensor, mean: Tensor, std: Tensor, data_range: Tensor, grads: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of images and targets."""
    batch, height, width = images.shape
    down, across = height - WINDOW + 1, width - WINDOW + 1
    size = batch * down * across
    maps = torch.empty((4, size), dtype=torch.float32, device=images.device)
    of_images, of_targets = torch.empty_like(images), torch.empty_like(targets)
    how = _how(images.element_size())
    if batch:
        strips, blocks = _strips(down, across, how)
        _forward[(batch * strips, blocks)](
            images, targets, mean, std, data_range, maps, height, width, strips, size,
            STORES_SUMMANDS=True, C1=C1, C2=C2, **how,
        )  # fmt: skip
        strips, blocks = _strips(height, width, how)
        _backward[(batch * strips, blocks)](
            images, targets, std, data_range, maps, grads, of_images, of_targets, height, width, strips, size,
            maxnreg=BACKWARD_REGISTERS, **how,
        )  # fmt: skip
    return of_images, of_targets


@_fused_backward.register_fake
def _(
    images: Tensor, targets: Tensor, mean: Tensor, std: Tensor, data_range: Tensor, grads: Tensor
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(images), torch.empty_like(targets)


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    del output
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, of_ssim: Tensor) -> tuple[Tensor | None, ...]:
    if torch.is_grad_enabled():
        return plain_gradients(reference, ctx.saved_tensors, of_ssim)
    of_images, of_targets = _fused_backward(*ctx.saved_tensors, of_ssim.contiguous())
    return of_images, of_targets, None, None, None


_fused.register_autograd(_gradients, setup_context=_keep)


def fused(
    images_BHW: Tensor, targets_BHW: Tensor, mean_B: Tensor, std_B: Tensor, data_range_B: Tensor
) -> Tensor:
    """As `reference`, of contiguous tensors; float32. Gradients flow to images and targets alone."""
    ssim: Tensor = _fused(images_BHW, targets_BHW, mean_B, std_B, data_range_B)
    return ssim


def why_not(
    images_BHW: Tensor, targets_BHW: Tensor, mean_B: Tensor, std_B: Tensor, data_range_B: Tensor
) -> str | None:
    """Why the fused form does not apply, or None."""
    facts = (mean_B, std_B, data_range_B)
    if images_BHW.ndim != 3 or images_BHW.shape != targets_BHW.shape or min(images_BHW.shape[1:]) < WINDOW:
        return (
            f"images are {shape_of(images_BHW)} and targets {shape_of(targets_BHW)}: both should be (B, H, W), "
            f"H and W at least {WINDOW}"
        )
    if torch.is_grad_enabled() and any(fact.requires_grad for fact in facts):
        return "a gradient of mean, std or data range is asked for, and the fused form has none"
    return unsuitable(images_BHW, targets_BHW, *facts)


def _case(
    name: str, batch: int, height: int, width: int, *, scale: float = 1.0, level: float = 0.5, **kind: Any
) -> Case:
    def make(generator: torch.Generator, dtype: torch.dtype, device: torch.device) -> Arguments:
        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, device=device)

        targets = normal(batch, height, width).cumsum(2) / 4 if width else normal(batch, height, width)
        images = targets + 0.3 * normal(batch, height, width)
        std = scale * (0.5 + torch.rand(batch, generator=generator, device=device))
        pixels = (x.to(dtype).requires_grad_() for x in (images, targets))
        return *pixels, level * scale + std, std, 6 * std

    return Case(name=name, make=make, **kind)


def forward_cost(images: Tensor, targets: Tensor, *facts: Tensor) -> Cost:
    """Both images, three numbers an image, and one more."""
    return Cost(bytes_moved=size_in_bytes(images, targets, *facts) + 4 * len(images))


def backward_cost(images: Tensor, targets: Tensor, *facts: Tensor) -> Cost:
    """Both images and their gradients."""
    return Cost(bytes_moved=2 * size_in_bytes(images, targets) + size_in_bytes(*facts) + 4 * len(images))


def _launches(element: str) -> tuple[Launch, ...]:
    x, number = f"*{element}", "*fp32"
    images, facts = {"images": x, "targets": x}, {"std": number, "data_range": number}
    sizes = {"height": "i32", "width": "i32", "strips": "i32", "size": "i32"}
    forward = {**images, "mean": number, **facts, "out": number, **sizes}
    backward = {**images, **facts, "maps": number, "grads": number, "of_images": x, "of_targets": x, **sizes}
    tile = _how(ELEMENT_SIZES[element])
    num_warps = tile.pop("num_warps")
    return tuple(
        Launch(
            function=function,
            signature=signature,
            constants=constants | tile,
            num_warps=num_warps,
            most_registers=BACKWARD_REGISTERS if function is _backward else None,
            divisible=tuple(name for name in signature if name not in ("strips", "size")),
            is_vectorised=False,  # windows begin at every pixel: neighbours load from neighbouring addresses
        )
        for function, signature, constants in (
            (_forward, forward, {"STORES_SUMMANDS": False, "C1": C1, "C2": C2}),
            (_forward, forward, {"STORES_SUMMANDS": True, "C1": C1, "C2": C2}),
            (_backward, backward, {}),
        )
    )


KERNEL = Kernel(
    name="ssim",
    reference=reference,
    fused=fused,
    why_not=why_not,
    cases=(
        _case("plain", 2, 9, 12),
        _case("ragged", 1, 32 + 8, 64 + 8),
        _case("one window", 3, 7, 7),
        _case("no rows", 0, 8, 8),
        _case("100 data ranges above", 2, 9, 10, level=600.0),
        _case("tiny", 2, 9, 10, scale=1e-6),
        _case("huge", 2, 9, 10, scale=1e6),
        _case("moderate", 16, 320, 320, size="moderate"),
        _case("fastmri", 256, 320, 320, size="large"),
    ),
    forward_cost=forward_cost,
    backward_cost=backward_cost,
    launches=lambda: tuple(launch for element in ("fp32", "bf16") for launch in _launches(element)),
    choices=(HOW,),
)
