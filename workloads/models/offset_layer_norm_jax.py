"""Layer normalisation whose gain is 1 + `scale`, in Flax (AlgoPerf's speech models): decay pulls the gain to 1."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax


class LayerNorm(nn.Module):
    """Over the last axis; `scale` and `bias` start at 0."""

    epsilon: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        zeros, width = nn.initializers.zeros_init(), x.shape[-1]
        scale = self.param("scale", zeros, (width,), jnp.float32)
        bias = self.param("bias", zeros, (width,), jnp.float32)
        centred = x - x.mean(-1, keepdims=True)
        variance = jnp.square(centred).mean(-1, keepdims=True)
        return centred * lax.rsqrt(variance + self.epsilon) * (1 + scale) + bias
