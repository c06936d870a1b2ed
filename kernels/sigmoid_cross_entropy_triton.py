"""Binary cross-entropy from logits with labels that may be missing, element by element in one pass.

    t_n    = (1 - a) y_n + a / T
    loss_n = w_n (max(z_n, 0) - z_n t_n + log(1 + exp(-|z_n|)))
    dz_n   = g_n w_n (1 / (1 + exp(-z_n)) - t_n)

of logits z and labels y (R, T), 0 or 1, weights w (R, T) and a label smoothing a over T tasks (AlgoPerf's ogbg; with
a = 0 and T = 1 its criteo1tb). Where the weight is 0 the label is missing: loss and gradient are 0 whatever stands
there. A NaN that counts makes its loss NaN.

In float32; log(1 + e) of a small e is taken with the correction for what 1 + e has rounded away (Goldberg 1991,
theorem 4), so that small losses are exact too. Bytes: z, y, w and the loss once forward; z, y, w, g and dz once
backward.
"""

from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from timetrial.kernels.choice import Choice
from timetrial.kernels.exponential_triton import exp
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

# Elements of a program, and warps.
HOW = Choice(
    kernel="sigmoid_cross_entropy",
    launch="both",
    passes="both",
    options=dict.fromkeys((4, 2), ((1_024, 8), (1_024, 4), (512, 2), (2_048, 8))),
)


def reference(logits_RT: Tensor, labels_RT: Tensor, weights_RT: Tensor, label_smoothing: float) -> Tensor:
    """Weighted loss of each element, (R, T) float32 or float64."""
    dtype = torch.float64 if logits_RT.dtype == torch.float64 else torch.float32
    counts_RT = weights_RT != 0
    z_RT = torch.where(counts_RT, logits_RT.to(dtype), 0.0)
    y_RT = torch.where(counts_RT, labels_RT.to(dtype), 0.0)
    smoothed_RT = (1 - label_smoothing) * y_RT + label_smoothing / labels_RT.shape[1]
    losses_RT = F.binary_cross_entropy_with_logits(z_RT, smoothed_RT, reduction="none")
    return losses_RT * weights_RT.to(dtype)


@triton.jit
def _read(logits, labels, weights, block, size, share, keep, BLOCK: tl.constexpr):
    """Places, which of them exist, weights, logits, targets; of those without weight, logit and target are 0."""
    at = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    w = tl.load(weights + at, mask=inside, other=0.0).to(tl.float32)
    z = tl.load(logits + at, mask=inside, other=0.0).to(tl.float32)
    y = tl.load(labels + at, mask=inside, other=0.0).to(tl.float32)
    z = tl.where(w != 0, z, 0.0)
    t = tl.where(w != 0, keep * y + share, 0.0)
    return at, inside, w, z, t


@triton.jit
def _forward(logits, labels, weights, losses, size, share, keep, BLOCK: tl.constexpr):
    at, inside, w, z, t = _read(logits, labels, weights, tl.program_id(0), size, share, keep, BLOCK)
    e = exp(-tl.abs(z))
    u = 1.0 + e
    log_u = tl.where(u == 1.0, e, tl.log(u) * (e / tl.where(u == 1.0, 1.0, u - 1.0)))
    highest = tl.maximum(z, 0.0, propagate_nan=tl.PropagateNan.ALL)
    tl.store(losses + at, w * (highest - z * t + log_u), mask=inside)


@triton.jit
def _backward(logits, labels, weights, grads, out, size, share, keep, BLOCK: tl.constexpr):
    # From the end, which the forward pass has left in the cache.
    block = tl.num_programs(0) - 1 - tl.program_id(0)
    at, inside, w, z, t = _read(logits, labels, weights, block, size, share, keep, BLOCK)
    g = tl.load(grads + at, mask=inside, other=0.0)
    e = exp(-tl.abs(z))
    root = tl.rsqrt(1.0 + e)
    p = tl.where(z >= 0, 1.0, e) * root * root
    tl.store(out + at, (g * w * (p - t)).to(out.dtype.element_ty), mask=inside)


@torch.library.custom_op("timetrial::sigmoid_cross_entropy", mutates_args=())
def _fused(logits: Tensor, labels: Tensor, weights: Tensor, label_smoothing: float) -> Tensor:
    losses = torch.empty(logits.shape, dtype=torch.float32, device=logits.device)
    block, num_warps = HOW[logits.element_size()]
    if size := logits.numel():
        _forward[(triton.cdiv(size, block),)](
            logits, labels, weights, losses, size, label_smoothing / labels.shape[1], 1 - label_smoothing,
            BLOCK=block, num_warps=num_warps,
        )  # fmt: skip
    return losses


@_fused.register_fake
def _(logits: Tensor, labels: Tensor, weights: Tensor, label_smoothing: float) -> Tensor:
    return torch.empty(logits.shape, dtype=torch.float32, device=logits.device)


@torch.library.custom_op("timetrial::sigmoid_cross_entropy_backward", mutates_args=())
def _fused_backward(
    logits: Tensor, labels: Tensor, weights: Tensor, grads: Tensor, label_smoothing: float
) -> Tensor:
    out = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    block, num_warps = HOW[logits.element_size()]
    if size := logits.numel():
        _backward[(triton.cdiv(size, block),)](
            logits, labels, weights, grads, out, size, label_smoothing / labels.shape[1], 1 - label_smoothing,
            BLOCK=block, num_warps=num_warps,
        )  # fmt: skip
    return out


@_fused_backward.register_fake
def _(logits: Tensor, labels: Tensor, weights: Tensor, grads: Tensor, label_smoothing: float) -> Tensor:
    return torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.label_smoothing = inputs
    ctx.save_for_backward(*tensors)


def _gradients(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
    if torch.is_grad_enabled():
        return plain_gradients(reference, (*ctx.saved_tensors, ctx.label_smoothing), above)
    return _fused_backward(*ctx.saved_tensors, above.contiguous(), ctx.label_smoothing), None, None, None


_fused.register_autograd(_gradients, setup_context=_keep)


def fused(logits_RT: Tensor, labels_RT: Tensor, weights_RT: Tensor, label_smoothing: float) -> Tensor:
    """As `reference`, of contiguous tensors; float32 losses. No gradient flows to labels and weights."""
    losses: Tensor = _fused(logits_RT, labels_RT, weights_RT, label_smoothing)
    return losses


def why_not(logits_RT: Tensor, labels_RT: Tensor, weights_RT: Tensor, label_smoothing: float) -> str | None:
    """Why the fused form does not apply, or None."""
    del label_smoothing
    tensors = (logits_RT, labels_RT, weights_RT)
    if logits_RT.ndim != 2 or any(tensor.shape != logits_RT.shape for tensor in tensors):
        return f"shapes are {shape_of(*tensors)}: they should be (R, T) all"
    return unsuitable(*tensors)


def _case(
    name: str,
    rows: int,
    tasks: int,
    *,
    known: float = 0.6,
    smoothing: float = 0.1,
    scale: float = 1.0,
    **kind: Any,
) -> Case:
    def make(generator: torch.Generator, dtype: torch.dtype, device: torch.device) -> Arguments:
        def uniform() -> Tensor:
            return torch.rand((rows, tasks), generator=generator, device=device)

        logits = (scale * torch.randn((rows, tasks), generator=generator, device=device)).to(dtype)
        labels, weights = (uniform() < 0.3).float(), (uniform() < known).float()
        labels = torch.where(weights > 0, labels, torch.nan)
        return logits.requires_grad_(), labels, weights, smoothing

    return Case(name=name, make=make, **kind)


def forward_cost(logits: Tensor, labels: Tensor, weights: Tensor, label_smoothing: float) -> Cost:
    """What is read, and a loss of 4 bytes an element."""
    del label_smoothing
    return Cost(bytes_moved=size_in_bytes(logits, labels, weights) + 4 * logits.numel())


def backward_cost(logits: Tensor, labels: Tensor, weights: Tensor, label_smoothing: float) -> Cost:
    """The same, the losses' gradients instead of losses, and those of the logits."""
    forward = forward_cost(logits, labels, weights, label_smoothing)
    return Cost(bytes_moved=forward.bytes_moved + size_in_bytes(logits))


def _launches(element: str) -> tuple[Launch, ...]:
    read = {"logits": f"*{element}", "labels": "*fp32", "weights": "*fp32"}
    numbers = {"size": "i32", "share": "fp32", "keep": "fp32"}
    block, num_warps = HOW[ELEMENT_SIZES[element]]
    return tuple(
        Launch(
            function=function,
            signature={**read, **written, **numbers},
            constants={"BLOCK": block},
            num_warps=num_warps,
            divisible=(*read, *written, "size"),
        )
        for function, written in (
            (_forward, {"losses": "*fp32"}),
            (_backward, {"grads": "*fp32", "out": f"*{element}"}),
        )
    )


KERNEL = Kernel(
    name="sigmoid_cross_entropy",
    reference=reference,
    fused=fused,
    why_not=why_not,
    cases=(
        _case("plain", 4, 5),
        _case("ragged", 37, 113),
        _case("one task", 2_100, 1, known=1.0, smoothing=0.0),
        _case("no rows", 0, 3),
        _case("nothing known", 5, 7, known=0.0),
        _case("extreme", 9, 31, scale=200.0),
        _case("moderate", 32_768, 128, size="moderate"),
        _case("ogbg", 32_768, 128, smoothing=0.0, size="large"),
        _case("criteo1tb", 262_144, 1, known=1.0, smoothing=0.0, size="large"),
    ),
    forward_cost=forward_cost,
    backward_cost=backward_cost,
    launches=lambda: (*_launches("fp32"), *_launches("bf16")),
    choices=(HOW,),
)
