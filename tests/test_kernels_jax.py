"""What `kernels/` has for JAX against float64, in both of its forms: for CPUs, and for everything else.

The rule is that of `test_kernels.py`: no less exact than the plain form in the same dtype, but for a stated slack.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax import lax

from timetrial.kernels.softmax_cross_entropy_jax import softmax_cross_entropy

SLACK = {"float32": 2e-6, "bfloat16": 2.0**-7}
CASES = {  # rows, classes, smoothing, scale and mean of the logits
    "plain": (4, 17, 0.1, 1.0, 0.0),
    "ragged": (13, 1_037, 0.1, 1.0, 0.0),
    "one class": (4, 1, 0.1, 1.0, 0.0),
    "no rows": (0, 7, 0.0, 1.0, 0.0),
    "extreme": (6, 257, 0.0, 300.0, 0.0),
    "far from 0": (6, 1_037, 0.1, 1.0, -1e4),
}


@pytest.fixture(params=["cpu", "default"], autouse=True)
def form(request, monkeypatch):
    """The form of a platform, whatever this machine is."""
    monkeypatch.setattr(
        lax, "platform_dependent", lambda *arguments, **forms: forms[request.param](*arguments)
    )


def arguments(rows, classes, smoothing, scale, mean, dtype="float32"):
    generator = np.random.default_rng(0)
    logits = jnp.asarray(mean + scale * generator.normal(size=(rows, classes)), dtype)
    labels = jnp.asarray(generator.integers(classes, size=rows), jnp.int32)
    weights = jnp.asarray((generator.random(rows) >= 0.3) * (0.5 + generator.random(rows)), jnp.float32)
    return logits, labels, weights, smoothing


def plain(logits, labels, weights, smoothing):
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    true = jnp.take_along_axis(log_p, labels[:, None], 1)[:, 0]
    return -weights * ((1 - smoothing) * true + smoothing * log_p.mean(1))


def truth(logits, labels, weights, smoothing, above):
    leaf = torch.tensor(np.asarray(logits, np.float64), requires_grad=True)
    targets, rest = torch.tensor(np.asarray(labels, np.int64)), torch.tensor(np.asarray(weights, np.float64))
    losses = rest * torch.nn.functional.cross_entropy(
        leaf, targets, reduction="none", label_smoothing=smoothing
    )
    (gradient,) = torch.autograd.grad(losses, leaf, torch.tensor(np.asarray(above, np.float64)))
    return losses.detach().numpy(), gradient.numpy()


@pytest.mark.parametrize("dtype", SLACK)
@pytest.mark.parametrize("case", CASES)
def test_softmax_cross_entropy_is_as_exact_as_its_plain_form(case, dtype):
    made = arguments(*CASES[case], dtype)
    above = jnp.asarray(np.random.default_rng(1).normal(size=len(made[0])), jnp.float32)

    def results(function):
        losses, backward = jax.vjp(lambda logits: function(logits, *made[1:]), made[0])
        return losses, backward(above)[0]

    for exact, theirs, ours in zip(
        truth(*made, above), results(plain), results(jax.jit(softmax_cross_entropy)), strict=True
    ):
        assert ours.shape == exact.shape
        if exact.size:
            theirs, ours = (np.asarray(value, np.float64) for value in (theirs, ours))
            allowed = abs(theirs - exact).max() + SLACK[dtype] * max(abs(exact).max(), 0.1)
            assert abs(ours - exact).max() <= allowed


def test_a_row_that_does_not_count_gives_nothing_and_one_that_does_tells_of_nan():
    logits = jnp.ones((3, 5)).at[1:, 2].set(jnp.nan)
    labels, weights = jnp.asarray([0, 1, 1]), jnp.asarray([1.0, 0.0, 1.0])
    losses = softmax_cross_entropy(logits, labels, weights, 0.1)
    assert jnp.isfinite(losses[0]) and losses[1] == 0 and jnp.isnan(losses[2])
    gradient = jax.grad(lambda z: softmax_cross_entropy(z, labels, weights, 0.1)[:2].sum())(logits)
    assert jnp.isfinite(gradient[0]).all() and (gradient[1] == 0).all()


def test_a_class_that_cannot_be_has_no_probability_and_no_gradient():
    logits = jnp.asarray([[1.0, -jnp.inf, 2.0]])
    labels, weights = jnp.asarray([2]), jnp.ones(1)
    losses, gradient = jax.value_and_grad(lambda z: softmax_cross_entropy(z, labels, weights, 0.0).sum())(
        logits
    )
    np.testing.assert_allclose(losses, np.log1p(np.exp(-1.0)), rtol=1e-6)
    np.testing.assert_allclose(gradient, [[0.26894143, 0.0, -0.26894143]], rtol=1e-6)


def test_the_derivative_works_forward_and_twice():
    logits, labels, weights, smoothing = arguments(*CASES["plain"])

    def loss(function):
        return lambda z: function(z, labels, weights, smoothing).sum()

    direction = jnp.asarray(np.random.default_rng(2).normal(size=logits.shape), jnp.float32)
    for of in (lambda f: f, jax.grad):
        ours, theirs = (jax.jvp(of(loss(f)), (logits,), (direction,)) for f in (softmax_cross_entropy, plain))
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
