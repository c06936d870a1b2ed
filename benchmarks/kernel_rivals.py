"""What else computes the same as a kernel: torch's own fused operations, and libraries where they are installed.

A rival takes the kernel's arguments and gives its outputs, as nearly as its library allows; where it differs is said
beside it. It is timed and not checked.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from timetrial.kernels.kernel import Arguments, Function

HAS_LIGER = importlib.util.find_spec("liger_kernel") is not None


def layer_norm(
    x_RD: Tensor, residual_RD: Tensor | None, scale_D: Tensor, bias_D: Tensor | None, eps: float, is_rms: bool
) -> dict[str, Function]:
    """Scale and bias are converted to x's dtype first, which torch asks for."""

    def by_torch(x: Tensor, residual: Tensor | None, scale: Tensor, bias: Tensor | None, *_: Any) -> Any:
        h, scale = x if residual is None else x + residual, scale.to(x.dtype)
        if is_rms:
            y = F.rms_norm(h, scale.shape, scale, eps)
        else:
            y = F.layer_norm(h, scale.shape, scale, None if bias is None else bias.to(x.dtype), eps)
        return y if residual is None else (y, h)

    found: dict[str, Function] = {"torch": by_torch}
    if HAS_LIGER and residual_RD is None and (is_rms or bias_D is not None):
        from liger_kernel.transformers import functional

        def by_liger(x: Tensor, _: None, scale: Tensor, bias: Tensor | None, *__: Any) -> Any:
            if is_rms:
                return functional.liger_rms_norm(x, scale, eps, in_place=False)
            return functional.liger_layer_norm(x, scale, bias, eps)

        found["liger"] = by_liger
    return found


def softmax_cross_entropy(
    logits_RV: Tensor, labels_R: Tensor, weights_R: Tensor, label_smoothing: float
) -> dict[str, Function]:
    """torch rounds the losses to the logits' dtype; liger writes the gradient over the logits."""

    def by_torch(logits: Tensor, labels: Tensor, weights: Tensor, *_: Any) -> Tensor:
        return F.cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing) * weights

    found: dict[str, Function] = {"torch": by_torch}
    if HAS_LIGER:
        from liger_kernel.transformers import functional

        ignored = labels_R.masked_fill(weights_R == 0, -100)

        def by_liger(logits: Tensor, _: Tensor, weights: Tensor, *__: Any) -> Any:
            losses = functional.liger_cross_entropy(
                logits, ignored, reduction="none", label_smoothing=label_smoothing
            )
            return losses * weights

        found["liger"] = by_liger
    return found


def sigmoid_cross_entropy(
    logits_RT: Tensor, labels_RT: Tensor, weights_RT: Tensor, label_smoothing: float
) -> dict[str, Function]:
    """Without smoothing, and a missing label's garbage is not kept out."""
    if label_smoothing:
        return {}

    def by_torch(logits: Tensor, labels: Tensor, weights: Tensor, *_: Any) -> Tensor:
        return F.binary_cross_entropy_with_logits(
            logits, labels.to(logits.dtype), weights.to(logits.dtype), reduction="none"
        )

    return {"torch": by_torch}


RIVALS: dict[str, Callable[..., dict[str, Function]]] = {
    "layer_norm": layer_norm,
    "softmax_cross_entropy": softmax_cross_entropy,
    "sigmoid_cross_entropy": sigmoid_cross_entropy,
}


def rivals(kernel: str, arguments: Arguments) -> dict[str, Function]:
    """Those of a kernel that can do with such arguments, by the name of their library."""
    return RIVALS[kernel](*arguments) if kernel in RIVALS else {}
