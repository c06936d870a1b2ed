"""A U-Net in Flax; see `unet.py`.

Images are NHWC here (N batch, H height, W width, C channels).
"""

from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from timetrial.engine.spec import ParameterType
from timetrial.workloads.losses_jax import mean_absolute_error
from timetrial.workloads.models.dropout_jax import Dropout
from timetrial.workloads.models.unet import UNet
from timetrial.workloads.ssim_jax import reconstruction_score


def normalised(x_NHWC: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    """x less its mean over `axes`, over its standard deviation there.

    The variance is the mean square of what is left, for E[x^2] - E[x]^2 cancels.
    """
    centred = x_NHWC - x_NHWC.mean(axes, keepdims=True)
    variance = jnp.square(centred).mean(axes, keepdims=True)
    return centred * lax.rsqrt(variance + epsilon)


def instance_norm(x_NHWC: Array) -> Array:
    """Over height and width of each channel."""
    return normalised(x_NHWC, (1, 2), 1e-5)


class LayerNorm(nn.Module):
    """Over height, width and channels, then a scale and a bias of each channel."""

    @nn.compact
    def __call__(self, x_NHWC: Array) -> Array:
        channels = x_NHWC.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        return normalised(x_NHWC, (1, 2, 3), 1e-6) * scale + bias


def activated(x: Array, config: UNet) -> Array:
    return jnp.tanh(x) if config.activation == "tanh" else nn.leaky_relu(x, 0.2)


class ConvBlock(nn.Module):
    """Twice: 3x3 convolution, norm, activation, dropout of whole channels."""

    config: UNet
    channels: int

    @nn.compact
    def __call__(self, x_NHWC: Array, dropout_rate: float | Array, train: bool) -> Array:
        for _ in range(2):
            x_NHWC = nn.Conv(self.channels, (3, 3), padding=1, use_bias=False)(x_NHWC)
            x_NHWC = LayerNorm()(x_NHWC) if self.config.norm == "layer" else instance_norm(x_NHWC)
            x_NHWC = activated(x_NHWC, self.config)
            kept = jnp.ones((x_NHWC.shape[0], 1, 1, self.channels), x_NHWC.dtype)
            x_NHWC = x_NHWC * Dropout()(kept, dropout_rate, train=train)
        return x_NHWC


class ConvTranspose(nn.Module):
    """Each pixel times a 2x2 kernel becomes 2x2 pixels: Flax's transposed convolution of stride 2.

    A matrix product, because XLA needs seconds on a CPU for the gradient of the convolution of an image with holes
    that a transposed convolution else is.
    """

    channels: int

    @nn.compact
    def __call__(self, x_NHWC: Array) -> Array:
        n, h, w, c = x_NHWC.shape
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (2, 2, c, self.channels))
        flipped = kernel[::-1, ::-1].transpose(2, 0, 1, 3).reshape(c, 4 * self.channels)
        pixels = (x_NHWC.reshape(-1, c) @ flipped).reshape(n, h, w, 2, 2, self.channels)
        return pixels.transpose(0, 1, 3, 2, 4, 5).reshape(n, 2 * h, 2 * w, self.channels)


class TransposeConvBlock(nn.Module):
    """Twice the height and width: 2x2 transposed convolution, instance norm, activation."""

    config: UNet
    channels: int

    @nn.compact
    def __call__(self, x_NHWC: Array) -> Array:
        return activated(instance_norm(ConvTranspose(self.channels)(x_NHWC)), self.config)


class Network(nn.Module):
    """Images (batch, H, W) to images (batch, H, W); H and W at least 2**pools."""

    config: UNet

    @nn.compact
    def __call__(self, x_NHW: Array, *, dropout_rate: float | Array, train: bool) -> Array:
        config = self.config
        x = x_NHW[..., None]
        skipped = []
        for level in range(config.pools):
            x = ConvBlock(config, config.channels * 2**level)(x, dropout_rate, train)
            skipped.append(x)
            x = nn.avg_pool(x, (2, 2), (2, 2))
        x = ConvBlock(config, config.channels * 2**config.pools)(x, dropout_rate, train)
        for level in reversed(range(config.pools)):
            channels, skip = config.channels * 2**level, skipped.pop()
            x = TransposeConvBlock(config, channels)(x)
            odd_height, odd_width = skip.shape[1] - x.shape[1], skip.shape[2] - x.shape[2]
            if odd_height or odd_width:  # pooling dropped the last row or column
                x = jnp.pad(x, ((0, 0), (0, odd_height), (0, odd_width), (0, 0)), mode="reflect")
            x = ConvBlock(config, channels)(jnp.concatenate((x, skip), -1), dropout_rate, train)
        return nn.Conv(1, (1, 1))(x).squeeze(-1)


def _type_of(path: tuple[Any, ...], leaf: Any) -> ParameterType:
    module, name = path[-2].key, path[-1].key
    if module.startswith("LayerNorm"):
        return ParameterType.LAYER_NORM_SCALE if name == "scale" else ParameterType.LAYER_NORM_BIAS
    return ParameterType.CONV_WEIGHT if name == "kernel" else ParameterType.BIAS


def from_torch(state_dict: Mapping[str, Any]) -> tuple[Any, None]:
    """Parameters from the torch module's state dict, each weight mapped once; there is no model state."""
    source = {name: np.asarray(tensor) for name, tensor in state_dict.items()}
    pools = 1 + max(int(name.split(".")[1]) for name in source if name.startswith("up_conv"))
    output = f"up_conv.{pools - 1}.1"
    params: dict[str, Any] = {
        "Conv_0": {
            "kernel": source[f"{output}.weight"].transpose(2, 3, 1, 0),
            "bias": source[f"{output}.bias"],
        }
    }
    for block, torch_block in _conv_blocks(pools):
        params[block] = {}
        for number, position in enumerate((0, 4)):
            conv, norm = (f"{torch_block}.conv_layers.{position + offset}" for offset in (0, 1))
            params[block][f"Conv_{number}"] = {"kernel": source[f"{conv}.weight"].transpose(2, 3, 1, 0)}
            if f"{norm}.weight" in source:
                scale, bias = source[f"{norm}.weight"], source[f"{norm}.bias"]
                params[block][f"LayerNorm_{number}"] = {"scale": scale, "bias": bias}
    for level in range(pools):
        weight = source[f"up_transpose_conv.{level}.layers.0.weight"]
        kernel = weight[:, :, ::-1, ::-1].transpose(2, 3, 0, 1)  # torch turns the kernel, Flax does not
        params[f"TransposeConvBlock_{level}"] = {"ConvTranspose_0": {"kernel": kernel}}
    return jax.tree.map(jnp.asarray, params), None


class Program:
    """The JaxProgram of a U-Net."""

    output_parameters = frozenset({"Conv_0"})
    loss = staticmethod(mean_absolute_error)
    score = staticmethod(reconstruction_score)
    from_torch = staticmethod(from_torch)

    def __init__(self, config: UNet) -> None:
        self.config = config
        self.module = Network(config)
        params, _ = jax.eval_shape(self.init, np.zeros(2, np.uint32))
        self.parameter_types: Mapping[str, Any] = jax.tree_util.tree_map_with_path(_type_of, params)

    def init(self, rng: Array) -> tuple[Any, None]:
        # No parameter depends on the image's size; this is the least that can be halved so often.
        images = jnp.zeros((1, 2**self.config.pools, 2**self.config.pools), jnp.float32)

        @jax.jit
        def initialise(rng: Array, images: Array) -> Any:
            return self.module.init(rng, images, dropout_rate=0.0, train=False)

        return dict(initialise(rng, images)["params"]), None

    def logits(
        self,
        params: Any,
        model_state: None,
        batch: Mapping[str, Array],
        *,
        train: bool,
        update_batch_norm: bool,
        use_running_average_bn: bool,
        rng: Array,
        dropout_rate: float | Array,
    ) -> tuple[Array, None]:
        """The reconstruction, normalised like the inputs. inputs: (batch, H, W). There is no batch norm."""
        logits: Any = self.module.apply(
            {"params": params}, batch["inputs"], dropout_rate=dropout_rate, train=train, rngs={"dropout": rng}
        )
        return logits, None


def program(config: UNet) -> Program:
    """The program of this configuration."""
    return Program(config)


def _conv_blocks(pools: int) -> Iterator[tuple[str, str]]:
    """Flax and torch name of each ConvBlock, in order."""
    down = [f"down_sample_layers.{level}" for level in range(pools)]
    up = [f"up_conv.{level}" for level in range(pools - 1)]
    for number, torch_name in enumerate((*down, "conv", *up, f"up_conv.{pools - 1}.0")):
        yield f"ConvBlock_{number}", torch_name
