"""NAdamW in optax; `nadamw_torch.py` is the same rule in torch."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class NAdamState(NamedTuple):
    """Steps taken, and the moments (trees like the parameters)."""

    t: jax.Array
    m: Any
    v: Any


def scale_by_nadam(b1: float, b2: float, eps: float = 1e-8) -> optax.GradientTransformation:
    """The direction of NAdamW as AlgoPerf's baseline defines it; formula in `nadamw_torch.NAdamW`."""

    def init(params: Any) -> NAdamState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return NAdamState(t=jnp.zeros((), jnp.int32), m=zeros, v=jax.tree.map(jnp.zeros_like, params))

    def update(gradient: Any, state: NAdamState, params: Any = None) -> tuple[Any, NAdamState]:
        del params
        t = state.t + 1
        m = jax.tree.map(lambda m, g: b1 * m + (1.0 - b1) * g, state.m, gradient)
        v = jax.tree.map(lambda v, g: b2 * v + (1.0 - b2) * g * g, state.v, gradient)
        first, second = 1.0 - jnp.float32(b1) ** t, 1.0 - jnp.float32(b2) ** t

        def direction(m: jax.Array, v: jax.Array, g: jax.Array) -> jax.Array:
            ahead = b1 * m + (1.0 - b1) * g
            scaled: jax.Array = ahead / first / (jnp.sqrt(v / second) + eps)
            return scaled

        return jax.tree.map(direction, m, v, gradient), NAdamState(t=t, m=m, v=v)

    return optax.GradientTransformation(init, update)


def nadamw(
    learning_rate: optax.ScalarOrSchedule, b1: float, b2: float, weight_decay: float
) -> optax.GradientTransformation:
    """NAdamW with weight decay on every parameter, multiplied by the learning rate."""
    return optax.chain(
        scale_by_nadam(b1, b2),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )
