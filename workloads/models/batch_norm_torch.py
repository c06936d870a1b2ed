"""Batch normalisation whose running variance is the biased one, as in Flax.

torch's own layers normalise with the biased variance of the batch but keep the unbiased one, n / (n - 1)
larger, in their running average; Flax keeps the biased one. With the same convention the two frameworks
evaluate the same function. Momentum (0.1, the weight of the new value), eps (1e-5) and names are torch's.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _BiasedStatistics(nn.modules.batchnorm._BatchNorm):
    """What both layers below share; `momentum` 0 freezes the running averages."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, features) or (batch, features, height, width)."""
        if not self.training:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        # With momentum 1 these two receive the batch's own statistics: no second pass over x is needed.
        batch_mean, unbiased_var = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
        y = F.batch_norm(x, batch_mean, unbiased_var, self.weight, self.bias, True, 1.0, self.eps)
        n = x.numel() // x.shape[1]
        self.running_mean.lerp_(batch_mean, self.momentum)
        self.running_var.lerp_(unbiased_var * ((n - 1) / n), self.momentum)
        self.num_batches_tracked.add_(1)
        return y


class BatchNorm1d(_BiasedStatistics, nn.BatchNorm1d):
    """Over (batch, features)."""


class BatchNorm2d(_BiasedStatistics, nn.BatchNorm2d):
    """Over (batch, features, height, width)."""
