"""The configuration of a U-Net that restores images."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class UNet:
    """Pairs of 3x3 convolutions, with images halved `pools` times and doubled back (Ronneberger et al. 2015).

    Level i of the way down has `channels` * 2**i channels, the bottleneck `channels` * 2**pools. On the way up a
    2x2 transposed convolution of stride 2 halves the channels, and the level's features from the way down are
    appended. A 1x1 convolution with bias, the only bias outside of norms, makes the one output channel.
    """

    channels: int = 32
    pools: int = 4
    activation: Literal["leaky_relu", "tanh"] = "leaky_relu"  # leaky: slope 0.2 below 0
    # After each 3x3 convolution: `instance` over height and width of each channel, eps 1e-5, no parameters;
    # `layer` over height, width and channels, eps 1e-6, one scale and bias a channel. Transposed convolutions
    # are followed by `instance` in either case.
    norm: Literal["instance", "layer"] = "instance"
