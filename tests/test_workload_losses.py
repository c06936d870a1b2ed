"""Losses and scores of both frameworks, against NumPy and SciPy in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import torch

from timetrial.workloads import losses_jax, losses_torch

rng = np.random.default_rng(0)
SHAPES = [(7,), (3, 5)]
CLASSES = 6


def reference(labels, logits, mask, smoothing):
    """-sum_k q_k log softmax(logits)_k with q = (1 - a) y + a / K, one example at a time."""
    dense = labels if labels.ndim == logits.ndim else np.eye(CLASSES)[labels]
    smoothed = (1 - smoothing) * dense + smoothing / CLASSES
    losses = -(smoothed * scipy.special.log_softmax(logits, axis=-1)).sum(-1).ravel()
    weights = np.ones(losses.shape) if mask is None else mask.ravel()
    return {
        "summed": (losses * weights).sum(),
        "n_valid_examples": weights.sum(),
        "per_example": losses * weights,
    }


def both(function, labels, logits, mask, *rest):
    """The results of the torch and the JAX function, as NumPy, in float64."""
    as_torch = [None if array is None else torch.from_numpy(array) for array in (labels, logits, mask)]
    of_torch = getattr(losses_torch, function)(*as_torch, *rest)
    with jax.enable_x64(True):
        as_jax = [None if array is None else jnp.asarray(array) for array in (labels, logits, mask)]
        of_jax = getattr(losses_jax, function)(*as_jax, *rest)
    return ({key: np.asarray(value) for key, value in result.items()} for result in (of_torch, of_jax))


def both_scores(function, labels, logits, weights):
    """The same of a score, which takes the batch."""
    batch = {"targets": labels, "weights": weights}
    of_torch = getattr(losses_torch, function)(
        {key: torch.from_numpy(array) for key, array in batch.items()}, torch.from_numpy(logits)
    )
    with jax.enable_x64(True):
        of_jax = getattr(losses_jax, function)(jax.tree.map(jnp.asarray, batch), jnp.asarray(logits))
    return ({key: np.asarray(value) for key, value in result.items()} for result in (of_torch, of_jax))


@pytest.mark.parametrize(
    ("shape", "masked", "dense", "smoothing"), list(itertools.product(SHAPES, [0, 1], [0, 1], [0.0, 0.2]))
)
def test_softmax_cross_entropy_agrees_with_its_definition(shape, masked, dense, smoothing):
    logits = 5 * rng.normal(size=(*shape, CLASSES))
    labels = rng.integers(CLASSES, size=shape).astype(np.int32)
    if dense:
        labels = rng.dirichlet(np.ones(CLASSES), size=shape)
    mask = rng.integers(2, size=shape).astype(np.float64) if masked else None
    wanted = reference(labels, logits, mask, smoothing)
    for result in both("softmax_cross_entropy", labels, logits, mask, smoothing):
        assert result["per_example"].ndim == 1
        for key, value in wanted.items():
            np.testing.assert_allclose(result[key], value, rtol=1e-12, err_msg=key)


def test_extreme_logits_stay_finite():
    logits = np.array([[1e4, -1e4, 0, 0, 0, 0.0]])
    for result in both("softmax_cross_entropy", np.array([1], np.int32), logits, None, 0.0):
        assert result["summed"] == 2e4


@pytest.mark.parametrize("shape", SHAPES)
def test_scores_are_sums_over_the_examples_that_count(shape):
    logits = rng.normal(size=(*shape, CLASSES))
    labels = rng.integers(CLASSES, size=shape).astype(np.int32)
    weights = (np.arange(np.prod(shape)) % 3 > 0).astype(np.float64).reshape(shape)
    counted = weights.ravel() > 0
    correct = (logits.argmax(-1) == labels).ravel()[counted].sum()
    loss = reference(labels, logits, weights, 0.0)["summed"]
    for result in both_scores("classification_score", labels, logits, weights):
        assert result["correct"] == correct and result["count"] == counted.sum()
        np.testing.assert_allclose(result["loss"], loss, rtol=1e-12)


def test_the_mask_is_not_written_to():
    mask = torch.tensor([1.0, 0.0])
    losses_torch.softmax_cross_entropy(torch.tensor([0, 1]), torch.randn(2, 3), mask, 0.1)
    assert mask.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("masked", [False, True])
def test_sigmoid_cross_entropy_agrees_with_its_definition(masked):
    logits = np.array([[0.3], [-2.0], [40.0], [-700.0], [700.0]])
    labels = np.array([1.0, 0.0, 1.0, 0.0, 0.0])
    mask = np.array([1.0, 0.0, 1.0, 1.0, 1.0]) if masked else None
    z = logits.ravel()
    wanted = np.logaddexp(0, -z) * labels + np.logaddexp(0, z) * (1 - labels)
    wanted = wanted if mask is None else wanted * mask
    for result in both("sigmoid_cross_entropy", labels, logits, mask, 0.3):
        np.testing.assert_allclose(result["per_example"], wanted, rtol=1e-12)
        np.testing.assert_allclose(result["summed"], wanted.sum(), rtol=1e-12)
        assert result["n_valid_examples"] == (4 if masked else 5)
    weights = np.ones(5) if mask is None else mask
    for result in both_scores("click_score", labels, logits, weights):
        np.testing.assert_allclose(result["loss"], wanted.sum(), rtol=1e-12)
        assert result["count"] == weights.sum()


@pytest.mark.parametrize("masked", [False, True])
def test_mean_absolute_error_is_a_mean_over_each_example(masked):
    labels, predictions = rng.normal(size=(2, 3, 4, 5))
    mask = np.array([1.0, 0.0, 1.0]) if masked else None
    wanted = [np.abs(labels[i] - predictions[i]).mean() * (1 if mask is None else mask[i]) for i in range(3)]
    for result in both("mean_absolute_error", labels, predictions, mask, 0.3):
        np.testing.assert_allclose(result["per_example"], wanted, rtol=1e-12)
        np.testing.assert_allclose(result["summed"], sum(wanted), rtol=1e-12)
        assert result["n_valid_examples"] == (2 if masked else 3)
