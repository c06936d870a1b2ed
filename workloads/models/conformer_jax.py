"""A Conformer in Flax; see `conformer.py`. Shapes: B batch, N samples, T frames, D width, H heads, K head width."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from timetrial.engine.spec import ParameterType
from timetrial.workloads.ctc_jax import ctc_loss, ctc_score
from timetrial.workloads.models.conformer import (
    LAYER_NORM_EPSILON,
    QUERY_SCALE,
    Conformer,
    position_code,
)
from timetrial.workloads.models.dropout_jax import Dropout
from timetrial.workloads.models.masked_batch_norm_jax import BatchNorm, batch_norm_from_torch
from timetrial.workloads.models.offset_layer_norm_jax import LayerNorm
from timetrial.workloads.models.speech_features_jax import log_mel, spec_augment
from timetrial.workloads.models.subsampling_jax import Subsample, subsample_from_torch, xavier_uniform

Speech = tuple[Array, Array]  # audio or logits, and padding: 1.0 where there is nothing, else 0.0

ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "swish": nn.silu,
    "gelu": partial(nn.gelu, approximate=True),
}
dense = partial(nn.Dense, kernel_init=xavier_uniform)
layer_norm = partial(LayerNorm, LAYER_NORM_EPSILON)


class FeedForwardModule(nn.Module):
    """Layer norm, D to the perceptron's width, activation, back to D."""

    config: Conformer

    @nn.compact
    def __call__(self, x_BTD: Array, mask_BT1: Array, dropout_rate: float | Array, train: bool) -> Array:
        hidden_BTM = dense(self.config.mlp_width)(layer_norm()(x_BTD))
        hidden_BTM = ACTIVATIONS[self.config.activation](hidden_BTM)
        hidden_BTM = Dropout()(hidden_BTM, dropout_rate, train=train) * mask_BT1
        return Dropout()(dense(self.config.width)(hidden_BTM) * mask_BT1, dropout_rate, train=train)


class QueryScaler(nn.Module):
    """Multiplies each element of every head's query by log2(1 + e^scale)."""

    @nn.compact
    def __call__(self, q_BTHK: Array) -> Array:
        scale = self.param("scale", nn.initializers.zeros_init(), (q_BTHK.shape[-1],), jnp.float32)
        return q_BTHK * (QUERY_SCALE * nn.softplus(scale))


class MultiHeadDotProductAttention(nn.Module):
    """Attention of all frames to those that are no padding, in several heads."""

    config: Conformer

    @nn.compact
    def __call__(self, x_BTD: Array, padding_BT: Array) -> Array:
        width, heads = self.config.width, self.config.num_heads
        project = partial(nn.DenseGeneral, (heads, width // heads), kernel_init=xavier_uniform)
        queries = QueryScaler()(project(name="query")(x_BTD)) / math.sqrt(width // heads)
        q, k, v = (
            x.swapaxes(1, 2) for x in (queries, project(name="key")(x_BTD), project(name="value")(x_BTD))
        )
        keys_BT = padding_BT == 0
        keys_BT = keys_BT | ~keys_BT.any(
            1, keepdims=True
        )  # where all is padding, attention to all of it is finite
        scores_BHTS = jnp.where(keys_BT[:, None, None, :], q @ k.swapaxes(2, 3), -jnp.inf)
        # Softmax, whose denominator divides the result rather than the larger matrix of weights.
        weights_BHTS = jnp.exp(scores_BHTS - lax.stop_gradient(scores_BHTS.max(-1, keepdims=True)))
        attended_BHTK = weights_BHTS @ v / weights_BHTS.sum(-1, keepdims=True)
        out = nn.DenseGeneral(width, axis=(-2, -1), kernel_init=xavier_uniform, name="out")
        return out(self.config.attention_scale * attended_BHTK.swapaxes(1, 2))


class MultiHeadedSelfAttention(nn.Module):
    """Layer norm and attention."""

    config: Conformer

    @nn.compact
    def __call__(self, x_BTD: Array, padding_BT: Array, dropout_rate: float | Array, train: bool) -> Array:
        x_BTD = MultiHeadDotProductAttention(self.config)(layer_norm()(x_BTD), padding_BT)
        return Dropout()(x_BTD, dropout_rate, train=train)


class DepthwiseConvolution(nn.Module):
    """Of each feature on its own, over `size` frames; zeros beyond the ends; no bias."""

    size: int

    @nn.compact
    def __call__(self, x_BTD: Array) -> Array:
        frames, width = x_BTD.shape[1:]
        kernel = self.param("kernel", xavier_uniform, (self.size, 1, width), jnp.float32)
        padded = jnp.pad(x_BTD, ((0, 0), (self.size // 2, self.size // 2), (0, 0)))
        # A sum of products, because XLA's grouped convolutions and their gradients take longer.
        x_BTD = padded[:, :frames] * kernel[0]
        for i in range(1, self.size):
            x_BTD = x_BTD + padded[:, i : i + frames] * kernel[i]
        return x_BTD


class ConvolutionBlock(nn.Module):
    """Layer norm, gated linear layer, depthwise convolution, batch norm, activation, linear layer."""

    config: Conformer

    @nn.compact
    def __call__(
        self,
        x_BTD: Array,
        padding_BT: Array,
        use_running_average_bn: bool,
        dropout_rate: float | Array,
        train: bool,
    ) -> Array:
        width = self.config.width
        x_BTD = layer_norm()(x_BTD)
        gated_BTD = dense(width)(x_BTD) * nn.sigmoid(dense(width)(x_BTD)) * (1 - padding_BT)[..., None]
        x_BTD = DepthwiseConvolution(self.config.kernel, name="Conv_0")(gated_BTD)
        x_BTD = BatchNorm(self.config.batch_norm_decay)(x_BTD, padding_BT, use_running_average_bn)
        x_BTD = dense(width)(ACTIVATIONS[self.config.activation](x_BTD))
        return Dropout()(x_BTD, dropout_rate, train=train)


class ConformerBlock(nn.Module):
    """Half a perceptron, self-attention, a convolution and half a perceptron, each beside a shortcut."""

    config: Conformer

    @nn.compact
    def __call__(
        self,
        x_BTD: Array,
        padding_BT: Array,
        use_running_average_bn: bool,
        dropout_rate: float | Array,
        train: bool,
    ) -> Array:
        config, mask_BT1 = self.config, (1 - padding_BT)[..., None]
        x_BTD = x_BTD + 0.5 * FeedForwardModule(config)(x_BTD, mask_BT1, dropout_rate, train)
        x_BTD = x_BTD + MultiHeadedSelfAttention(config)(x_BTD, padding_BT, dropout_rate, train)
        convolution = ConvolutionBlock(config)
        x_BTD = x_BTD + convolution(x_BTD, padding_BT, use_running_average_bn, dropout_rate, train)
        x_BTD = x_BTD + 0.5 * FeedForwardModule(config)(x_BTD, mask_BT1, dropout_rate, train)
        return layer_norm()(x_BTD) if config.block_layer_norm else x_BTD


class Network(nn.Module):
    """Audio (B, N) and its padding to logits (B, T, vocabulary) and their frames' padding (B, T)."""

    config: Conformer

    @nn.compact
    def __call__(
        self,
        audio_BN: Array,
        padding_BN: Array,
        use_running_average_bn: bool,
        dropout_rate: float | Array,
        train: bool,
    ) -> Speech:
        config = self.config
        features_BTF, padding_BT = log_mel(config.features, audio_BN, padding_BN)
        if train:
            rng = self.make_rng("dropout")
            features_BTF = spec_augment(config.spec_augment, features_BTF, padding_BT, rng)
        subsample = Subsample(config.subsampling_channels, config.width, nn.relu)
        x_BTD, padding_BT = subsample(features_BTF, padding_BT)
        x_BTD = x_BTD + position_code(x_BTD.shape[1], config.width).astype(x_BTD.dtype)
        x_BTD = Dropout()(x_BTD, dropout_rate, train=train)
        for _ in range(config.depth):
            block = ConformerBlock(config)
            x_BTD = block(x_BTD, padding_BT, use_running_average_bn, dropout_rate, train)
        return dense(config.vocabulary)(layer_norm()(x_BTD)), padding_BT


_ATTENTION_WEIGHTS = {
    "query": ParameterType.ATTENTION_Q,
    "key": ParameterType.ATTENTION_K,
    "value": ParameterType.ATTENTION_V,
    "out": ParameterType.ATTENTION_OUT,
}


def _type_of(path: tuple[Any, ...], leaf: Any) -> ParameterType:
    module, name = path[-2].key, path[-1].key
    if module in _ATTENTION_WEIGHTS:
        return _ATTENTION_WEIGHTS[module] if name == "kernel" else ParameterType.ATTENTION_BIAS
    if module.startswith("LayerNorm"):
        return ParameterType.LAYER_NORM_SCALE if name == "scale" else ParameterType.LAYER_NORM_BIAS
    if module.startswith("BatchNorm"):
        return ParameterType.BATCH_NORM_SCALE if name == "scale" else ParameterType.BATCH_NORM_BIAS
    if module.startswith("Conv") and name == "kernel":
        return ParameterType.CONV_WEIGHT
    return ParameterType.BIAS if name == "bias" else ParameterType.WEIGHT


class Program:
    """The JaxProgram of a Conformer. `inputs` of a batch are audio (B, N) and its padding (B, N)."""

    output_parameters = frozenset({"Dense_0"})
    loss = staticmethod(ctc_loss)
    score = staticmethod(ctc_score)

    def __init__(self, config: Conformer) -> None:
        self.config = config
        self.module = Network(config)
        params, _ = jax.eval_shape(self.init, np.zeros(2, np.uint32))
        self.parameter_types: Mapping[str, Any] = jax.tree_util.tree_map_with_path(_type_of, params)

    def init(self, rng: Array) -> tuple[Any, Any]:
        # No parameter depends on the audio's length; one frame is the least.
        audio = jnp.zeros((1, self.config.features.frame_length), jnp.float32)
        start = partial(self.module.init, use_running_average_bn=True, dropout_rate=0.0, train=False)
        state = dict(jax.jit(start)(rng, audio, jnp.zeros_like(audio)))
        return state.pop("params"), state

    def logits(
        self,
        params: Any,
        model_state: Any,
        batch: Mapping[str, Speech],
        *,
        train: bool,
        update_batch_norm: bool,
        use_running_average_bn: bool,
        rng: Array,
        dropout_rate: float | Array,
    ) -> tuple[Speech, Any]:
        """Logits (B, T, vocabulary) and their frames' padding (B, T); and the new model state."""
        audio, padding = batch["inputs"]
        logits, new_state = self.module.apply(
            {"params": params, **model_state},
            audio,
            padding,
            use_running_average_bn,
            dropout_rate,
            train,
            rngs={"dropout": rng},
            mutable=["batch_stats"],
        )
        return logits, dict(new_state) if update_batch_norm else model_state

    def from_torch(self, state_dict: Mapping[str, Any]) -> tuple[Any, Any]:
        """Parameters and model state from the torch module's state dict, each weight mapped once."""
        source = {name: np.asarray(tensor) for name, tensor in state_dict.items()}
        params: dict[str, Any] = {
            "Subsample_0": subsample_from_torch(source, "subsample"),
            "LayerNorm_0": _norm(source, "ln"),
            "Dense_0": _dense(source, "lin"),
        }
        statistics: dict[str, Any] = {}
        for i in range(self.config.depth):
            name, scope = f"conformers.{i}", f"ConformerBlock_{i}"
            convolution, averages = _convolution(source, f"{name}.conv")
            params[scope] = {
                "FeedForwardModule_0": _feed_forward(source, f"{name}.ff1"),
                "MultiHeadedSelfAttention_0": _self_attention(source, f"{name}.mhsa", self.config.num_heads),
                "ConvolutionBlock_0": convolution,
                "FeedForwardModule_1": _feed_forward(source, f"{name}.ff2"),
            }
            if self.config.block_layer_norm:
                params[scope]["LayerNorm_0"] = _norm(source, f"{name}.ln")
            statistics[scope] = {"ConvolutionBlock_0": {"BatchNorm_0": averages}}
        return jax.tree.map(jnp.asarray, params), jax.tree.map(jnp.asarray, {"batch_stats": statistics})


def program(config: Conformer) -> Program:
    """The program of this configuration."""
    return Program(config)


def _dense(source: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {"kernel": source[f"{name}.weight"].T, "bias": source[f"{name}.bias"]}


def _norm(source: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {"scale": source[f"{name}.scale"], "bias": source[f"{name}.bias"]}


def _feed_forward(source: Mapping[str, Any], name: str) -> dict[str, Any]:
    layers = {f"Dense_{i}": _dense(source, f"{name}.linear{i + 1}") for i in range(2)}
    return {"LayerNorm_0": _norm(source, f"{name}.ln"), **layers}


def _self_attention(source: Mapping[str, Any], name: str, heads: int) -> dict[str, Any]:
    """A torch matrix of all heads, (D, D), becomes one (D, heads, D / heads), or for `out` (heads, D / heads, D)."""
    attention = f"{name}.self_attention"
    layers: dict[str, Any] = {layer: _dense(source, f"{attention}.{layer}") for layer in _ATTENTION_WEIGHTS}
    for layer, weights in layers.items():
        width = len(weights["bias"])
        split = (heads, width // heads)
        if layer == "out":
            weights["kernel"] = weights["kernel"].reshape(*split, width)
        else:
            weights["kernel"] = weights["kernel"].reshape(width, *split)
            weights["bias"] = weights["bias"].reshape(split)
    layers["QueryScaler_0"] = {"scale": source[f"{attention}.qs.scale"]}
    return {"LayerNorm_0": _norm(source, f"{name}.ln"), "MultiHeadDotProductAttention_0": layers}


def _convolution(source: Mapping[str, Any], name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A convolution's parameters, and the running averages of its batch norm."""
    norm, averages = batch_norm_from_torch(source, f"{name}.bn")
    layers = {f"Dense_{i}": _dense(source, f"{name}.lin{i + 1}") for i in range(3)}
    depthwise = {"kernel": source[f"{name}.conv1.weight"].transpose(2, 1, 0)}
    params = {"LayerNorm_0": _norm(source, f"{name}.ln"), "Conv_0": depthwise, "BatchNorm_0": norm, **layers}
    return params, averages
