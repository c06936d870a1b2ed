"""Losses in torch. Each returns `summed`, `n_valid_examples` (scalars) and `per_example` (1-D)."""

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
    if mask is None:
        n_valid_examples = torch.full((), per_example.numel(), dtype=logits.dtype, device=logits.device)
    else:
        weights = mask.flatten().to(logits.dtype)
        per_example = per_example * weights
        n_valid_examples = weights.sum()
    return {"summed": per_example.sum(), "n_valid_examples": n_valid_examples, "per_example": per_example}


def classification_score(labels: Tensor, logits: Tensor, weights: Tensor | None) -> dict[str, Tensor]:
    """Sums over the examples that count: `loss`, `correct` (top-1) and `count`.

    labels: integer classes of shape (...); logits: (..., classes); weights as `mask` above.
    """
    loss = softmax_cross_entropy(labels, logits, weights, 0.0)
    correct = (logits.argmax(-1) == labels).flatten().to(logits.dtype)
    if weights is not None:
        correct = correct * weights.flatten().to(logits.dtype)
    return {"loss": loss["summed"], "correct": correct.sum(), "count": loss["n_valid_examples"]}
