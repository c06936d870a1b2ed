"""Layer normalisation whose gain is 1 + `scale`, in torch (AlgoPerf's speech models): decay pulls the gain to 1."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class OffsetLayerNorm(nn.Module):
    """Over the last axis, which is `width` long; `scale` and `bias` start at 0."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.scale = nn.Parameter(torch.zeros(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.scale.shape, 1 + self.scale, self.bias, self.epsilon)
