"""Softmax cross-entropy with label smoothing in JAX: one pass over the logits, which XLA by itself does not find.

    loss_r = w_r (m_r - (1 - a) z_ry - a mean_v z_rv + s_r),   m_r = max_v z_rv,  s_r = log sum_v exp(z_rv - m_r)
    dz_rv  = g_r w_r (exp(z_rv - m_r - s_r) - (1 - a) [v = y_r] - a / V)

The contract of `softmax_cross_entropy_triton.py`, whose docstring says the rest. All that a row needs is one reduction
with a running maximum (Milakov and Gimelshein 2018). XLA's GPU compiler makes one kernel of it and another of the
gradient, so that Pallas is not needed, and rows may be split over devices as in any operation. Its CPU compiler does
not vectorise such a reduction; there each sum is taken by itself. Derivatives work forward, backward and twice.

Bytes: z once forward; z once and dz once backward (`benchmarks/xla_bytes.py`).
"""

import jax
import jax.numpy as jnp
from jax import Array, lax

# Of each row: m, s, and less its origin, the first logit, that of the true class and the sum of all.
Sums = tuple[Array, Array, Array, Array]


def softmax_cross_entropy(
    logits_RV: Array, labels_R: Array, weights_R: Array, label_smoothing: float | Array
) -> Array:
    """Weighted loss of each row, (R,) float32 or float64."""
    counts_R = weights_R != 0
    wide_RV = logits_RV if logits_RV.dtype == jnp.float64 else logits_RV.astype(jnp.float32)
    origin_R = _origin(wide_RV)
    highest_R, log_total_R, true_R, sum_R = _sums(wide_RV, labels_R, counts_R)
    smoothing = jnp.asarray(label_smoothing, wide_RV.dtype)
    # The sum may be infinite, and counts only where there is smoothing.
    uniform_R = smoothing * jnp.where(smoothing != 0, sum_R, 0.0) / logits_RV.shape[1]
    losses_R = weights_R.astype(wide_RV.dtype) * (
        (highest_R - origin_R) - (1 - smoothing) * true_R - uniform_R + log_total_R
    )
    return jnp.where(counts_R, losses_R, 0.0)


def _origin(z_RV: Array) -> Array:
    """What sums of logits are told from, since little of large ones would be left: to derivatives a constant."""
    first_R = lax.stop_gradient(z_RV[:, 0])
    return jnp.where(first_R == -jnp.inf, 0.0, first_R)


@jax.custom_jvp
def _sums(z_RV: Array, labels_R: Array, counts_R: Array) -> Sums:
    del counts_R
    found: Sums = lax.platform_dependent(z_RV, labels_R, cpu=_sums_apart, default=_sums_together)
    return found


@_sums.defjvp
def _(primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]) -> tuple[Sums, Sums]:
    (z_RV, labels_R, counts_R), (dz_RV, _, _) = primals, tangents
    sums = _sums(z_RV, labels_R, counts_R)
    # A row that does not count may be full of NaN, and is passed a gradient of 0, which would not undo them.
    p_RV = jnp.where(counts_R[:, None], jnp.exp(z_RV - sums[0][:, None] - sums[1][:, None]), 0.0)
    true_R = jnp.where(_is_true(labels_R, z_RV), dz_RV, 0.0).sum(1)
    # m is but a shift: m + s does not depend on it, so that all of its derivative may be s's.
    return sums, (jnp.zeros_like(sums[0]), (p_RV * dz_RV).sum(1), true_R, dz_RV.sum(1))


def _sums_together(z_RV: Array, labels_R: Array) -> Sums:
    def joined(one: Sums, other: Sums) -> Sums:
        highest = jnp.maximum(one[0], other[0])
        base = jnp.where(highest == -jnp.inf, 0.0, highest)
        total = one[1] * jnp.exp(one[0] - base) + other[1] * jnp.exp(other[0] - base)
        return highest, total, one[2] + other[2], one[3] + other[3]

    away_RV = z_RV - _origin(z_RV)[:, None]
    true_RV = jnp.where(_is_true(labels_R, z_RV), away_RV, 0.0)
    starts = tuple(jnp.asarray(start, z_RV.dtype) for start in (-jnp.inf, 0.0, 0.0, 0.0))
    operands = (z_RV, jnp.ones_like(z_RV), true_RV, away_RV)
    highest_R, total_R, true_R, sum_R = lax.reduce(operands, starts, joined, (1,))
    return highest_R, jnp.log(total_R), true_R, sum_R


def _sums_apart(z_RV: Array, labels_R: Array) -> Sums:
    highest_R = z_RV.max(1)
    base_R = jnp.where(highest_R == -jnp.inf, 0.0, highest_R)
    total_R = jnp.exp(z_RV - base_R[:, None]).sum(1)
    origin_R = _origin(z_RV)
    true_R = jnp.take_along_axis(z_RV, labels_R[:, None], axis=1)[:, 0] - origin_R
    return highest_R, jnp.log(total_R), true_R, (z_RV - origin_R[:, None]).sum(1)


def _is_true(labels_R: Array, z_RV: Array) -> Array:
    return labels_R[:, None] == lax.broadcasted_iota(labels_R.dtype, z_RV.shape, 1)
