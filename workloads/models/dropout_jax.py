"""Dropout whose rate may be a traced value, so that changing it compiles nothing."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array


class Dropout(nn.Module):
    """Zero each element with probability `rate` in [0, 1) and scale the others by 1 / (1 - rate)."""

    @nn.compact
    def __call__(self, x: Array, rate: float | Array, *, train: bool) -> Array:
        """x: any shape. Needs the generator `dropout` when training; the identity otherwise.

        A rate that is known to be 0 when tracing draws no random numbers.
        """
        if not train or (isinstance(rate, int | float) and rate == 0):
            return x
        keep = jax.random.bernoulli(self.make_rng("dropout"), 1.0 - rate, x.shape)
        return jnp.where(keep, x / (1.0 - rate), 0.0)
