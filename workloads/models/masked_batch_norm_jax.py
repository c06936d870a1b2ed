"""Batch normalisation of padded sequences, in Flax. Shapes: B batch, T frames, D features."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax

EPSILON = 1e-3


class BatchNorm(nn.Module):
    """Batch normalisation over all frames that are no padding; padded frames become 0 (AlgoPerf's speech models).

    The gain is 1 + `scale`. Running averages, of the mean and of the biased variance, lie in `batch_stats`; each
    update multiplies what they were by `decay`.
    """

    decay: float

    @nn.compact
    def __call__(self, x_BTD: Array, padding_BT: Array, use_running_average: bool) -> Array:
        width, zeros = x_BTD.shape[-1], nn.initializers.zeros_init()
        scale = self.param("scale", zeros, (width,), jnp.float32)
        bias = self.param("bias", zeros, (width,), jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (width,), jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, (width,), jnp.float32)
        mask_BT1 = (1 - padding_BT)[..., None]
        if use_running_average:
            mean, var = running_mean.value, running_var.value
        else:
            count = jnp.maximum(mask_BT1.sum(), 1.0)
            mean = (mask_BT1 * x_BTD).sum((0, 1)) / count
            var = (mask_BT1 * jnp.square(x_BTD - mean)).sum((0, 1)) / count
            if not self.is_initializing():
                running_mean.value = self._moved(running_mean.value, mean)
                running_var.value = self._moved(running_var.value, var)
        return ((x_BTD - mean) * (lax.rsqrt(var + EPSILON) * (1 + scale)) + bias) * mask_BT1

    def _moved(self, average: Array, value: Array) -> Array:
        return self.decay * average + (1 - self.decay) * lax.stop_gradient(value)


def batch_norm_from_torch(source: Mapping[str, Any], name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters and running averages from those of torch's `MaskedBatchNorm` called `name`, as NumPy arrays."""
    params = {"scale": source[f"{name}.weight"], "bias": source[f"{name}.bias"]}
    return params, {"mean": source[f"{name}.running_mean"], "var": source[f"{name}.running_var"]}
