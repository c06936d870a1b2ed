"""The configuration of a bottleneck residual network."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ResNet:
    """ResNet v1.5: each bottleneck strides in its 3x3 convolution (He et al. 2015; AlgoPerf's ResNet-50).

    Convolutions pad symmetrically, by (kernel - 1) / 2, in both frameworks.
    """

    stage_sizes: tuple[int, ...]  # bottlenecks per stage; every stage but the first halves height and width
    width: int  # channels of the stem and of the first stage's 3x3; doubled per stage, times 4 at its output
    num_classes: int
    stem_kernel: int
    stem_stride: int
    stem_pool: bool  # 3x3 max pooling of stride 2 after the stem
    last_batch_norm_scale: float = 0.0  # initial scale of the last batch norm of every bottleneck
