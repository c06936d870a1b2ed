"""Losses in torch. Each returns `summed`, `n_valid_examples` (scalars) and `per_example` (1-D)."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


def softmax_cross_entropy(
    labels: Tensor, logits: Tensor, mask: Tensor | None, label_smoothing: float
) -> dict[str, Tensor]:
    """Cross-entropy against the smoothed labels (1 - a) y + a / classes (AlgoPerf, `loss_fn`).

    labels: integer classes of shape (...), or distributions of shape (..., classes); their rank tells.
    logits: (..., classes). mask: (...), 1 counts and 0 is padding; all examples count where it is None.
    """
    if logits.is_cuda and labels.ndim < logits.ndim:
        return _softmax_cross_entropy_in_one_pass(labels, logits, mask, label_smoothing)
    log_probabilities = F.log_softmax(logits, dim=-1)
    if labels.ndim == logits.ndim:
        true_class = (labels * log_probabilities).sum(-1)
    else:
        true_class = log_probabilities.gather(-1, labels.long().unsqueeze(-1)).squeeze(-1)
    if label_smoothing:
        uniform = log_probabilities.mean(-1)
        per_example = -((1.0 - label_smoothing) * true_class + label_smoothing * uniform).flatten()
    else:
        per_example = -true_class.flatten()
    return _masked(per_example, mask)


def _softmax_cross_entropy_in_one_pass(
    labels: Tensor, logits: Tensor, mask: Tensor | None, label_smoothing: float
) -> dict[str, Tensor]:
    """The same of integer classes, by a kernel; it does not read the logits of what does not count."""
    from timetrial.kernels.softmax_cross_entropy_triton import KERNEL

    weights = torch.ones_like(labels, dtype=torch.float32) if mask is None else mask.float()
    per_example = KERNEL(logits.flatten(0, -2), labels.flatten(), weights.flatten(), label_smoothing)
    return _summed(per_example, weights.sum())


def sigmoid_cross_entropy(
    labels: Tensor, logits: Tensor, mask: Tensor | None, label_smoothing: float
) -> dict[str, Tensor]:
    """Binary cross-entropy in nats from logits; `label_smoothing` is ignored (AlgoPerf, Criteo's `loss_fn`).

    labels: (batch,), 0 or 1; logits: (batch,) or (batch, 1). mask as above.
    """
    del label_smoothing
    z = logits.flatten()
    y = labels.flatten().to(z.dtype)
    return _masked(-(y * F.logsigmoid(z) + (1 - y) * F.logsigmoid(-z)), mask)


def mean_absolute_error(
    labels: Tensor, logits: Tensor, mask: Tensor | None, label_smoothing: float
) -> dict[str, Tensor]:
    """|prediction - target|, averaged over each example; `label_smoothing` is ignored (AlgoPerf, fastMRI).

    labels and logits: (batch, ...). mask: (batch,).
    """
    del label_smoothing
    return _masked((logits - labels).abs().flatten(1).mean(1), mask)


def _masked(per_example: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    if mask is None:
        count = per_example.numel()
        return _summed(per_example, torch.full((), count, dtype=per_example.dtype, device=per_example.device))
    weights = mask.flatten().to(per_example.dtype)
    return _summed(per_example * weights, weights.sum())


def _summed(per_example: Tensor, n_valid_examples: Tensor) -> dict[str, Tensor]:
    return {"summed": per_example.sum(), "n_valid_examples": n_valid_examples, "per_example": per_example}


def classification_score(batch: Mapping[str, Tensor], logits: Tensor) -> dict[str, Tensor]:
    """Sums over the examples that count: `loss`, `correct` (top-1) and `count`.

    `targets` of the batch: integer classes of shape (...); logits: (..., classes); `weights` as `mask` above.
    """
    labels, weights = batch["targets"], batch.get("weights")
    loss = softmax_cross_entropy(labels, logits, weights, 0.0)
    correct = (logits.argmax(-1) == labels).flatten().to(logits.dtype)
    if weights is not None:
        correct = correct * weights.flatten().to(logits.dtype)
    return {"loss": loss["summed"], "correct": correct.sum(), "count": loss["n_valid_examples"]}


def click_score(batch: Mapping[str, Tensor], logits: Tensor) -> dict[str, Tensor]:
    """Sums over the examples that count: `loss` (binary cross-entropy) and `count`."""
    loss = sigmoid_cross_entropy(batch["targets"], logits, batch.get("weights"), 0.0)
    return {"loss": loss["summed"], "count": loss["n_valid_examples"]}
