"""A residual network in Flax; see `resnet.py`.

Images are NHWC here (N batch, H height, W width, C channels); convolutions have no bias.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype
from jax import Array, lax

from timetrial.engine.spec import ParameterType
from timetrial.workloads.losses_jax import classification_score, softmax_cross_entropy
from timetrial.workloads.models.resnet import ResNet

ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "relu": nn.relu,
    "silu": nn.silu,
    "gelu": partial(nn.gelu, approximate=True),
}


class Conv(nn.Module):
    """A convolution that keeps height and width at stride 1."""

    channels: int
    size: int
    stride: int = 1

    @nn.compact
    def __call__(self, x_NHWC: Array) -> Array:
        shape = (self.size, self.size, x_NHWC.shape[-1], self.channels)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
        x_NHWC, kernel = promote_dtype(x_NHWC, kernel)
        if self.size == 1:
            # A matrix product, because XLA's gradient of a 1x1 convolution takes longer on a CPU.
            product: Array = x_NHWC[:, :: self.stride, :: self.stride] @ kernel[0, 0]
            return product
        padding = (self.size - 1) // 2
        return lax.conv_general_dilated(
            x_NHWC,
            kernel,
            window_strides=(self.stride, self.stride),
            padding=((padding, padding), (padding, padding)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


def max_pool(x_NHWC: Array) -> Array:
    """3x3 of stride 2 with one pixel of padding; equal values share the gradient.

    Made of slices, because XLA's gradient of a pooling window takes much longer on a CPU.
    """
    for axis in (1, 2):
        length = (x_NHWC.shape[axis] + 1) // 2
        widths = [(int(i == axis), int(i == axis)) for i in range(4)]
        padded = jnp.pad(x_NHWC, widths, constant_values=-jnp.inf)
        first, second, third = (
            lax.slice_in_dim(padded, start, start + 2 * length - 1, 2, axis) for start in range(3)
        )
        x_NHWC = jnp.maximum(jnp.maximum(first, second), third)
    return x_NHWC


def batch_norm(use_running_average: bool, scale: float = 1.0, name: str | None = None) -> nn.BatchNorm:
    """Batch normalisation; the running variance is the biased one."""
    return nn.BatchNorm(
        use_running_average,
        momentum=0.9,
        epsilon=1e-5,
        scale_init=nn.initializers.constant(scale),
        use_fast_variance=False,  # E[x^2] - E[x]^2 loses digits that torch keeps
        name=name,
    )


def shortcut(x_NHWC: Array, y_NHWC: Array, stride: int, use_running_average_bn: bool) -> Array:
    """What a block whose last batch norm returns y adds to it: x, projected where the shapes differ.

    To be called within the block, which owns the projection's parameters.
    """
    if x_NHWC.shape == y_NHWC.shape:
        return x_NHWC
    projected = Conv(y_NHWC.shape[-1], 1, stride, name="Conv_proj")(x_NHWC)
    normalised: Array = batch_norm(use_running_average_bn, name="BatchNorm_proj")(projected)
    return normalised


class BottleneckResNetBlock(nn.Module):
    """1x1, 3x3, 1x1 and the shortcut."""

    config: ResNet
    width: int
    stride: int

    @nn.compact
    def __call__(self, x_NHWC: Array, use_running_average_bn: bool) -> Array:
        activated = ACTIVATIONS[self.config.activation]
        y = Conv(self.width, 1)(x_NHWC)
        y = activated(batch_norm(use_running_average_bn)(y))
        y = Conv(self.width, 3, self.stride)(y)
        y = activated(batch_norm(use_running_average_bn)(y))
        y = Conv(4 * self.width, 1)(y)
        y = batch_norm(use_running_average_bn, self.config.last_batch_norm_scale)(y)
        return activated(y + shortcut(x_NHWC, y, self.stride, use_running_average_bn))


class ResNetBlock(nn.Module):
    """3x3, 3x3 and the shortcut."""

    config: ResNet
    width: int
    stride: int

    @nn.compact
    def __call__(self, x_NHWC: Array, use_running_average_bn: bool) -> Array:
        activated = ACTIVATIONS[self.config.activation]
        y = Conv(self.width, 3, self.stride)(x_NHWC)
        y = activated(batch_norm(use_running_average_bn)(y))
        y = Conv(self.width, 3)(y)
        y = batch_norm(use_running_average_bn, self.config.last_batch_norm_scale)(y)
        return activated(y + shortcut(x_NHWC, y, self.stride, use_running_average_bn))


BLOCKS: Mapping[str, type[BottleneckResNetBlock] | type[ResNetBlock]] = {
    "bottleneck": BottleneckResNetBlock,
    "basic": ResNetBlock,
}


class Network(nn.Module):
    """Images NHWC to logits (batch, classes)."""

    config: ResNet

    @nn.compact
    def __call__(self, x_NHWC: Array, use_running_average_bn: bool) -> Array:
        config = self.config
        x_NHWC = Conv(config.width, config.stem_kernel, config.stem_stride, name="Conv_init")(x_NHWC)
        x_NHWC = batch_norm(use_running_average_bn, name="BatchNorm_init")(x_NHWC)
        x_NHWC = ACTIVATIONS[config.activation](x_NHWC)
        if config.stem_pool:
            x_NHWC = max_pool(x_NHWC)
        for stage, num_blocks in enumerate(config.stage_sizes):
            for number in range(num_blocks):
                stride = 2 if stage > 0 and number == 0 else 1
                block = BLOCKS[config.block](config, config.width * 2**stage, stride)
                x_NHWC = block(x_NHWC, use_running_average_bn)
        return nn.Dense(config.num_classes, kernel_init=nn.initializers.normal(0.01))(x_NHWC.mean((1, 2)))


def _type_of(path: tuple[Any, ...], leaf: Any) -> ParameterType:
    module, name = path[-2].key, path[-1].key
    if module.startswith("Conv"):
        return ParameterType.CONV_WEIGHT
    if module.startswith("BatchNorm"):
        return ParameterType.BATCH_NORM_SCALE if name == "scale" else ParameterType.BATCH_NORM_BIAS
    return ParameterType.WEIGHT if name == "kernel" else ParameterType.BIAS


def from_torch(state_dict: Mapping[str, Any]) -> tuple[Any, Any]:
    """Parameters and model state from the torch module's state dict, each weight mapped once."""
    source = {name: np.asarray(tensor) for name, tensor in state_dict.items()}
    params: dict[str, Any] = {"Dense_0": {"kernel": source["fc.weight"].T, "bias": source["fc.bias"]}}
    statistics: dict[str, Any] = {}
    for scope, conv, bn, torch_conv, torch_bn in _layers(source):
        weights = params.setdefault(scope, {}) if scope else params
        averages = statistics.setdefault(scope, {}) if scope else statistics
        weights[conv] = {"kernel": source[f"{torch_conv}.weight"].transpose(2, 3, 1, 0)}
        weights[bn] = {"scale": source[f"{torch_bn}.weight"], "bias": source[f"{torch_bn}.bias"]}
        averages[bn] = {"mean": source[f"{torch_bn}.running_mean"], "var": source[f"{torch_bn}.running_var"]}
    return jax.tree.map(jnp.asarray, params), jax.tree.map(jnp.asarray, {"batch_stats": statistics})


class Program:
    """The JaxProgram of a residual network. Batches hold NHWC images."""

    output_parameters = frozenset({"Dense_0"})
    loss = staticmethod(softmax_cross_entropy)
    score = staticmethod(classification_score)
    from_torch = staticmethod(from_torch)

    def __init__(self, config: ResNet) -> None:
        self.module = Network(config)
        params, _ = jax.eval_shape(self.init, np.zeros(2, np.uint32))
        self.parameter_types: Mapping[str, Any] = jax.tree_util.tree_map_with_path(_type_of, params)

    def init(self, rng: Array) -> tuple[Any, Any]:
        # No parameter depends on the image's size; 32 x 32 is the least that every stage can halve.
        images = jnp.zeros((1, 32, 32, 3), jnp.float32)
        initialise = jax.jit(partial(self.module.init, use_running_average_bn=True))
        state = dict(initialise(rng, images))
        return state.pop("params"), state

    def logits(
        self,
        params: Any,
        model_state: Any,
        batch: Mapping[str, Array],
        *,
        train: bool,
        update_batch_norm: bool,
        use_running_average_bn: bool,
        rng: Array,
        dropout_rate: float | Array,
    ) -> tuple[Array, Any]:
        """There is no dropout in this model: the rate is ignored."""
        logits, new_state = self.module.apply(
            {"params": params, **model_state},
            batch["inputs"],
            use_running_average_bn,
            mutable=["batch_stats"],
        )
        return logits, dict(new_state) if update_batch_norm else model_state


def program(config: ResNet) -> Program:
    """The program of this configuration."""
    return Program(config)


def _layers(source: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str, str]]:
    """Flax block (empty for the stem), Flax conv and batch norm, torch conv and batch norm."""
    yield "", "Conv_init", "BatchNorm_init", "conv1", "bn1"
    blocks = sorted(
        {tuple(name.split(".")[:2]) for name in source if name.startswith("layer")}, key=_position
    )
    num_convs = 3 if "layer1.0.conv3.weight" in source else 2
    flax_class = "BottleneckResNetBlock" if num_convs == 3 else "ResNetBlock"
    for number, block in enumerate(blocks):
        scope, torch_scope = f"{flax_class}_{number}", ".".join(block)
        for i in range(num_convs):
            conv, bn = f"{torch_scope}.conv{i + 1}", f"{torch_scope}.bn{i + 1}"
            yield scope, f"Conv_{i}", f"BatchNorm_{i}", conv, bn
        if f"{torch_scope}.downsample.conv.weight" in source:
            projection = f"{torch_scope}.downsample"
            yield scope, "Conv_proj", "BatchNorm_proj", f"{projection}.conv", f"{projection}.bn"


def _position(block: tuple[str, ...]) -> tuple[int, int]:
    """(stage, number) of the torch block ("layer2", "0")."""
    return int(block[0].removeprefix("layer")), int(block[1])
