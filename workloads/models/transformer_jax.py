"""An encoder-decoder transformer in Flax; see `transformer.py`.

Shapes: B row, T position of the target (S of the source), D width, V token.
"""

from collections.abc import Mapping, Sequence
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
from timetrial.workloads.models.transformer import PADDING, Transformer, position_code
from timetrial.workloads.models.transformer_decoding_jax import translations
from timetrial.workloads.models.transformer_layers_jax import (
    Cache,
    EncoderBlock,
    EncoderDecoderBlock,
    KeysValues,
    Rate,
    attention_mask,
    layer_norm,
)


class Encoder(nn.Module):
    """All its layers, and where these normalise before, a last layer norm."""

    config: Transformer

    @nn.compact
    def __call__(self, x_BSD: Array, mask_B1SS: Array, dropout_rate: Rate, train: bool) -> Array:
        for i in range(self.config.num_layers):
            block = EncoderBlock(self.config, name=f"encoderblock_{i}")
            x_BSD = block(x_BSD, mask_B1SS, dropout_rate, train)
        return x_BSD if self.config.post_ln else layer_norm(name="encoder_layernorm")(x_BSD)


class Decoder(nn.Module):
    """All its layers, and where these normalise before, a last layer norm."""

    config: Transformer

    def setup(self) -> None:
        self.blocks = [
            EncoderDecoderBlock(self.config, name=f"encoderdecoderblock_{i}")
            for i in range(self.config.num_layers)
        ]
        if not self.config.post_ln:
            self.norm = layer_norm(name="encoderdecoder_layernorm")

    def source(self, encoded_BSD: Array) -> list[KeysValues]:
        return [block.source(encoded_BSD) for block in self.blocks]

    def __call__(
        self,
        x_BTD: Array,
        source: Sequence[KeysValues],
        self_mask_B1TT: Array,
        cross_mask_B1TS: Array,
        dropout_rate: Rate,
        train: bool,
        caches: Sequence[Cache] | None,
    ) -> tuple[Array, list[KeysValues]]:
        kept = []
        for i, block in enumerate(self.blocks):
            cache = None if caches is None else caches[i]
            x_BTD, seen = block(x_BTD, source[i], self_mask_B1TT, cross_mask_B1TS, dropout_rate, train, cache)
            kept.append(seen)
        return x_BTD if self.config.post_ln else self.norm(x_BTD), kept


class Network(nn.Module):
    """Source and target tokens to logits of the target (B, T, V), each from the tokens before it."""

    config: Transformer

    def setup(self) -> None:
        normal = nn.initializers.normal(1.0)
        self.shared_embedding = nn.Embed(self.config.num_tokens, self.config.width, embedding_init=normal)
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config)
        self.dropout = Dropout()

    def __call__(
        self,
        inputs_BS: Array,
        targets_BT: Array,
        inputs_position_BS: Array | None = None,
        targets_position_BT: Array | None = None,
        inputs_segmentation_BS: Array | None = None,
        targets_segmentation_BT: Array | None = None,
        *,
        dropout_rate: Rate,
        train: bool,
    ) -> Array:
        """Positions and segments are those of packed rows; without them a row is one sentence."""
        source_segments, segments = inputs_segmentation_BS, targets_segmentation_BT
        mask = attention_mask(inputs_BS, inputs_BS, source_segments, source_segments)
        encoded_BSD = self.encoded(
            inputs_BS, mask, inputs_position_BS, dropout_rate=dropout_rate, train=train
        )

        places = np.arange(targets_BT.shape[1])
        mask = attention_mask(targets_BT, targets_BT, segments, segments)
        # The shift minds no segments: a packed sentence begins with the end of the one before, as in AlgoPerf.
        logits, _ = self.decoded(
            jnp.pad(targets_BT[:, :-1], ((0, 0), (1, 0)), constant_values=PADDING),
            places if targets_position_BT is None else targets_position_BT,
            self.source(encoded_BSD),
            mask & (places[:, None] >= places),
            attention_mask(targets_BT, inputs_BS, segments, source_segments),
            dropout_rate=dropout_rate,
            train=train,
        )
        return logits

    def encoded(
        self,
        inputs_BS: Array,
        mask_B1SS: Array,
        positions_BS: Array | None = None,
        *,
        dropout_rate: Rate = 0.0,
        train: bool = False,
    ) -> Array:
        """The source, (B, S, D)."""
        positions = np.arange(inputs_BS.shape[1]) if positions_BS is None else positions_BS
        x_BSD = self._embedded(inputs_BS, positions, dropout_rate, train)
        out: Array = self.encoder(x_BSD, mask_B1SS, dropout_rate, train)
        return out

    def source(self, encoded_BSD: Array) -> list[KeysValues]:
        """What each layer of the decoder attends to."""
        return self.decoder.source(encoded_BSD)

    def decoded(
        self,
        tokens_BT: Array,
        positions: Array | np.ndarray,
        source: Sequence[KeysValues],
        self_mask_B1TT: Array,
        cross_mask_B1TS: Array,
        *,
        dropout_rate: Rate = 0.0,
        train: bool = False,
        caches: Sequence[Cache] | None = None,
    ) -> tuple[Array, list[KeysValues]]:
        """Logits (B, T, V) of the tokens that follow, and what each layer has seen.

        positions: (B, T), or what spreads to it.
        """
        x_BTD = self._embedded(tokens_BT, positions, dropout_rate, train)
        x_BTD, kept = self.decoder(
            x_BTD, source, self_mask_B1TT, cross_mask_B1TS, dropout_rate, train, caches
        )
        return self.shared_embedding.attend(x_BTD * self.config.width**-0.5), kept

    def _embedded(
        self, tokens_BT: Array, positions: Array | np.ndarray, dropout_rate: Rate, train: bool
    ) -> Array:
        x_BTD = self.shared_embedding(tokens_BT)
        code_LD = jnp.asarray(position_code(self.config.max_length, self.config.width), x_BTD.dtype)
        return self.dropout(x_BTD + code_LD[positions], dropout_rate, train=train)


_ATTENTION_WEIGHTS = {
    "query": ParameterType.ATTENTION_Q,
    "key": ParameterType.ATTENTION_K,
    "value": ParameterType.ATTENTION_V,
    "out": ParameterType.ATTENTION_OUT,
}


def _type_of(path: tuple[Any, ...], leaf: Any) -> ParameterType:
    module, name = path[-2].key, path[-1].key
    if module == "shared_embedding":
        return ParameterType.EMBEDDING
    if module in _ATTENTION_WEIGHTS:
        return _ATTENTION_WEIGHTS[module]
    if name == "scale":
        return ParameterType.LAYER_NORM_SCALE
    if "norm" in module.lower():
        return ParameterType.LAYER_NORM_BIAS
    return ParameterType.BIAS if name == "bias" else ParameterType.WEIGHT


class Program:
    """The JaxProgram of an encoder-decoder transformer. The shared embedding is its output layer."""

    output_parameters = frozenset({"shared_embedding"})
    loss = staticmethod(softmax_cross_entropy)
    score = staticmethod(classification_score)

    def __init__(self, config: Transformer) -> None:
        self.config = config
        self.module = Network(config)
        params, _ = jax.eval_shape(self.init, np.zeros(2, np.uint32))
        self.parameter_types: Mapping[str, Any] = jax.tree_util.tree_map_with_path(_type_of, params)

    def init(self, rng: Array) -> tuple[Any, None]:
        tokens = jnp.zeros((1, 1), jnp.int32)
        initialise = jax.jit(partial(self.module.init, dropout_rate=0.0, train=False))
        return initialise(rng, tokens, tokens)["params"], None

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
        dropout_rate: Rate,
    ) -> tuple[Array, None]:
        """There is no batch norm in this model: its two arguments are ignored."""
        logits: Any = self.module.apply(
            {"params": params},
            batch["inputs"],
            batch["targets"],
            batch.get("inputs_position"),
            batch.get("targets_position"),
            batch.get("inputs_segmentation"),
            batch.get("targets_segmentation"),
            dropout_rate=dropout_rate,
            train=train,
            rngs={"dropout": rng},
        )
        return logits, None

    def decode(self, params: Any, model_state: None, batch: Mapping[str, Array]) -> dict[str, Array]:
        """Of each row its translation and its reference, in tokens, and whether it is a row (1) or padding (0)."""
        targets_BT = batch["targets"]
        weights_BT = batch.get("weights", jnp.ones_like(targets_BT))
        return {
            "translations": translations(self.module, params, batch["inputs"]),
            "references": targets_BT,
            "rows": (weights_BT != 0).any(1).astype(weights_BT.dtype),
        }

    def from_torch(self, state_dict: Mapping[str, Any]) -> tuple[Any, None]:
        """Parameters from the torch module's state dict, each weight mapped once; there is no model state."""
        source = {name: np.asarray(tensor) for name, tensor in state_dict.items()}
        stacks: dict[str, dict[str, Any]] = {"encoder": {}, "decoder": {}}
        for stack, layer, attentions in (
            ("encoder", "encoderblock", ("self_attn",)),
            ("decoder", "encoderdecoderblock", ("self_attn", "multihead_attn")),
        ):
            for i in range(self.config.num_layers):
                name = f"{stack}.layers.{i}"
                weights = {"MlpBlock_0": _mlp(source, f"{name}.mlp")}
                for j, attention in enumerate(attentions):
                    heads = self.config.num_heads
                    weights[f"MultiHeadDotProductAttention_{j}"] = _attention(
                        source, f"{name}.{attention}", heads
                    )
                for j in range(len(attentions) + 1):
                    weights[f"LayerNorm_{j}"] = _norm(source, f"{name}.norm{j + 1}")
                stacks[stack][f"{layer}_{i}"] = weights
        if not self.config.post_ln:
            stacks["encoder"]["encoder_layernorm"] = _norm(source, "encoder.norm")
            stacks["decoder"]["encoderdecoder_layernorm"] = _norm(source, "decoder.norm")
        embedding = {"embedding": source["shared_embedding.weight"]}
        return jax.tree.map(jnp.asarray, stacks | {"shared_embedding": embedding}), None


def program(config: Transformer) -> Program:
    """The program of this configuration."""
    return Program(config)


def _norm(source: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {"scale": source[f"{name}.weight"], "bias": source[f"{name}.bias"]}


def _mlp(source: Mapping[str, Any], name: str) -> dict[str, Any]:
    names = (f"{name}.{layer}" for layer in ("linear1", "glu_linear", "linear2"))
    layers = [layer for layer in names if f"{layer}.weight" in source]
    return {
        f"Dense_{i}": {"kernel": source[f"{layer}.weight"].T, "bias": source[f"{layer}.bias"]}
        for i, layer in enumerate(layers)
    }


def _attention(source: Mapping[str, Any], name: str, num_heads: int) -> dict[str, Any]:
    """A torch matrix of all heads, (D, D), becomes one (D, N, D / N), or for `out` (N, D / N, D)."""
    layers = {}
    for layer, torch_name in (
        ("query", "q_proj"),
        ("key", "k_proj"),
        ("value", "v_proj"),
        ("out", "out_proj"),
    ):
        kernel = source[f"{name}.{torch_name}.weight"].T
        width = len(kernel)
        split = (num_heads, width // num_heads)
        layers[layer] = {"kernel": kernel.reshape((*split, width) if layer == "out" else (width, *split))}
    return layers
