"""A vision transformer in Flax; see `vit.py`. Shapes: B batch, N tokens, D width, M hidden width, H heads."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from timetrial.engine.spec import ParameterType
from timetrial.workloads.losses_jax import classification_score, softmax_cross_entropy
from timetrial.workloads.models.dropout_jax import Dropout
from timetrial.workloads.models.vit import LAYER_NORM_EPSILON, MLP_BIAS_STD, ViT, position_code

xavier_uniform = nn.initializers.xavier_uniform()
# E[x^2] - E[x]^2 loses digits that torch keeps.
layer_norm = partial(nn.LayerNorm, epsilon=LAYER_NORM_EPSILON, use_fast_variance=False)


class PatchEmbedding(nn.Module):
    """A convolution whose stride is its kernel, as one matrix product, and the position code."""

    patch: int
    width: int

    @nn.compact
    def __call__(self, x_BHWC: Array) -> Array:
        """(B, H, W, C) to (B, N, D), tokens row by row."""
        p, (batch, height, width, channels) = self.patch, x_BHWC.shape
        rows, columns = height // p, width // p
        shape = (p, p, channels, self.width)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.width,), jnp.float32)
        whole = x_BHWC[:, : rows * p, : columns * p]  # what is less than a patch is left out, as in torch
        patches = whole.reshape(batch, rows, p, columns, p, channels).swapaxes(2, 3)
        x_BND = patches.reshape(batch, rows * columns, -1) @ kernel.reshape(-1, self.width) + bias
        return x_BND + position_code(rows, columns, self.width).astype(x_BND.dtype)


class MultiHeadDotProductAttention(nn.Module):
    """Attention of the queries to the tokens, in several heads."""

    num_heads: int

    @nn.compact
    def __call__(self, queries_BQD: Array, tokens_BND: Array) -> Array:
        width = tokens_BND.shape[-1]
        head_width = width // self.num_heads
        heads = partial(nn.DenseGeneral, (self.num_heads, head_width), kernel_init=xavier_uniform)
        queries_BQHK = heads(name="query")(queries_BQD) / math.sqrt(head_width)
        keys_BNHK, values_BNHK = heads(name="key")(tokens_BND), heads(name="value")(tokens_BND)
        q_BHQK, k_BHNK, v_BHNK = (x.swapaxes(1, 2) for x in (queries_BQHK, keys_BNHK, values_BNHK))
        scores_BHQN = q_BHQK @ k_BHNK.swapaxes(2, 3)
        # Softmax, whose denominator divides the result rather than the larger matrix of weights.
        largest = jax.lax.stop_gradient(scores_BHQN.max(-1, keepdims=True))
        weights_BHQN = jnp.exp(scores_BHQN - largest)
        attended_BHQK = weights_BHQN @ v_BHNK / weights_BHQN.sum(-1, keepdims=True)
        out = nn.DenseGeneral(width, axis=(-2, -1), kernel_init=xavier_uniform, name="out")
        return out(attended_BHQK.swapaxes(1, 2))


class MlpBlock(nn.Module):
    """D to M, GELU (tanh form), perhaps gated by itself, back to D."""

    hidden: int
    glu: bool

    @nn.compact
    def __call__(self, x_BND: Array, dropout_rate: float | Array, train: bool) -> Array:
        dense = partial(nn.Dense, kernel_init=xavier_uniform, bias_init=nn.initializers.normal(MLP_BIAS_STD))
        hidden_BNM = nn.gelu(dense(self.hidden)(x_BND), approximate=True)
        if self.glu:
            hidden_BNM = hidden_BNM * dense(self.hidden)(hidden_BNM)
        hidden_BNM = Dropout()(hidden_BNM, dropout_rate, train=train)
        return Dropout()(dense(x_BND.shape[-1])(hidden_BNM), dropout_rate, train=train)


class Block(nn.Module):
    """Self-attention and perceptron, each beside a shortcut."""

    config: ViT

    @nn.compact
    def __call__(self, x_BND: Array, dropout_rate: float | Array, train: bool) -> Array:
        norm0, norm2 = layer_norm(name="LayerNorm_0"), layer_norm(name="LayerNorm_2")
        attention = MultiHeadDotProductAttention(self.config.num_heads, name="MultiHeadDotProductAttention_1")
        mlp = MlpBlock(self.config.mlp_width, self.config.glu, name="MlpBlock_3")
        if self.config.post_ln:
            y = Dropout()(attention(x_BND, x_BND), dropout_rate, train=train)
            x_BND = norm0(x_BND + y)
            normalised: Array = norm2(x_BND + mlp(x_BND, dropout_rate, train))
            return normalised
        y = norm0(x_BND)
        x_BND = x_BND + Dropout()(attention(y, y), dropout_rate, train=train)
        return x_BND + mlp(norm2(x_BND), dropout_rate, train)


class Transformer(nn.Module):
    """All blocks, and where these normalise before, a last layer norm."""

    config: ViT

    @nn.compact
    def __call__(self, x_BND: Array, dropout_rate: float | Array, train: bool) -> Array:
        for i in range(self.config.depth):
            x_BND = Block(self.config, name=f"encoderblock_{i}")(x_BND, dropout_rate, train)
        return x_BND if self.config.post_ln else layer_norm(name="encoder_layernorm")(x_BND)


class MAPHead(nn.Module):
    """A learned probe attends to the tokens; one perceptron follows (Zhai et al. 2022)."""

    config: ViT

    @nn.compact
    def __call__(self, tokens_BND: Array, dropout_rate: float | Array, train: bool) -> Array:
        """(B, N, D) to (B, D)."""
        width = self.config.width
        probe = self.param("probe", xavier_uniform, (1, 1, width), jnp.float32)
        queries = jnp.broadcast_to(probe, (len(tokens_BND), 1, width))
        x = MultiHeadDotProductAttention(self.config.num_heads)(queries, tokens_BND)
        mlp = MlpBlock(self.config.mlp_width, glu=False)
        x = x + mlp(layer_norm()(x), dropout_rate, train)
        return x[:, 0]


class Network(nn.Module):
    """Images (B, H, W, C) to logits (B, classes)."""

    config: ViT

    @nn.compact
    def __call__(self, x_BHWC: Array, dropout_rate: float | Array, train: bool) -> Array:
        config = self.config
        x_BND = PatchEmbedding(config.patch, config.width, name="conv_patch_extract")(x_BHWC)
        x_BND = Dropout()(x_BND, dropout_rate, train=train)
        x_BND = Transformer(config, name="Transformer")(x_BND, dropout_rate, train)
        if config.pooling == "map":
            x_BD = MAPHead(config, name="MAPHead_0")(x_BND, dropout_rate, train)
        else:
            x_BD = x_BND.mean(1)
        x_BD = jnp.tanh(nn.Dense(config.width, name="pre_logits")(x_BD))
        zeros = nn.initializers.zeros_init()
        return nn.Dense(config.num_classes, kernel_init=zeros, name="head")(x_BD)


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
    if module.startswith("LayerNorm") or module == "encoder_layernorm":
        return ParameterType.LAYER_NORM_SCALE if name == "scale" else ParameterType.LAYER_NORM_BIAS
    if module == "conv_patch_extract" and name == "kernel":
        return ParameterType.CONV_WEIGHT
    return ParameterType.BIAS if name == "bias" else ParameterType.WEIGHT


class Program:
    """The JaxProgram of a vision transformer. Batches hold NHWC images."""

    output_parameters = frozenset({"head"})
    loss = staticmethod(softmax_cross_entropy)
    score = staticmethod(classification_score)

    def __init__(self, config: ViT) -> None:
        self.config = config
        self.module = Network(config)
        params, _ = jax.eval_shape(self.init, np.zeros(2, np.uint32))
        self.parameter_types: Mapping[str, Any] = jax.tree_util.tree_map_with_path(_type_of, params)

    def init(self, rng: Array) -> tuple[Any, None]:
        # No parameter depends on the image's size; one patch is the least.
        images = jnp.zeros((1, self.config.patch, self.config.patch, 3), jnp.float32)
        initialise = jax.jit(partial(self.module.init, dropout_rate=0.0, train=False))
        return initialise(rng, images)["params"], None

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
        """There is no batch norm in this model: its two arguments are ignored."""
        logits: Any = self.module.apply(
            {"params": params}, batch["inputs"], dropout_rate, train, rngs={"dropout": rng}
        )
        return logits, None

    def from_torch(self, state_dict: Mapping[str, Any]) -> tuple[Any, None]:
        """Parameters from the torch module's state dict, each weight mapped once; there is no model state."""
        source = {name: np.asarray(tensor) for name, tensor in state_dict.items()}
        heads = self.config.num_heads
        transformer: dict[str, Any] = {
            f"encoderblock_{i}": {
                "LayerNorm_0": _norm(source, f"encoder.net.{i}.layer_norm0"),
                "MultiHeadDotProductAttention_1": _attention(
                    source, f"encoder.net.{i}.self_attention1", heads
                ),
                "LayerNorm_2": _norm(source, f"encoder.net.{i}.layer_norm2"),
                "MlpBlock_3": _mlp(source, f"encoder.net.{i}.mlp3"),
            }
            for i in range(self.config.depth)
        }
        if not self.config.post_ln:
            transformer["encoder_layernorm"] = _norm(source, "encoder.encoder_norm")
        params: dict[str, Any] = {
            "conv_patch_extract": {
                "kernel": source["conv_patch_extract.weight"].transpose(2, 3, 1, 0),
                "bias": source["conv_patch_extract.bias"],
            },
            "Transformer": transformer,
            "pre_logits": _dense(source, "pre_logits"),
            "head": _dense(source, "head"),
        }
        if self.config.pooling == "map":
            params["MAPHead_0"] = {
                "probe": source["map.probe"],
                "MultiHeadDotProductAttention_0": _attention(source, "map.mha", heads),
                "LayerNorm_0": _norm(source, "map.layer_norm"),
                "MlpBlock_0": _mlp(source, "map.mlp"),
            }
        return jax.tree.map(jnp.asarray, params), None


def program(config: ViT) -> Program:
    """The program of this configuration."""
    return Program(config)


def _dense(source: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {"kernel": source[f"{name}.weight"].T, "bias": source[f"{name}.bias"]}


def _norm(source: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {"scale": source[f"{name}.weight"], "bias": source[f"{name}.bias"]}


def _mlp(source: Mapping[str, Any], name: str) -> dict[str, Any]:
    layers = ("linear1", "glu_linear", "linear2")
    present = [layer for layer in layers if f"{name}.{layer}.weight" in source]
    return {f"Dense_{i}": _dense(source, f"{name}.{layer}") for i, layer in enumerate(present)}


def _attention(source: Mapping[str, Any], name: str, num_heads: int) -> dict[str, Any]:
    """A torch matrix of all heads, (D, D), becomes one (D, heads, D / heads), or for `out` (heads, D / heads, D)."""
    layers = {layer: _dense(source, f"{name}.{layer}") for layer in ("query", "key", "value", "out")}
    for layer, weights in layers.items():
        width = len(weights["bias"])
        split = (num_heads, width // num_heads)
        if layer == "out":
            weights["kernel"] = weights["kernel"].reshape(*split, width)
        else:
            weights["kernel"] = weights["kernel"].reshape(width, *split)
            weights["bias"] = weights["bias"].reshape(split)
    return layers
