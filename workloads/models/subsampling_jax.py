"""The convolutions that make a quarter of the frames, in Flax. B batch, T frames, F mel bins, C channels, D width."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import Array, lax

xavier_uniform = nn.initializers.xavier_uniform()


class Conv2dSubsampling(nn.Module):
    """3x3 of stride 2; its output, then its activation, is 0 where a frame is padding.

    An axis of even length is padded with a zero at its end, one of odd length with one at each end (TensorFlow's
    SAME), so that n become ceil(n / 2). `activation` maps 0 to 0, as relu and tanh do.
    """

    channels: int
    activation: Callable[[Array], Array]

    @nn.compact
    def __call__(self, x_BTFC: Array, padding_BT: Array) -> tuple[Array, Array]:
        shape = (3, 3, x_BTFC.shape[-1], self.channels)
        kernel = self.param("kernel", xavier_uniform, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.channels,), jnp.float32)
        x_BTFC, kernel, bias = promote_dtype(x_BTFC, kernel, bias)
        convolved = lax.conv_general_dilated(
            x_BTFC,
            kernel,
            window_strides=(2, 2),
            padding=[(length % 2, 1) for length in x_BTFC.shape[1:3]],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        padding_BT = padding_BT[:, ::2]
        return self.activation((convolved + bias) * (1 - padding_BT)[..., None, None]), padding_BT


class Subsample(nn.Module):
    """Features (B, T, F) and padding (B, T) to (B, T / 4, D) and padding (B, T / 4), both rounded up.

    Name it `Subsample_0`, as AlgoPerf does.
    """

    channels: int
    width: int
    activation: Callable[[Array], Array]

    @nn.compact
    def __call__(self, features_BTF: Array, padding_BT: Array) -> tuple[Array, Array]:
        x_BTFC = features_BTF[..., None]
        x_BTFC, padding_BT = Conv2dSubsampling(self.channels, self.activation)(x_BTFC, padding_BT)
        x_BTFC, padding_BT = Conv2dSubsampling(self.channels, self.activation)(x_BTFC, padding_BT)
        x_BTD = x_BTFC.reshape(*x_BTFC.shape[:2], -1)
        return nn.Dense(self.width, kernel_init=xavier_uniform)(x_BTD), padding_BT


def subsample_from_torch(source: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The parameters of a `Subsample` from those of torch's `Subsampling` called `name`, as NumPy arrays."""
    layers: dict[str, Any] = {
        f"Conv2dSubsampling_{i}": {
            "kernel": source[f"{name}.conv{i + 1}.weight"].transpose(2, 3, 1, 0),
            "bias": source[f"{name}.conv{i + 1}.bias"],
        }
        for i in range(2)
    }
    layers["Dense_0"] = {"kernel": source[f"{name}.linear.weight"].T, "bias": source[f"{name}.linear.bias"]}
    return layers
