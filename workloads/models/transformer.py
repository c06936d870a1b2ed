"""The configuration of an encoder-decoder transformer, and what both frameworks share of it."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

LAYER_NORM_EPSILON = 1e-6
MLP_BIAS_STD = 1e-6
LONGEST_PERIOD = 10_000.0  # of the position code, in tokens over 2 pi
PADDING = 0  # a token; what a decoder begins with, too
END_OF_SENTENCE = 2
LENGTH_PENALTY = 0.6  # the exponent in `length_penalty`


@dataclass(frozen=True, kw_only=True)
class Transformer:
    """Encoder and decoder with one embedding for both and for the output (Vaswani et al. 2017; AlgoPerf's `wmt`).

    Embeddings are not scaled, logits are divided by the root of the width. No biases in attention.

    Dropout: after the position code, of attention's weights and of its result, inside each perceptron and after it.
    """

    num_tokens: int
    max_length: int  # tokens of a sentence or of a packed row, the end included; a translation has one less
    width: int  # of a token; even and a multiple of the heads
    num_layers: int  # of the encoder, and as many of the decoder
    num_heads: int
    mlp_width: int
    beam_size: int = 4
    post_ln: bool = False  # normalise after each addition, and not at the ends
    attention_temp: float = 1.0  # what queries are multiplied by
    glu_tanh: bool = False  # tanh instead of ReLU, times a second linear map of the perceptron's input

    def __post_init__(self) -> None:
        if self.width % self.num_heads or self.width % 2 or self.width < 4:
            raise ValueError(
                f"width {self.width} must be even, 4 or more, and a multiple of the {self.num_heads} heads"
            )

    @property
    def query_scale(self) -> float:
        """What products of queries and keys are multiplied by."""
        return self.attention_temp / math.sqrt(self.width / self.num_heads)


def position_code(length: int, width: int) -> np.ndarray:
    """Code of each place in a sentence, (length, width) float64: sines, then cosines, of place times frequency.

    The frequencies are 10000^(-i / (f - 1)) for i below f = width / 2 (AlgoPerf's `wmt`).
    """
    angles = np.arange(length)[:, None] * LONGEST_PERIOD ** -np.linspace(0, 1, width // 2)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def length_penalty(tokens: Any) -> Any:
    """What the log-probability of that many tokens, the end included, is divided by (Wu et al. 2016, eq. 14).

    tokens: a floating-point number or array.
    """
    return ((5.0 + tokens) / 6.0) ** LENGTH_PENALTY
