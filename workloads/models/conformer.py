"""The configuration of a Conformer, and its position code."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from timetrial.workloads.models.speech_features import LogMel, SpecAugment

LAYER_NORM_EPSILON = 1e-6
LONGEST_PERIOD = 10_000.0  # of the position code, in frames over 2 pi
# 1 / ln 2: a scale of s multiplies queries by log2(1 + e^s), which is 1 where s is 0.
QUERY_SCALE = 1.442695041


@dataclass(frozen=True, kw_only=True)
class Conformer:
    """A Conformer (Gulati et al. 2020) that hears symbols in audio (AlgoPerf's `librispeech_conformer`).

    Log-mel features, under SpecAugment in training; two convolutions that make a quarter of the frames, a linear
    layer, a fixed code of each frame's place. Each block adds half a perceptron, self-attention, a convolution and
    half a perceptron to its frames, and normalises them. A layer norm and a linear layer give logits.

    Layer norms and the convolution's masked batch norm have gains of 1 + scale. Each element of every head's query
    is multiplied by log2(1 + e^s), s learned and shared by the heads of a layer.

    Dropout, where a rate is given: after the position code, inside each perceptron and after it, after attention's
    output and after the convolution. Attention's weights are never dropped.
    """

    vocabulary: int = 1024  # symbols, the blank 0 included
    width: int = 512  # of a frame; even, and a multiple of the heads
    depth: int = 4  # blocks
    num_heads: int = 8
    mlp_width: int = 2048
    kernel: int = 5  # frames that a block's convolution sees; odd
    subsampling_channels: int = 512
    activation: Literal["swish", "gelu"] = "swish"  # of perceptrons and convolutions; gelu in its tanh form
    attention_scale: float = 1.0  # what attended values are multiplied by, before the output projection
    block_layer_norm: bool = True  # whether a block normalises its result
    batch_norm_decay: float = 0.999  # of the running averages, each update
    features: LogMel = field(default_factory=LogMel)
    spec_augment: SpecAugment = field(default_factory=SpecAugment)

    def __post_init__(self) -> None:
        if self.width % self.num_heads or self.width % 2:
            raise ValueError(f"width {self.width} must be even and a multiple of the {self.num_heads} heads")
        if self.kernel % 2 == 0:
            raise ValueError(f"a kernel of {self.kernel} frames must be odd, so that it has a middle")


def position_code(frames: int, width: int) -> np.ndarray:
    """Code of each frame's place, (frames, width) float64: sines of the place times each frequency, then cosines.

    The frequencies are 10000^(-i / (f - 1)) for i below f = width / 2.
    """
    angles = np.arange(frames)[:, None] * LONGEST_PERIOD ** -np.linspace(0, 1, width // 2)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
