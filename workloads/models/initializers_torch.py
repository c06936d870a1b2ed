"""Initialisers that torch lacks; all draw from torch's global generator."""

import math

from torch import Tensor, nn

# Standard deviation of a standard normal truncated at +-2, by which LeCun-normal corrects its own.
TRUNCATED_NORMAL_STD = 0.87962566103423978


def lecun_normal_(weight: Tensor) -> Tensor:
    """Truncated normal of variance 1 / fan-in, the default of Flax's Dense and Conv.

    weight: (out, in, ...), where fan-in is the product of all axes but the first.
    """
    std = math.sqrt(1.0 / weight[0].numel()) / TRUNCATED_NORMAL_STD
    return nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
