"""The layers of an encoder-decoder transformer in torch; see `transformer.py`.

Shapes: B row, T position of the target (S of the source), D width, N head, H head width, M hidden width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timetrial.workloads.models.transformer import (
    LAYER_NORM_EPSILON,
    MLP_BIAS_STD,
    PADDING,
    Transformer,
)


class KeysValues(NamedTuple):
    """Of one attention layer; each (B, N, S, H)."""

    keys: Tensor
    values: Tensor


class Cache(NamedTuple):
    """Keys and values of all steps up to a maximum, (B, N, places, H), and where this step's belong, (K,)."""

    keys: Tensor
    values: Tensor
    places: Tensor

    def written(self, new: KeysValues) -> KeysValues:
        """All of them, once this step's, (B, N, K, H), are stored in place."""
        keys = self.keys.index_copy_(2, self.places, new.keys)
        return KeysValues(keys, self.values.index_copy_(2, self.places, new.values))


def attention_mask(
    queries_BT: Tensor, keys_BS: Tensor, query_segments_BT: Tensor | None, key_segments_BS: Tensor | None
) -> Tensor:
    """Which tokens each token sees, (B, 1, T, S): those of its own segment that are no padding.

    A padding token sees everything: nothing depends on it, but attention to nothing would not be a number.
    """
    seen = (keys_BS != PADDING)[:, None]
    if query_segments_BT is not None and key_segments_BS is not None:
        seen = seen & (query_segments_BT[:, :, None] == key_segments_BS[:, None])
    return (seen | (queries_BT == PADDING)[:, :, None])[:, None]


def projection(width: int) -> nn.Linear:
    """A square matrix, Xavier-uniform, without bias."""
    layer = nn.Linear(width, width, bias=False)
    nn.init.xavier_uniform_(layer.weight)
    return layer


def perceptron_layer(width_in: int, width_out: int) -> nn.Linear:
    """Xavier-uniform weight, tiny normal bias."""
    layer = nn.Linear(width_in, width_out)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.normal_(layer.bias, std=MLP_BIAS_STD)
    return layer


def layer_norm(width: int) -> nn.LayerNorm:
    """Layer normalisation over the last axis."""
    return nn.LayerNorm(width, eps=LAYER_NORM_EPSILON)


class Attention(nn.Module):
    """Attention in several heads; keys and values are made apart, so that they can be kept."""

    def __init__(self, config: Transformer) -> None:
        super().__init__()
        self.num_heads, self.scale = config.num_heads, config.query_scale
        self.q_proj = projection(config.width)
        self.k_proj = projection(config.width)
        self.v_proj = projection(config.width)
        self.out_proj = projection(config.width)

    def keys_values(self, tokens_BSD: Tensor) -> KeysValues:
        return KeysValues(self._heads(self.k_proj(tokens_BSD)), self._heads(self.v_proj(tokens_BSD)))

    def forward(
        self, queries_BTD: Tensor, seen: KeysValues, mask_B1TS: Tensor, dropout_rate: float
    ) -> Tensor:
        rate = dropout_rate if self.training else 0.0
        out_BNTH = F.scaled_dot_product_attention(
            self._heads(self.q_proj(queries_BTD)),
            seen.keys,
            seen.values,
            attn_mask=mask_B1TS,
            dropout_p=rate,
            scale=self.scale,
        )
        return F.dropout(self.out_proj(out_BNTH.transpose(1, 2).flatten(2)), rate, self.training)

    def _heads(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) to (B, N, T, H)."""
        heads: Tensor = x_BTD.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        return heads


class Perceptron(nn.Module):
    """D to M, ReLU or gated tanh, back to D."""

    def __init__(self, config: Transformer) -> None:
        super().__init__()
        self.linear1 = perceptron_layer(config.width, config.mlp_width)
        self.glu_linear = perceptron_layer(config.width, config.mlp_width) if config.glu_tanh else None
        self.linear2 = perceptron_layer(config.mlp_width, config.width)

    def forward(self, x_BTD: Tensor, dropout_rate: float) -> Tensor:
        first_BTM = self.linear1(x_BTD)
        gate = self.glu_linear
        hidden_BTM = F.relu(first_BTM) if gate is None else torch.tanh(first_BTM) * gate(x_BTD)
        hidden_BTM = F.dropout(hidden_BTM, dropout_rate, self.training)
        return F.dropout(self.linear2(hidden_BTM), dropout_rate, self.training)


class Layer(nn.Module):
    """Where the layers of both stacks normalise: before each part, or after it has been added."""

    def __init__(self, config: Transformer) -> None:
        super().__init__()
        self.post_ln = config.post_ln

    def before(self, x_BTD: Tensor, norm: nn.Module) -> Tensor:
        return x_BTD if self.post_ln else norm(x_BTD)

    def added(self, x_BTD: Tensor, y_BTD: Tensor, norm: nn.Module) -> Tensor:
        return norm(x_BTD + y_BTD) if self.post_ln else x_BTD + y_BTD


class EncoderLayer(Layer):
    """Self-attention and perceptron, each beside a shortcut."""

    def __init__(self, config: Transformer) -> None:
        super().__init__(config)
        self.norm1, self.norm2 = layer_norm(config.width), layer_norm(config.width)
        self.self_attn = Attention(config)
        self.mlp = Perceptron(config)

    def forward(self, x_BSD: Tensor, mask_B1SS: Tensor, dropout_rate: float) -> Tensor:
        y = self.before(x_BSD, self.norm1)
        y = self.self_attn(y, self.self_attn.keys_values(y), mask_B1SS, dropout_rate)
        x_BSD = self.added(x_BSD, y, self.norm1)
        y = self.mlp(self.before(x_BSD, self.norm2), dropout_rate)
        return self.added(x_BSD, y, self.norm2)


class DecoderLayer(Layer):
    """Self-attention, attention to the source and perceptron, each beside a shortcut."""

    def __init__(self, config: Transformer) -> None:
        super().__init__(config)
        self.norm1, self.norm2 = layer_norm(config.width), layer_norm(config.width)
        self.norm3 = layer_norm(config.width)
        self.self_attn = Attention(config)
        self.multihead_attn = Attention(config)
        self.mlp = Perceptron(config)

    def forward(
        self,
        x_BTD: Tensor,
        source: KeysValues,
        self_mask_B1TT: Tensor,
        cross_mask_B1TS: Tensor,
        dropout_rate: float,
        cache: Cache | None = None,
    ) -> Tensor:
        """Without `cache`, x is all that self-attention can see; with it, so is what earlier calls have stored."""
        y = self.before(x_BTD, self.norm1)
        seen = self.self_attn.keys_values(y)
        if cache is not None:
            seen = cache.written(seen)
        y = self.self_attn(y, seen, self_mask_B1TT, dropout_rate)
        x_BTD = self.added(x_BTD, y, self.norm1)
        y = self.multihead_attn(self.before(x_BTD, self.norm2), source, cross_mask_B1TS, dropout_rate)
        x_BTD = self.added(x_BTD, y, self.norm2)
        y = self.mlp(self.before(x_BTD, self.norm3), dropout_rate)
        return self.added(x_BTD, y, self.norm3)


class Stack(nn.Module):
    """Layers, and where these normalise before, a last layer norm."""

    def __init__(self, config: Transformer, layer: type[EncoderLayer | DecoderLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layer(config) for _ in range(config.num_layers))
        self.norm = nn.Identity() if config.post_ln else layer_norm(config.width)
