"""The configuration of a residual network."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class ResNet:
    """ResNet v1.5: a bottleneck strides in its 3x3 convolution (He et al. 2015; AlgoPerf's ResNet-50, ResNet-18).

    Convolutions pad symmetrically, by (kernel - 1) / 2, in both frameworks.
    """

    stage_sizes: tuple[int, ...]  # blocks per stage; every stage but the first halves height and width
    width: int  # channels of the stem and of the first stage's 3x3; doubled per stage
    num_classes: int
    stem_kernel: int
    stem_stride: int
    stem_pool: bool  # 3x3 max pooling of stride 2 after the stem
    block: Literal["bottleneck", "basic"] = "bottleneck"  # 1x1, 3x3, 1x1 of four times the width; or 3x3, 3x3
    activation: Literal["relu", "silu", "gelu"] = "relu"  # GELU is the tanh approximation
    last_batch_norm_scale: float = 0.0  # initial scale of the last batch norm of every block
