"""Softmax cross-entropy with label smoothing: one pass over the logits, probabilities are never stored.

    loss_r     = w_r (m_r - (1 - a) z_ry - a mean_v z_rv + s_r),   m_r = max_v z_rv,  s_r = log sum_v exp(z_rv - m_r)
    dz_rv      = g_r w_r (exp(z_rv - m_r - s_r) - (1 - a) [v = y_r] - a / V)

of logits z (R, V), classes y (R,), weights w (R,) and a label smoothing a (AlgoPerf's smoothed labels,
(1 - a) y + a / V). A row of weight 0 has loss 0 and gradient 0 whatever its logits are, and is not read. A NaN in a row
that counts makes its loss NaN.

The forward pass keeps a running maximum and the sum beside it (Milakov and Gimelshein 2018), a block of the row at a
time, in float32; m and s are kept apart, for their sum would round away what large logits differ by. Rows of 50,257 do
not begin at multiples of 16 bytes: a row is read from the last such place before it to the first one behind it, and the
gradient is made in blocks of all logits, which reach into two rows at most. Bytes: z once forward; z once and dz once
backward.
"""

from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from timetrial.kernels.choice import Choice
from timetrial.kernels.exponential_triton import LOG2_E, exp
from timetrial.kernels.kernel import (
    ELEMENT_SIZES,
    Arguments,
    Case,
    Cost,
    Kernel,
    Launch,
    power_of_two,
    size_in_bytes,
    unsuitable,
)
from timetrial.kernels.plain_gradients_torch import plain_gradients

# The most logits that a program looks at together, and its warps: 8 to 32 logits a thread.
FORWARD = Choice(
    kernel="softmax_cross_entropy",
    launch="forward",
    passes="forward",
    options=dict.fromkeys((4, 2), ((4_096, 4), (4_096, 8), (8_192, 8))),
)
BACKWARD = Choice(
    kernel="softmax_cross_entropy",
    launch="backward",
    passes="both",
    options=dict.fromkeys((4, 2), ((1_024, 2), (2_048, 4), (2_048, 8))),
)
GROUP = 8  # of logits that are read at a time: 16 bytes of bfloat16


def reference(logits_RV: Tensor, labels_R: Tensor, weights_R: Tensor, label_smoothing: float) -> Tensor:
    """Weighted loss of each row, (R,) float32 or float64."""
    wide_RV = logits_RV if logits_RV.dtype == torch.float64 else logits_RV.float()
    counts_R1 = (weights_R != 0)[:, None]
    log_p_RV = F.log_softmax(torch.where(counts_R1, wide_RV, 0.0), dim=-1)
    true_R = log_p_RV.gather(1, labels_R.long()[:, None])[:, 0]
    if label_smoothing:
        true_R = (1 - label_smoothing) * true_R + label_smoothing * log_p_RV.mean(1)
    return -true_R * weights_R.to(wide_RV.dtype)


@triton.jit
def _fours(x, BLOCK: tl.constexpr):
    """Sums of each four neighbours, or of all where there are fewer."""
    return tl.sum(tl.reshape(x, (BLOCK // min(BLOCK, 4), min(BLOCK, 4))), 1)


@triton.jit
def row_loss(
    begin, skip, label, weight, num_classes, width, smoothing, HAS_SMOOTHING: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Loss, m and s of a row: of `width` logits from `begin` on, `num_classes` count from the one at `skip` on.

    Only the maximum is made for a whole block each time; each four places, which a thread has, keep sums of their own.
    """
    FOURS: tl.constexpr = max(BLOCK // 4, 1)
    right = tl.load(begin + skip + label).to(tl.float32)
    highest = -float("inf")
    totals, aways = tl.zeros((FOURS,), tl.float32), tl.zeros((FOURS,), tl.float32)
    for first in range(0, width, BLOCK):
        at = first + tl.arange(0, BLOCK)
        if (first >= skip) & (first + BLOCK <= skip + num_classes):
            z = tl.load(begin + at).to(tl.float32)
            if HAS_SMOOTHING:
                aways += _fours(z - right, BLOCK)
        else:
            counts = (at >= skip) & (at < skip + num_classes)
            z = tl.load(begin + at, mask=at < width, other=0.0).to(tl.float32)
            if HAS_SMOOTHING:
                aways += _fours(tl.where(counts, z - right, 0.0), BLOCK)
            z = tl.where(counts, z, -float("inf"))
        new = tl.maximum(highest, tl.max(z, 0))
        base = tl.where(new == -float("inf"), 0.0, new)
        totals = totals * exp(highest - base) + _fours(exp(z - base), BLOCK)
        highest = new
    shift = tl.where(highest == -float("inf"), 0.0, highest)
    log_total = tl.log(tl.sum(totals, 0))
    loss = shift - right + log_total
    if HAS_SMOOTHING:
        loss -= smoothing * (tl.sum(aways, 0) / num_classes)
    return weight * loss, shift, log_total


@triton.jit
def logit_gradient(z, at, label, may_have_label, weight, shift, log_total, num_classes, smoothing):
    """Of the logits z at the places `at` of a row whose loss has the gradient `weight`."""
    probability = tl.exp2((z - shift) * LOG2_E - log_total * LOG2_E)
    gradient = probability * weight - weight * (smoothing / num_classes)
    if may_have_label:
        gradient = tl.where(at == label, gradient - weight * (1 - smoothing), gradient)
    return gradient


@triton.jit
def _forward(
    logits, labels, weights, losses, sums, num_classes, smoothing,
    HAS_SMOOTHING: tl.constexpr, GROUP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    weight = tl.load(weights + row).to(tl.float32)
    loss, shift, log_total = 0.0, 0.0, 0.0
    if weight != 0:
        begin = row * num_classes // GROUP * GROUP
        skip = (row * num_classes - begin).to(tl.int32)
        width = tl.cdiv(skip + num_classes, GROUP) * GROUP
        label = tl.load(labels + row)
        loss, shift, log_total = row_loss(
            logits + begin, skip, label, weight, num_classes, width, smoothing, HAS_SMOOTHING, BLOCK
        )
    tl.store(losses + row, loss)
    tl.store(sums + 2 * row, shift)
    tl.store(sums + 2 * row + 1, log_total)


@triton.jit
def _of_row(labels, weights, sums, grads, row, exists):
    """Label, gradient of the sum times weight, m and s of a row, and whether it counts."""
    weight = tl.load(weights + row, mask=exists, other=0).to(tl.float32)
    label = tl.load(labels + row, mask=exists, other=0).to(tl.int32)
    of_loss = tl.load(grads + row, mask=exists, other=0.0) * weight
    shift = tl.load(sums + 2 * row, mask=exists, other=0.0)
    log_total = tl.load(sums + 2 * row + 1, mask=exists, other=0.0)
    return label, of_loss, shift, log_total, weight != 0


@triton.jit
def _backward(
    logits, labels, weights, sums, grads, out, rows, num_classes, smoothing, BLOCK: tl.constexpr
):  # fmt: skip
    """Of BLOCK logits, no more than a row has."""
    start = tl.program_id(0).to(tl.int64) * BLOCK
    row = start // num_classes
    begin = (start - row * num_classes).to(tl.int32)
    at = tl.arange(0, BLOCK)
    label, of_loss, shift, log_total, counts = _of_row(labels, weights, sums, grads, row, row < rows)
    gradient = tl.zeros((BLOCK,), tl.float32)
    if begin + BLOCK <= num_classes:
        if counts:
            z = tl.load(logits + start + at).to(tl.float32)
            has_label = (label >= begin) & (label < begin + BLOCK)
            gradient = logit_gradient(
                z, at, label - begin, has_label, of_loss, shift, log_total, num_classes, smoothing
            )
        tl.store(out + start + at, gradient.to(out.dtype.element_ty))
    else:
        inside = at < rows.to(tl.int64) * num_classes - start
        is_next = begin + at >= num_classes
        label_1, of_loss_1, shift_1, log_total_1, counts_1 = _of_row(
            labels, weights, sums, grads, row + 1, row + 1 < rows
        )
        if counts | counts_1:
            z = tl.load(logits + start + at, mask=inside, other=0.0).to(tl.float32)
            z = tl.where(tl.where(is_next, counts_1, counts), z, 0.0)
            here, next_ = tl.where(is_next, shift, z), tl.where(is_next, z, shift_1)
            gradient = tl.where(
                is_next,
                logit_gradient(
                    next_, begin + at - num_classes, label_1, True, of_loss_1, shift_1, log_total_1,
                    num_classes, smoothing,
                ),
                logit_gradient(here, begin + at, label, True, of_loss, shift, log_total, num_classes, smoothing),
            )  # fmt: skip
        tl.store(out + start + at, gradient.to(out.dtype.element_ty), mask=inside)


def _how(logits: int, most: int, most_warps: int) -> dict[str, int]:
    """A block of so many logits, a power of two, or of the most, and warps of 16 logits a thread or more."""
    block = min(logits, most)
    return {"BLOCK": block, "num_warps": min(max(block // 512, 1), most_warps)}


@torch.library.custom_op("timetrial::softmax_cross_entropy", mutates_args=())
def _fused(logits: Tensor, labels: Tensor, weights: Tensor, label_smoothing: float) -> tuple[Tensor, Tensor]:
    """Losses (R,), and m and s of each row (R, 2), float32 both."""
    rows, classes = logits.shape
    losses, sums = (
        torch.empty(shape, dtype=torch.float32, device=logits.device) for shape in (rows, (rows, 2))
    )
    if rows:
        _forward[(rows,)](
            logits, labels, weights, losses, sums, classes, label_smoothing,
            HAS_SMOOTHING=label_smoothing != 0, GROUP=1 if logits.numel() % GROUP else GROUP,
            **_how(power_of_two(classes), *FORWARD[logits.element_size()]),
        )  # fmt: skip
    return losses, sums


@_fused.register_fake
def _(logits: Tensor, labels: Tensor, weights: Tensor, label_smoothing: float) -> tuple[Tensor, Tensor]:
    rows = len(logits)
    return logits.new_empty(rows, dtype=torch.float32), logits.new_empty((rows, 2), dtype=torch.float32)


@torch.library.custom_op("timetrial::softmax_cross_entropy_backward", mutates_args=())
def _fused_backward(
    logits: Tensor, labels: Tensor, weights: Tensor, sums: Tensor, grads: Tensor, label_smoothing: float
) -> Tensor:
    """The gradient of the logits, in their dtype, contiguous."""
    rows, classes = logits.shape
    out = torch.empty((rows, classes), dtype=logits.dtype, device=logits.device)
    how = _how(power_of_two(classes + 1) // 2, *BACKWARD[logits.element_size()])
    if rows:
        _backward[(triton.cdiv(logits.numel(), how["BLOCK"]),)](
            logits, labels, weights, sums, grads, out, rows, classes, label_smoothing, **how
        )
    return out


@_fused_backward.register_fake
def _(
    logits: Tensor, labels: Tensor, weights: Tensor, sums: Tensor, grads: Tensor, label_smoothing: float
) -> Tensor:
    return torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    logits, labels, weights, ctx.label_smoothing = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(logits, labels, weights, output[1])


def _gradients(ctx: Any, of_losses: Tensor, of_sums: Tensor) -> tuple[Tensor | None, ...]:
    logits, labels, weights, sums = ctx.saved_tensors
    if torch.is_grad_enabled():
        return plain_gradients(reference, (logits, labels, weights, ctx.label_smoothing), of_losses)
    gradient = _fused_backward(logits, labels, weights, sums, of_losses.contiguous(), ctx.label_smoothing)
    return gradient, None, None, None


_fused.register_autograd(_gradients, setup_context=_keep)


def fused(logits_RV: Tensor, labels_R: Tensor, weights_R: Tensor, label_smoothing: float) -> Tensor:
    """As `reference`, of contiguous tensors; float32 losses. No gradient flows to weights."""
    losses: Tensor = _fused(logits_RV, labels_R, weights_R, label_smoothing)[0]
    return losses


def why_not(logits_RV: Tensor, labels_R: Tensor, weights_R: Tensor, label_smoothing: float) -> str | None:
    """Why the fused form does not apply, or None."""
    del label_smoothing
    if logits_RV.ndim != 2 or labels_R.ndim != 1:
        return f"logits are {logits_RV.ndim}-D and labels {labels_R.ndim}-D: they should be (R, V) and (R,)"
    return unsuitable(logits_RV, labels_R, weights_R)


def _case(
    name: str, rows: int, classes: int, *, smoothing: float = 0.1, scale: float = 1.0, **kind: Any
) -> Case:
    masked, mean = kind.pop("masked", 0.2), kind.pop("mean", 0.0)

    def make(generator: torch.Generator, dtype: torch.dtype, device: torch.device) -> Arguments:
        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, device=device)

        logits = (mean + scale * torch.randn((rows, classes), generator=generator, device=device)).to(dtype)
        labels = (uniform(rows) * classes).long().clamp_max(classes - 1)
        weights = (uniform(rows) >= masked).float() * (0.5 + uniform(rows))
        return logits.requires_grad_(), labels, weights, smoothing

    return Case(name=name, make=make, **kind)


def forward_cost(logits: Tensor, labels: Tensor, weights: Tensor, label_smoothing: float) -> Cost:
    """Logits of rows that count, labels and weights once, and three numbers a row."""
    del label_smoothing
    read = int((weights != 0).sum()) * logits.shape[1] * logits.element_size()
    return Cost(bytes_moved=read + size_in_bytes(labels, weights) + 12 * len(logits))


def backward_cost(logits: Tensor, labels: Tensor, weights: Tensor, label_smoothing: float) -> Cost:
    """The same, and the gradient of the logits."""
    forward = forward_cost(logits, labels, weights, label_smoothing)
    return Cost(bytes_moved=forward.bytes_moved + size_in_bytes(logits))


def _launches(element: str, size: int, *whole: str) -> tuple[Launch, ...]:
    """size: of an element in bytes; whole: what is a multiple of 16."""
    z, numbers = f"*{element}", {"num_classes": "i32", "smoothing": "fp32"}
    rows = {"labels": "*i64", "weights": "*fp32"}
    forward = {"logits": z, **rows, "losses": "*fp32", "sums": "*fp32", **numbers}
    backward = {"logits": z, **rows, "sums": "*fp32", "grads": "*fp32", "out": z, "rows": "i32", **numbers}
    return tuple(
        Launch(
            function=function,
            signature=signature,
            constants=constants | {"BLOCK": block},
            num_warps=num_warps,
            divisible=tuple(
                name for name, kind in signature.items() if kind.startswith("*") or name in whole
            ),
        )
        for function, signature, constants, (block, num_warps) in (
            (_forward, forward, {"HAS_SMOOTHING": True, "GROUP": GROUP}, FORWARD[size]),
            (_backward, backward, {}, BACKWARD[size]),
        )
    )


KERNEL = Kernel(
    name="softmax_cross_entropy",
    reference=reference,
    fused=fused,
    why_not=why_not,
    cases=(
        _case("plain", 4, 17),
        _case("ragged", 13, 1_037),
        _case("two blocks and a bit", 3, 8_192 + 5, smoothing=0.0),
        _case("one class", 4, 1),
        _case("no rows", 0, 7),
        _case("all masked", 5, 33, masked=2.0),
        _case("extreme", 6, 257, scale=300.0, smoothing=0.0),
        _case("far from 0", 6, 1_037, mean=-1e4),
        _case("moderate", 256, 32_000, size="moderate"),
        _case("wmt", 16_384, 32_000, size="large"),
        _case("finewebedu_lm", 16_384, 50_257, smoothing=0.0, size="large"),
        _case("imagenet", 1_024, 1_000, size="large"),
    ),
    forward_cost=forward_cost,
    backward_cost=backward_cost,
    launches=lambda: tuple(
        launch
        for element, size in ELEMENT_SIZES.items()
        for whole in ("num_classes", "rows")
        for launch in _launches(element, size, whole)
    ),
    choices=(FORWARD, BACKWARD),
)
