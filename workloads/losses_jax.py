"""Losses in JAX. Each returns `summed`, `n_valid_examples` (scalars) and `per_example` (1-D)."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from timetrial.kernels import softmax_cross_entropy_jax


def softmax_cross_entropy(
    labels: Array, logits: Array, mask: Array | None, label_smoothing: float | Array
) -> dict[str, Array]:
    """Cross-entropy against the smoothed labels (1 - a) y + a / classes (AlgoPerf, `loss_fn`).

    labels: integer classes of shape (...), or distributions of shape (..., classes); their rank tells.
    logits: (..., classes). mask: (...), 1 counts and 0 is padding; all examples count where it is None.
    """
    if labels.ndim < logits.ndim:
        weights = (
            jnp.ones(labels.size, logits.dtype) if mask is None else mask.reshape(-1).astype(logits.dtype)
        )
        rows = logits.reshape(-1, logits.shape[-1])
        weighted = softmax_cross_entropy_jax.softmax_cross_entropy(
            rows, labels.reshape(-1), weights, label_smoothing
        )
        return {"summed": weighted.sum(), "n_valid_examples": weights.sum(), "per_example": weighted}
    log_probabilities = jax.nn.log_softmax(logits, axis=-1)
    true_class, uniform = (labels * log_probabilities).sum(-1), log_probabilities.mean(-1)
    per_example = -((1.0 - label_smoothing) * true_class + label_smoothing * uniform).reshape(-1)
    return _masked(per_example, mask)


def sigmoid_cross_entropy(
    labels: Array, logits: Array, mask: Array | None, label_smoothing: float | Array
) -> dict[str, Array]:
    """Binary cross-entropy in nats from logits; `label_smoothing` is ignored (AlgoPerf, Criteo's `loss_fn`).

    labels: (batch,), 0 or 1; logits: (batch,) or (batch, 1). mask as above.
    """
    del label_smoothing
    z = logits.reshape(-1)
    y = labels.reshape(-1).astype(z.dtype)
    return _masked(-(y * jax.nn.log_sigmoid(z) + (1 - y) * jax.nn.log_sigmoid(-z)), mask)


def mean_absolute_error(
    labels: Array, logits: Array, mask: Array | None, label_smoothing: float | Array
) -> dict[str, Array]:
    """|prediction - target|, averaged over each example; `label_smoothing` is ignored (AlgoPerf, fastMRI).

    labels and logits: (batch, ...). mask: (batch,).
    """
    del label_smoothing
    return _masked(jnp.abs(logits - labels).reshape(len(logits), -1).mean(1), mask)


def _masked(per_example: Array, mask: Array | None) -> dict[str, Array]:
    if mask is None:
        n_valid_examples = jnp.asarray(per_example.size, per_example.dtype)
    else:
        weights = mask.reshape(-1).astype(per_example.dtype)
        per_example = per_example * weights
        n_valid_examples = weights.sum()
    return {"summed": per_example.sum(), "n_valid_examples": n_valid_examples, "per_example": per_example}


def classification_score(batch: Mapping[str, Array], logits: Array) -> dict[str, Array]:
    """Sums over the examples that count: `loss`, `correct` (top-1) and `count`.

    `targets` of the batch: integer classes of shape (...); logits: (..., classes); `weights` as `mask` above.
    """
    labels, weights = batch["targets"], batch.get("weights")
    loss = softmax_cross_entropy(labels, logits, weights, 0.0)
    correct = (logits.argmax(-1) == labels).reshape(-1).astype(logits.dtype)
    if weights is not None:
        correct = correct * weights.reshape(-1).astype(logits.dtype)
    return {"loss": loss["summed"], "correct": correct.sum(), "count": loss["n_valid_examples"]}


def click_score(batch: Mapping[str, Array], logits: Array) -> dict[str, Array]:
    """Sums over the examples that count: `loss` (binary cross-entropy) and `count`."""
    loss = sigmoid_cross_entropy(batch["targets"], logits, batch.get("weights"), 0.0)
    return {"loss": loss["summed"], "count": loss["n_valid_examples"]}
