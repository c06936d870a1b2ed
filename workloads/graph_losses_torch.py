"""The loss and the score of graphs with many binary tasks, some of them unlabelled, in torch."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def masked_sigmoid_cross_entropy(
    labels: Tensor, logits: Tensor, mask: Tensor | None, label_smoothing: float
) -> dict[str, Tensor]:
    """Binary cross-entropy in nats against the smoothed labels (1 - a) y + a / tasks (AlgoPerf, ogbg's `loss_fn`).

    labels (0 or 1), logits and mask (1 counts, 0 does not and has a loss of exactly 0): (graphs, tasks).
    `per_example` has an entry for each graph and task; `n_valid_examples` is how many count, all without a mask.
    """
    smoothed = (1.0 - label_smoothing) * labels + label_smoothing / labels.shape[-1]
    per_example = F.binary_cross_entropy_with_logits(
        logits, smoothed.to(logits.dtype), reduction="none"
    ).flatten()
    if mask is None:
        n_valid_examples = torch.full((), per_example.numel(), dtype=logits.dtype, device=logits.device)
    else:
        weights = mask.flatten().to(logits.dtype)
        per_example = torch.where(weights > 0, per_example, 0.0)
        n_valid_examples = weights.sum()
    return {"summed": per_example.sum(), "n_valid_examples": n_valid_examples, "per_example": per_example}


def graph_score(batch: Mapping[str, Any], logits: Tensor) -> dict[str, Tensor]:
    """Sums over the known labels: `loss`, `correct` and `count`; and the rows `logits`, `targets` and `weights`."""
    labels, weights = batch["targets"], batch["weights"]
    loss = masked_sigmoid_cross_entropy(labels, logits, weights, 0.0)
    correct = ((logits > 0) == (labels > 0)) * weights
    return {
        "loss": loss["summed"],
        "correct": correct.sum(),
        "count": loss["n_valid_examples"],
        "logits": logits,
        "targets": labels,
        "weights": weights,
    }
