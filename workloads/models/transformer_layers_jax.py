"""The layers of an encoder-decoder transformer in Flax; see `transformer.py`.

Shapes: B row, T position of the target (S of the source), D width, N head, H head width, M hidden width.
"""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from timetrial.workloads.models.dropout_jax import Dropout
from timetrial.workloads.models.transformer import LAYER_NORM_EPSILON, MLP_BIAS_STD, PADDING, Transformer

Rate = float | Array
LEAST_SCORE = -1e30  # of what may not be seen
xavier_uniform = nn.initializers.xavier_uniform()
# E[x^2] - E[x]^2 loses digits that torch keeps.
layer_norm = partial(nn.LayerNorm, epsilon=LAYER_NORM_EPSILON, use_fast_variance=False)


class KeysValues(NamedTuple):
    """Of one attention layer; each (B, N, S, H)."""

    keys: Array
    values: Array

    def written(self, new: "KeysValues", first: Array) -> "KeysValues":
        """These with `new` ones from position `first` on."""
        write = partial(jax.lax.dynamic_update_slice_in_dim, start_index=first, axis=2)
        return KeysValues(write(self.keys, new.keys), write(self.values, new.values))


class Cache(NamedTuple):
    """Keys and values of all steps up to a maximum, and where this step's begin."""

    kept: KeysValues
    first: Array


def attention_mask(
    queries_BT: Array, keys_BS: Array, query_segments_BT: Array | None, key_segments_BS: Array | None
) -> Array:
    """Which tokens each token sees, (B, 1, T, S): those of its own segment that are no padding.

    A padding token sees everything: nothing depends on it, but attention to nothing would not be a number.
    """
    seen = (keys_BS != PADDING)[:, None]
    if query_segments_BT is not None and key_segments_BS is not None:
        seen = seen & (query_segments_BT[:, :, None] == key_segments_BS[:, None])
    mask: Array = (seen | (queries_BT == PADDING)[:, :, None])[:, None]
    return mask


class MultiHeadDotProductAttention(nn.Module):
    """Attention in several heads; keys and values are made apart, so that they can be kept."""

    config: Transformer

    def setup(self) -> None:
        width, heads = self.config.width, self.config.num_heads
        split = partial(nn.DenseGeneral, (heads, width // heads), use_bias=False, kernel_init=xavier_uniform)
        self.query, self.key, self.value = split(), split(), split()
        self.out = nn.DenseGeneral(width, axis=(-2, -1), use_bias=False, kernel_init=xavier_uniform)
        self.dropout = Dropout()

    def keys_values(self, tokens_BSD: Array) -> KeysValues:
        return KeysValues(self.key(tokens_BSD).swapaxes(1, 2), self.value(tokens_BSD).swapaxes(1, 2))

    def __call__(
        self, queries_BTD: Array, seen: KeysValues, mask_B1TS: Array, dropout_rate: Rate, train: bool
    ) -> Array:
        queries_BNTH = self.query(queries_BTD).swapaxes(1, 2) * self.config.query_scale
        scores_BNTS = queries_BNTH @ seen.keys.swapaxes(2, 3)
        scores_BNTS = jnp.where(mask_B1TS, scores_BNTS, LEAST_SCORE)
        # Softmax, whose denominator divides the result rather than the larger matrix of weights.
        largest = jax.lax.stop_gradient(scores_BNTS.max(-1, keepdims=True))
        weights_BNTS = jnp.exp(scores_BNTS - largest)
        total_BNT1 = weights_BNTS.sum(-1, keepdims=True)
        out_BNTH = self.dropout(weights_BNTS, dropout_rate, train=train) @ seen.values / total_BNT1
        return self.dropout(self.out(out_BNTH.swapaxes(1, 2)), dropout_rate, train=train)


class MlpBlock(nn.Module):
    """D to M, ReLU or gated tanh, back to D."""

    config: Transformer

    @nn.compact
    def __call__(self, x_BTD: Array, dropout_rate: Rate, train: bool) -> Array:
        dense = partial(nn.Dense, kernel_init=xavier_uniform, bias_init=nn.initializers.normal(MLP_BIAS_STD))
        hidden_BTM = dense(self.config.mlp_width)(x_BTD)
        if self.config.glu_tanh:
            hidden_BTM = jnp.tanh(hidden_BTM) * dense(self.config.mlp_width)(x_BTD)
        else:
            hidden_BTM = nn.relu(hidden_BTM)
        hidden_BTM = Dropout()(hidden_BTM, dropout_rate, train=train)
        return Dropout()(dense(self.config.width)(hidden_BTM), dropout_rate, train=train)


class Layer(nn.Module):
    """Where the layers of both stacks normalise: before each part, or after it has been added."""

    config: Transformer

    def before(self, x_BTD: Array, norm: nn.Module) -> Array:
        return x_BTD if self.config.post_ln else norm(x_BTD)

    def added(self, x_BTD: Array, y_BTD: Array, norm: nn.Module) -> Array:
        return norm(x_BTD + y_BTD) if self.config.post_ln else x_BTD + y_BTD


class EncoderBlock(Layer):
    """Self-attention and perceptron, each beside a shortcut."""

    @nn.compact
    def __call__(self, x_BSD: Array, mask_B1SS: Array, dropout_rate: Rate, train: bool) -> Array:
        norm0, norm1 = layer_norm(name="LayerNorm_0"), layer_norm(name="LayerNorm_1")
        attention = MultiHeadDotProductAttention(self.config, name="MultiHeadDotProductAttention_0")
        y = self.before(x_BSD, norm0)
        y = attention(y, attention.keys_values(y), mask_B1SS, dropout_rate, train)
        x_BSD = self.added(x_BSD, y, norm0)
        y = MlpBlock(self.config, name="MlpBlock_0")(self.before(x_BSD, norm1), dropout_rate, train)
        return self.added(x_BSD, y, norm1)


class EncoderDecoderBlock(Layer):
    """Self-attention, attention to the source and perceptron, each beside a shortcut."""

    def setup(self) -> None:
        self.norms = [layer_norm(name=f"LayerNorm_{i}") for i in range(3)]
        self.self_attention = MultiHeadDotProductAttention(self.config, name="MultiHeadDotProductAttention_0")
        self.cross_attention = MultiHeadDotProductAttention(
            self.config, name="MultiHeadDotProductAttention_1"
        )
        self.mlp = MlpBlock(self.config, name="MlpBlock_0")

    def source(self, encoded_BSD: Array) -> KeysValues:
        """What this layer attends to."""
        return self.cross_attention.keys_values(encoded_BSD)

    def __call__(
        self,
        x_BTD: Array,
        source: KeysValues,
        self_mask_B1TT: Array,
        cross_mask_B1TS: Array,
        dropout_rate: Rate,
        train: bool,
        cache: Cache | None = None,
    ) -> tuple[Array, KeysValues]:
        """The new x, and what self-attention has seen: x alone, or with `cache` what that holds and x."""
        y = self.before(x_BTD, self.norms[0])
        seen = self.self_attention.keys_values(y)
        if cache is not None:
            seen = cache.kept.written(seen, cache.first)
        y = self.self_attention(y, seen, self_mask_B1TT, dropout_rate, train)
        x_BTD = self.added(x_BTD, y, self.norms[0])
        y = self.before(x_BTD, self.norms[1])
        y = self.cross_attention(y, source, cross_mask_B1TS, dropout_rate, train)
        x_BTD = self.added(x_BTD, y, self.norms[1])
        y = self.mlp(self.before(x_BTD, self.norms[2]), dropout_rate, train)
        return self.added(x_BTD, y, self.norms[2]), seen
