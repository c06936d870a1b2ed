"""A decoder-only language model in Flax; see `decoder_lm.py`.

Shapes: B batch, T position (S of the keys), D width, N head, H head width, V token.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from timetrial.engine.spec import ParameterType
from timetrial.workloads.losses_jax import classification_score, softmax_cross_entropy
from timetrial.workloads.models.decoder_lm import (
    INIT_STD,
    QK_NORM_EPSILON,
    RMS_NORM_EPSILON,
    DecoderLM,
    rotary_tables,
)


def projection(width: int, std: float, name: str) -> nn.Dense:
    """A linear map without bias, normally initialised."""
    return nn.Dense(width, use_bias=False, kernel_init=nn.initializers.normal(std), name=name)


def rotated(x_BTNH: Array, cos_T1H: Array, sin_T1H: Array) -> Array:
    """Rotary embedding on interleaved pairs; the tables hold half of H."""
    even, odd = x_BTNH[..., 0::2], x_BTNH[..., 1::2]
    pairs = jnp.stack((even * cos_T1H - odd * sin_T1H, even * sin_T1H + odd * cos_T1H), -1)
    return pairs.reshape(x_BTNH.shape)


def unit_norm(x_BTNH: Array) -> Array:
    """Each head's vector divided by its Euclidean norm."""
    unit: Array = x_BTNH / (jnp.linalg.norm(x_BTNH, axis=-1, keepdims=True) + QK_NORM_EPSILON)
    return unit


class Attention(nn.Module):
    """Causal self-attention on unit queries and keys."""

    config: DecoderLM

    @nn.compact
    def __call__(self, x_BTD: Array) -> Array:
        config, length = self.config, x_BTD.shape[1]
        q, k, v = (
            projection(config.width, INIT_STD, name)(x_BTD).reshape(*x_BTD.shape[:2], config.num_heads, -1)
            for name in ("query", "key", "value")
        )
        initial_scale = nn.initializers.constant(config.initial_attention_scale)
        scale = self.param("scale", initial_scale, (), jnp.float32)
        cos_TH, sin_TH = rotary_tables(length, config.head_width)
        tables = (jnp.asarray(cos_TH[:, None], x_BTD.dtype), jnp.asarray(sin_TH[:, None], x_BTD.dtype))
        q = unit_norm(rotated(q, *tables)) * scale
        k = unit_norm(rotated(k, *tables))
        scores_BNTS = jnp.einsum("BTNH,BSNH->BNTS", q, k)
        scores_BNTS = jnp.where(np.tri(length, dtype=bool), scores_BNTS, -jnp.inf)
        out_BTNH = jnp.einsum("BNTS,BSNH->BTNH", jax.nn.softmax(scores_BNTS, axis=-1), v)
        return projection(config.width, config.residual_std, "out")(out_BTNH.reshape(x_BTD.shape))


class GatedMLP(nn.Module):
    """a * sigmoid(b) between two projections, the first of which yields a and b."""

    config: DecoderLM

    @nn.compact
    def __call__(self, x_BTD: Array) -> Array:
        config = self.config
        hidden = nn.glu(projection(2 * config.mlp_width, INIT_STD, "up")(x_BTD))
        return projection(config.width, config.residual_std, "down")(hidden)


class Block(nn.Module):
    """Attention and MLP, each on the normalised residual stream."""

    config: DecoderLM

    @nn.compact
    def __call__(self, x_BTD: Array) -> Array:
        y_BTD = nn.RMSNorm(RMS_NORM_EPSILON, name="attention_norm")(x_BTD)
        x_BTD = x_BTD + Attention(self.config, name="attention")(y_BTD)
        y_BTD = nn.RMSNorm(RMS_NORM_EPSILON, name="mlp_norm")(x_BTD)
        return x_BTD + GatedMLP(self.config, name="mlp")(y_BTD)


class Network(nn.Module):
    """Tokens (B, T) to logits (B, T, V)."""

    config: DecoderLM

    @nn.compact
    def __call__(self, tokens_BT: Array) -> Array:
        config = self.config
        initializer = nn.initializers.normal(INIT_STD)
        embedding = nn.Embed(config.num_tokens, config.width, embedding_init=initializer, name="embedding")
        x_BTD = embedding(tokens_BT)
        for i in range(config.num_layers):
            x_BTD = Block(config, name=f"block_{i}")(x_BTD)
        return embedding.attend(nn.RMSNorm(RMS_NORM_EPSILON, name="final_norm")(x_BTD))


def _parameter_types(num_layers: int) -> dict[str, Any]:
    block = {
        "attention_norm": {"scale": ParameterType.LAYER_NORM_SCALE},
        "attention": {
            "scale": ParameterType.WEIGHT,
            "query": {"kernel": ParameterType.ATTENTION_Q},
            "key": {"kernel": ParameterType.ATTENTION_K},
            "value": {"kernel": ParameterType.ATTENTION_V},
            "out": {"kernel": ParameterType.ATTENTION_OUT},
        },
        "mlp_norm": {"scale": ParameterType.LAYER_NORM_SCALE},
        "mlp": {"up": {"kernel": ParameterType.WEIGHT}, "down": {"kernel": ParameterType.WEIGHT}},
    }
    return {f"block_{i}": block for i in range(num_layers)} | {
        "embedding": {"embedding": ParameterType.EMBEDDING},
        "final_norm": {"scale": ParameterType.LAYER_NORM_SCALE},
    }


def from_torch(state_dict: Mapping[str, Any]) -> tuple[Any, None]:
    """Parameters (there is no model state) from the torch module's state dict, each weight mapped once."""
    source = {name: np.asarray(tensor) for name, tensor in state_dict.items()}
    params: dict[str, Any] = {
        "embedding": {"embedding": source["embedding.weight"]},
        "final_norm": {"scale": source["final_norm.weight"]},
    }
    num_layers = sum(name.endswith("attention.scale") for name in source)
    for i in range(num_layers):
        attention = {
            name: {"kernel": source[f"blocks.{i}.attention.{torch_name}.weight"].T}
            for name, torch_name in (
                ("query", "q_proj"),
                ("key", "k_proj"),
                ("value", "v_proj"),
                ("out", "out_proj"),
            )
        }
        params[f"block_{i}"] = {
            "attention_norm": {"scale": source[f"blocks.{i}.attention_norm.weight"]},
            "attention": attention | {"scale": source[f"blocks.{i}.attention.scale"]},
            "mlp_norm": {"scale": source[f"blocks.{i}.mlp_norm.weight"]},
            "mlp": {name: {"kernel": source[f"blocks.{i}.mlp.{name}.weight"].T} for name in ("up", "down")},
        }
    return jax.tree.map(jnp.asarray, params), None


class Program:
    """The JaxProgram of a language model. The tied embedding is its output layer."""

    output_parameters = frozenset({"embedding"})
    loss = staticmethod(softmax_cross_entropy)
    score = staticmethod(classification_score)
    from_torch = staticmethod(from_torch)

    def __init__(self, config: DecoderLM) -> None:
        self.config = config
        self.module = Network(config)
        self.parameter_types: Mapping[str, Any] = _parameter_types(config.num_layers)

    def init(self, rng: Array) -> tuple[Any, None]:
        tokens = jnp.zeros((1, self.config.length), jnp.int32)
        return jax.jit(self.module.init)(rng, tokens)["params"], None

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
        """There is neither dropout nor batch normalisation in this model: their arguments are ignored."""
        logits = self.module.apply({"params": params}, batch["inputs"])
        return jnp.asarray(logits), None


def program(config: DecoderLM) -> Program:
    """The program of this configuration."""
    return Program(config)
