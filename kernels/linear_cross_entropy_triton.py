"""A linear map to classes and the softmax cross-entropy of its outputs, without ever holding all of the logits.

    z_rv  = sum_d h_rd W_vd                        in h's dtype, as without this kernel
    loss  = sum_r loss_r(z_r)                      loss_r of `softmax_cross_entropy_triton`, its weights and smoothing
    dh_rd = g sum_v dz_rv W_vd,   dW_vd = g sum_r dz_rv h_rd,   dz_rv = dloss_r / dz_rv

of hidden h (R, D), a matrix W (V, D) and the gradient g of the sum. Rows are taken a chunk at a time: cuBLAS makes the
chunk's logits, one kernel turns them into losses and, in place, into dz, and cuBLAS makes dh and adds to dW, which is
summed in float32. What is kept from forward to backward is dh and dW, not z (`finewebedu_lm`, 16,384 rows in float32:
0.3 GB in place of 3.3).

Gradients are made in the forward pass. Made in the backward pass, the logits would have to be computed anew, which is
four matrix products in place of three, a third more time. The price is that only the sum has a gradient: dW of it is
known but for the factor g, which a gradient for each row's loss would not allow. Losses of rows are there to be looked
at. h must be finite in rows of weight 0 too: dW adds 0 h.

Two things pay for the chunks. The second look at a row's logits, for dz, may find them in the L2 cache, as one program
has the whole row; and as the buffer is our own, W is padded with zeros to a multiple of 16 classes, so that cuBLAS and
the kernel read 16 bytes at a time: with 50,257 classes they cannot otherwise. Against it, each chunk reads and writes
dW, 8 V D bytes and 4 more for a product in bfloat16, while a pass over its logits that is saved is C V bytes times
their size. They balance at C = 2 D rows in float32 and 6 D in bfloat16; a chunk has up to 4 D and 8 D.

Source: the idea of the chunks is that of Hsu et al. 2024 (Liger Kernel, arXiv 2410.10989).
"""

from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from timetrial.kernels import softmax_cross_entropy_triton
from timetrial.kernels.choice import Choice
from timetrial.kernels.kernel import (
    ELEMENT_SIZES,
    VALUES_A_THREAD,
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
from timetrial.kernels.softmax_cross_entropy_triton import logit_gradient, row_loss

CHUNK_BYTES = 16  # of a chunk's logits for each element of W
CLASSES = 16  # the padded number of classes is a multiple of it
# The most logits of a row that are looked at together, and the most warps of a program.
HOW = Choice(
    kernel="linear_cross_entropy",
    launch="both",
    passes="both",
    options=dict.fromkeys((4, 2), ((4_096, 8), (2_048, 8), (8_192, 16))),
)


def reference(
    hidden_RD: Tensor, weight_VD: Tensor, labels_R: Tensor, weights_R: Tensor, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    """The sum of the weighted losses, and each row's (R,) without a gradient; float32, or float64 of float64."""
    logits_RV = F.linear(hidden_RD, weight_VD.to(hidden_RD.dtype))
    losses_R = softmax_cross_entropy_triton.reference(logits_RV, labels_R, weights_R, label_smoothing)
    return losses_R.sum(), losses_R.detach()


@triton.jit
def _losses_and_gradients(
    logits, labels, weights, losses, num_classes, width, smoothing,
    HAS_SMOOTHING: tl.constexpr, HAS_GRADIENT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    begin, label = logits + row * width, tl.load(labels + row).to(tl.int32)
    weight = tl.load(weights + row).to(tl.float32)
    loss, shift, log_total = 0.0, 0.0, 0.0
    if weight != 0:
        loss, shift, log_total = row_loss(
            begin, 0, label, weight, num_classes, width, smoothing, HAS_SMOOTHING, BLOCK
        )
    tl.store(losses + row, loss)
    if HAS_GRADIENT:
        tl.debug_barrier()  # all have read the logit of the true class before one of them writes it
        for first in range(0, width, BLOCK):
            at = first + tl.arange(0, BLOCK)
            gradient = tl.zeros((BLOCK,), tl.float32)
            if weight != 0:
                z = tl.load(begin + at, mask=at < width, other=0.0).to(tl.float32)
                has_label = (label >= first) & (label < first + BLOCK)
                gradient = logit_gradient(
                    z, at, label, has_label, weight, shift, log_total, num_classes, smoothing
                )
                gradient = tl.where(at < num_classes, gradient, 0.0)
            tl.store(begin + at, gradient.to(logits.dtype.element_ty), mask=at < width)


def _block(width: int, element_size: int) -> tuple[int, int]:
    """Logits that are looked at together, and warps that do it."""
    most, most_warps = HOW[element_size]
    block = min(power_of_two(width), most)
    return block, min(max(block // (32 * VALUES_A_THREAD), 1), most_warps)


def _most_rows(hidden: Tensor) -> int:
    """Of a chunk."""
    return max(CHUNK_BYTES * hidden.shape[1] // hidden.element_size(), 1)


@torch.library.custom_op("timetrial::linear_cross_entropy", mutates_args=())
def _fused(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    weights: Tensor,
    label_smoothing: float,
    with_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sum (), losses (R,), both float32, and the sum's gradients of hidden and weight (nothing unless wanted)."""
    rows, classes = len(hidden), len(weight)
    width = triton.cdiv(classes, CLASSES) * CLASSES
    block, num_warps = _block(width, hidden.element_size())
    matrix = weight.to(hidden.dtype)
    if width > classes:
        matrix = F.pad(matrix, (0, 0, 0, width - classes))
    losses = torch.empty(rows, dtype=torch.float32, device=hidden.device)
    of_hidden = torch.empty_like(hidden) if with_gradient else hidden.new_empty(0)
    of_weight = torch.zeros(matrix.shape if with_gradient else 0, dtype=torch.float32, device=hidden.device)
    chunk = triton.cdiv(rows, max(triton.cdiv(rows, _most_rows(hidden)), 1))
    logits = hidden.new_empty((chunk, width))
    for first in range(0, rows, max(chunk, 1)):
        part = slice(first, min(first + chunk, rows))
        h, z = hidden[part], logits[: part.stop - first]
        torch.mm(h, matrix.t(), out=z)
        _losses_and_gradients[(len(h),)](
            z, labels[part], weights[part], losses[part], classes, width, label_smoothing,
            HAS_SMOOTHING=label_smoothing != 0, HAS_GRADIENT=with_gradient, BLOCK=block, num_warps=num_warps,
        )  # fmt: skip
        if with_gradient:
            torch.mm(z, matrix, out=of_hidden[part])
            if hidden.dtype == torch.float32:
                of_weight.addmm_(z.t(), h)
            else:
                of_weight += z.t() @ h
    of_weight = of_weight[:classes].to(weight.dtype)
    return losses.sum(), losses, of_hidden, of_weight


@_fused.register_fake
def _(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    weights: Tensor,
    label_smoothing: float,
    with_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    losses = hidden.new_empty(len(hidden), dtype=torch.float32)
    of_hidden, of_weight = (
        torch.empty_like(x) if with_gradient else x.new_empty(0) for x in (hidden, weight)
    )
    return losses.new_empty(()), losses, of_hidden, of_weight


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.label_smoothing, _ = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*tensors, *output[2:])


def _gradients(ctx: Any, of_sum: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    hidden, weight, labels, weights, *gradients = ctx.saved_tensors
    if torch.is_grad_enabled():
        inputs = hidden, weight, labels, weights, ctx.label_smoothing
        return *plain_gradients(lambda *inputs: reference(*inputs)[0], inputs, of_sum), None
    of_hidden, of_weight = (
        torch._foreach_mul([gradient], of_sum.to(gradient.dtype))[0] for gradient in gradients
    )
    return of_hidden, of_weight, None, None, None, None


_fused.register_autograd(_gradients, setup_context=_keep)


def fused(
    hidden_RD: Tensor, weight_VD: Tensor, labels_R: Tensor, weights_R: Tensor, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    """As `reference`, of contiguous tensors; float32. No gradient flows to weights_R."""
    with_gradient = torch.is_grad_enabled() and (hidden_RD.requires_grad or weight_VD.requires_grad)
    summed, losses_R, _, _ = _fused(hidden_RD, weight_VD, labels_R, weights_R, label_smoothing, with_gradient)
    return summed, losses_R


def why_not(
    hidden_RD: Tensor, weight_VD: Tensor, labels_R: Tensor, weights_R: Tensor, label_smoothing: float
) -> str | None:
    """Why the fused form does not apply, or None."""
    del label_smoothing
    if hidden_RD.ndim != 2 or labels_R.ndim != 1 or weights_R.ndim != 1:
        shapes = shape_of(hidden_RD, labels_R, weights_R)
        return f"hidden, labels and weights are {shapes}: they should be (R, D), (R,) and (R,)"
    if len(hidden_RD) <= _most_rows(hidden_RD):
        return f"hidden is {shape_of(hidden_RD)}, one chunk of rows: there is nothing to save unless there are several"
    return unsuitable(hidden_RD, weight_VD, labels_R, weights_R)


def _case(
    name: str,
    rows: int,
    width: int,
    classes: int,
    *,
    smoothing: float = 0.1,
    scale: float = 1.0,
    masked: float = 0.2,
    **kind: Any,
) -> Case:
    def make(generator: torch.Generator, dtype: torch.dtype, device: torch.device) -> Arguments:
        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, device=device)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, device=device)

        hidden = (scale * normal(rows, width)).to(dtype).requires_grad_()
        matrix = (normal(classes, width) * width**-0.5).to(dtype).requires_grad_()
        labels = (uniform(rows) * classes).long().clamp_max(classes - 1)
        weights = (uniform(rows) >= masked).float() * (0.5 + uniform(rows))
        return hidden, matrix, labels, weights, smoothing

    return Case(name=name, make=make, **kind)


def forward_cost(
    hidden: Tensor, weight: Tensor, labels: Tensor, weights: Tensor, label_smoothing: float
) -> Cost:
    """Three matrix products; hidden, W and their gradients."""
    del label_smoothing
    moved = 2 * size_in_bytes(hidden, weight) + size_in_bytes(labels, weights)
    return Cost(bytes_moved=moved, flops=6 * hidden.numel() * len(weight))


def backward_cost(hidden: Tensor, weight: Tensor, *_: Any) -> Cost:
    """Both gradients, times a number."""
    return Cost(bytes_moved=2 * size_in_bytes(hidden, weight))


def _launch(element: str, classes: int) -> Launch:
    block, num_warps = _block(classes, ELEMENT_SIZES[element])
    return Launch(
        function=_losses_and_gradients,
        signature={
            "logits": f"*{element}", "labels": "*i64", "weights": "*fp32", "losses": "*fp32",
            "num_classes": "i32", "width": "i32", "smoothing": "fp32",
        },
        constants={"HAS_SMOOTHING": True, "HAS_GRADIENT": True, "BLOCK": block},
        num_warps=num_warps,
        divisible=("logits", "labels", "weights", "losses", "width"),
    )  # fmt: skip


KERNEL = Kernel(
    name="linear_cross_entropy",
    reference=reference,
    fused=fused,
    why_not=why_not,
    cases=(
        _case("three chunks", 21, 2, 17),
        _case("ragged", 13, 9, 1_037),
        _case("two blocks and a bit", 3, 4, 16_384 + 5, smoothing=0.0),
        _case("one class", 5, 3, 1),
        _case("no rows", 0, 4, 7),
        _case("all masked", 5, 4, 33, masked=2.0),
        _case("extreme", 6, 16, 257, scale=300.0, smoothing=0.0),
        _case("moderate", 512, 256, 8_000, size="moderate"),
        _case("wmt", 32_768, 1_024, 32_000, size="large"),
        _case("finewebedu_lm", 16_384, 1_024, 50_257, smoothing=0.0, size="large"),
    ),
    forward_cost=forward_cost,
    backward_cost=backward_cost,
    # Of float32, sums of products over 50,257 classes in another order.
    slack={"float32": 8e-6, "bfloat16": 2.0**-7},
    launches=lambda: tuple(_launch(element, 50_257) for element in ("fp32", "bf16")),
    choices=(HOW,),
)
