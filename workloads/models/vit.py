"""The configuration of a vision transformer, and its position code."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

LAYER_NORM_EPSILON = 1e-6
MLP_BIAS_STD = 1e-6
LONGEST_PERIOD = 10_000.0  # of the position code, in tokens over 2 pi


@dataclass(frozen=True, kw_only=True)
class ViT:
    """ViT without a class token (Dosovitskiy et al. 2021, Beyer et al. 2022; AlgoPerf's `imagenet_vit`).

    A patch is one token, to which a fixed code of its place is added. Blocks of self-attention and perceptron, each
    on layer-normalised tokens. The mean of the tokens goes through a tanh layer to the output layer, whose weights
    start at 0.

    Dropout, where a rate is given: after the position code, after attention's output, inside each perceptron and
    after it. Attention's weights are never dropped.
    """

    image_size: int  # pixels a side of the workload's images; nothing but the number of tokens depends on it
    patch: int  # pixels a side
    width: int  # of a token; a multiple of 4 and of the heads
    depth: int  # blocks
    num_heads: int
    mlp_width: int
    num_classes: int
    glu: bool = False  # multiply a perceptron's activated hidden layer by a linear map of itself
    post_ln: bool = False  # normalise after each addition, and not at the end
    pooling: Literal["mean", "map"] = "mean"  # "map": attention of a learned probe, then a perceptron

    def __post_init__(self) -> None:
        if self.width % self.num_heads or self.width % 4:
            raise ValueError(f"width {self.width} must be a multiple of 4 and of the {self.num_heads} heads")


def position_code(rows: int, columns: int, width: int) -> np.ndarray:
    """Code of each token's place, (rows * columns, width) float64, tokens row by row.

    Sine and cosine of the column times each frequency, then those of the row (AlgoPerf's `imagenet_vit`). The
    frequencies are 10000^(-i / (f - 1)) for i below f = width / 4.
    """
    frequencies = LONGEST_PERIOD ** -np.linspace(0, 1, width // 4)
    row, column = (place.reshape(-1, 1) * frequencies for place in np.mgrid[:rows, :columns])
    return np.concatenate([np.sin(column), np.cos(column), np.sin(row), np.cos(row)], axis=1)
