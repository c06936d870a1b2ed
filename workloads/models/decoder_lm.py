"""The configuration of a decoder-only language model, and what both frameworks share of it."""

import math
from dataclasses import dataclass

import numpy as np

ROTARY_BASE = 500_000.0
RMS_NORM_EPSILON = 1e-6
QK_NORM_EPSILON = 1e-6  # added to the norm that a query or key is divided by
INIT_STD = 0.02


@dataclass(frozen=True, kw_only=True)
class DecoderLM:
    """Pre-norm transformer: RMSNorm, rotary embedding, QK-norm, gated MLP, tied embeddings.

    Queries are multiplied by a learned scale. No biases and no dropout (AlgoPerf's `finewebedu_lm`).
    """

    num_tokens: int
    length: int  # tokens per sequence
    width: int
    num_layers: int
    num_heads: int
    mlp_width: int  # of the gated hidden layer: the first projection is twice as wide

    @property
    def head_width(self) -> int:
        return self.width // self.num_heads

    @property
    def residual_std(self) -> float:
        """Initial standard deviation of the two projections that write to the residual stream."""
        return INIT_STD / math.sqrt(2 * self.num_layers)

    @property
    def initial_attention_scale(self) -> float:
        """log2(L^2 - L) for length L, what a query of norm 1 is multiplied by."""
        return math.log2(self.length**2 - self.length)


def rotary_tables(length: int, head_width: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine of the rotation angles, float64, each (length, head_width / 2).

    Position t turns the pair (x[2i], x[2i + 1]) by t * ROTARY_BASE^(-2i / head_width) (Su et al. 2021).
    """
    rates = ROTARY_BASE ** (-np.arange(0, head_width, 2) / head_width)
    angles = np.arange(length)[:, None] * rates
    return np.cos(angles), np.sin(angles)
