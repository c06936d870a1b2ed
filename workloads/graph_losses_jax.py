"""The loss and the score of graphs with many binary tasks, some of them unlabelled, in JAX."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def masked_sigmoid_cross_entropy(
    labels: Array, logits: Array, mask: Array | None, label_smoothing: float | Array
) -> dict[str, Array]:
    """Binary cross-entropy in nats against the smoothed labels (1 - a) y + a / tasks (AlgoPerf, ogbg's `loss_fn`).

    labels (0 or 1), logits and mask (1 counts, 0 does not and has a loss of exactly 0): (graphs, tasks).
    `per_example` has an entry for each graph and task; `n_valid_examples` is how many count, all without a mask.
    """
    y = ((1.0 - label_smoothing) * labels + label_smoothing / labels.shape[-1]).astype(logits.dtype)
    cells = -(y * jax.nn.log_sigmoid(logits) + (1.0 - y) * jax.nn.log_sigmoid(-logits))
    per_example = cells.reshape(-1)
    if mask is None:
        n_valid_examples = jnp.asarray(per_example.size, logits.dtype)
    else:
        weights = mask.reshape(-1).astype(logits.dtype)
        per_example = jnp.where(weights > 0, per_example, 0.0)
        n_valid_examples = weights.sum()
    return {"summed": per_example.sum(), "n_valid_examples": n_valid_examples, "per_example": per_example}


def graph_score(batch: Mapping[str, Any], logits: Array) -> dict[str, Array]:
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
