"""Batch normalisation of padded sequences, in torch. Shapes: B batch, T frames, D features."""

import torch
import torch.distributed._functional_collectives as collectives
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

EPSILON = 1e-3


class MaskedBatchNorm(_BatchNorm):
    """Batch normalisation over all frames that are no padding; padded frames become 0 (AlgoPerf's speech models).

    The gain is 1 + `weight`. The statistics are those of the global batch, whatever its share on this rank; running
    averages are of the mean and of the biased variance; each update multiplies what they were by `decay`, and
    `momentum`, the rest, 0 freezes them.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    weight: nn.Parameter
    momentum: float

    def __init__(self, width: int, decay: float) -> None:
        super().__init__(width, eps=EPSILON, momentum=1 - decay)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.zeros_(self.weight)

    def forward(self, x_BTD: Tensor, padding_BT: Tensor) -> Tensor:  # type: ignore[override]
        """x: (B, T, D); padding: (B, T), 1.0 where there is nothing, else 0.0."""
        mask_BT1 = (1 - padding_BT)[..., None]
        if self.training:
            count = _over_ranks(mask_BT1.sum()).clamp_min(1.0)
            mean = _over_ranks((mask_BT1 * x_BTD).sum((0, 1))) / count
            var = _over_ranks((mask_BT1 * (x_BTD - mean).square()).sum((0, 1))) / count
            self.running_mean.lerp_(mean.detach(), self.momentum)
            self.running_var.lerp_(var.detach(), self.momentum)
            self.num_batches_tracked.add_(1)
        else:
            mean, var = self.running_mean, self.running_var
        gain = torch.rsqrt(var + self.eps) * (1 + self.weight)
        return ((x_BTD - mean) * gain + self.bias) * mask_BT1


def _over_ranks(local: Tensor) -> Tensor:
    """The sum over all ranks, through which gradients flow; the value itself where there is one rank."""
    world = distributed.group.WORLD if distributed.is_available() else None
    if world is None or world.size() == 1:
        return local
    total: Tensor = collectives.wait_tensor(collectives.all_reduce(local, "sum", world))
    return total
