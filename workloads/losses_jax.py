"""Losses in JAX. Each returns `summed`, `n_valid_examples` (scalars) and `per_example` (1-D)."""

import jax
import jax.numpy as jnp
from jax import Array


def softmax_cross_entropy(
    labels: Array, logits: Array, mask: Array | None, label_smoothing: float | Array
) -> dict[str, Array]:
    """Cross-entropy against the smoothed labels (1 - a) y + a / classes (AlgoPerf, `loss_fn`).

    labels: integer classes of shape (...), or distributions of shape (..., classes); their rank tells.
    logits: (..., classes). mask: (...), 1 counts and 0 is padding; all examples count where it is None.
    """
    log_probabilities = jax.nn.log_softmax(logits, axis=-1)
    if labels.ndim == logits.ndim:
        true_class = (labels * log_probabilities).sum(-1)
    else:
        true_class = jnp.take_along_axis(log_probabilities, labels[..., None], axis=-1).squeeze(-1)
    uniform = log_probabilities.mean(-1)
    per_example = -((1.0 - label_smoothing) * true_class + label_smoothing * uniform).reshape(-1)
    if mask is None:
        n_valid_examples = jnp.asarray(per_example.size, logits.dtype)
    else:
        weights = mask.reshape(-1).astype(logits.dtype)
        per_example = per_example * weights
        n_valid_examples = weights.sum()
    return {"summed": per_example.sum(), "n_valid_examples": n_valid_examples, "per_example": per_example}


def classification_score(labels: Array, logits: Array, weights: Array | None) -> dict[str, Array]:
    """Sums over the examples that count: `loss`, `correct` (top-1) and `count`.

    labels: integer classes of shape (...); logits: (..., classes); weights as `mask` above.
    """
    loss = softmax_cross_entropy(labels, logits, weights, 0.0)
    correct = (logits.argmax(-1) == labels).reshape(-1).astype(logits.dtype)
    if weights is not None:
        correct = correct * weights.reshape(-1).astype(logits.dtype)
    return {"loss": loss["summed"], "correct": correct.sum(), "count": loss["n_valid_examples"]}
