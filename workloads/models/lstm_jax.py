"""A bidirectional LSTM over padded sequences, in Flax. Shapes: B batch, T frames, D features, H hidden width."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import Array

GATES = ("i", "f", "g", "o")
lecun_normal, orthogonal, zeros = (
    nn.initializers.lecun_normal(),
    nn.initializers.orthogonal(),
    nn.initializers.zeros,
)


class Kernel(nn.Module):
    """The weights of one gate, from the input or from the previous output; the latter have the gate's bias."""

    hidden: int
    recurrent: bool

    @nn.compact
    def __call__(self, width: int) -> tuple[Array, Array | None]:
        shape = (width, self.hidden)
        kernel = self.param("kernel", orthogonal if self.recurrent else lecun_normal, shape, jnp.float32)
        bias = self.param("bias", zeros, (self.hidden,), jnp.float32) if self.recurrent else None
        return kernel, bias


class Direction(nn.Module):
    """The weights of one direction, named as Flax's LSTM cells name them."""

    hidden: int

    @nn.compact
    def __call__(self, width: int) -> tuple[Array, Array, Array]:
        """Of the input (D, 4 H), recurrent (H, 4 H) and the bias (4 H), gates in the order i, f, g, o."""
        of_input = [Kernel(self.hidden, False, name=f"i{gate}")(width)[0] for gate in GATES]
        recurrent = [Kernel(self.hidden, True, name=f"h{gate}")(self.hidden) for gate in GATES]
        kernels, biases = zip(*recurrent, strict=True)
        return jnp.concatenate(of_input, -1), jnp.concatenate(kernels, -1), jnp.concatenate(biases)


class LSTM(nn.Module):
    """One layer, (B, T, D) to (B, T, 2 H): an LSTM over the frames beside one over them in reverse order.

    Initial state 0; padded frames, which come last, leave the state at 0 and have output 0. Input weights start
    LeCun-normal, recurrent ones orthogonal, biases at 0. Both directions are one scan, one of them over the flipped
    frames; products with the input are taken before it, of all frames at once.
    """

    hidden: int

    @nn.compact
    def __call__(self, x_BTD: Array, padding_BT: Array) -> Array:
        """padding: 1.0 where there is nothing, else 0.0."""
        directions = [Direction(self.hidden, name=name)(x_BTD.shape[-1]) for name in ("forward", "backward")]
        # x: the two directions. K = 4 H.
        of_input_xDK, recurrent_xHK, bias_xK = (jnp.stack(pair) for pair in zip(*directions, strict=True))
        x_BTD, of_input_xDK, recurrent_xHK, bias_xK = promote_dtype(
            x_BTD, of_input_xDK, recurrent_xHK, bias_xK
        )
        gates_TxBK = jnp.einsum("btd,xdk->txbk", x_BTD, of_input_xDK) + bias_xK[:, None]
        keep_TB = (1 - padding_BT).swapaxes(0, 1).astype(gates_TxBK.dtype)
        keep_TxB1 = jnp.stack((keep_TB, keep_TB[::-1]), 1)[..., None]

        def step(state: tuple[Array, Array], frame: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
            h_xBH, c_xBH = state
            gates_xBK, keep_xB1 = frame
            gates_xBK = gates_xBK + jnp.einsum("xbh,xhk->xbk", h_xBH, recurrent_xHK)
            i, f, g, o = jnp.split(gates_xBK, 4, -1)
            c_xBH = (jax.nn.sigmoid(f) * c_xBH + jax.nn.sigmoid(i) * jnp.tanh(g)) * keep_xB1
            h_xBH = jax.nn.sigmoid(o) * jnp.tanh(c_xBH)
            return (h_xBH, c_xBH), h_xBH

        state = jnp.zeros((2, len(x_BTD), self.hidden), gates_TxBK.dtype)
        flipped = jnp.stack((gates_TxBK[:, 0], gates_TxBK[::-1, 1]), 1)
        _, out_TxBH = jax.lax.scan(step, (state, state), (flipped, keep_TxB1))
        return jnp.concatenate((out_TxBH[:, 0], out_TxBH[::-1, 1]), -1).swapaxes(0, 1)


def lstm_from_torch(source: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The parameters of an `LSTM` from those of torch's `BiLSTM` called `name`, as NumPy arrays."""
    return {
        direction: _direction(source, name, suffix)
        for direction, suffix in (("forward", ""), ("backward", "_reverse"))
    }


def _direction(source: Mapping[str, Any], name: str, suffix: str) -> dict[str, Any]:
    of_input, recurrent, bias = (
        source[f"{name}.{weight}_l0{suffix}"] for weight in ("weight_ih", "weight_hh", "bias_ih")
    )
    hidden = recurrent.shape[1]
    parts = {gate: slice(place * hidden, (place + 1) * hidden) for place, gate in enumerate(GATES)}
    kernels = {f"i{gate}": {"kernel": of_input[part].T} for gate, part in parts.items()}
    return kernels | {
        f"h{gate}": {"kernel": recurrent[part].T, "bias": bias[part]} for gate, part in parts.items()
    }
