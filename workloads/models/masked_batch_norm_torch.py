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
        if self.training and x_BTD.is_cuda and _is_one_rank():
            return self._in_few_passes(x_BTD, padding_BT)
        mask_BT1 = (1 - padding_BT)[..., None]
        if self.training:
            count = _over_ranks(mask_BT1.sum()).clamp_min(1.0)
            mean = _over_ranks((mask_BT1 * x_BTD).sum((0, 1))) / count
            var = _over_ranks((mask_BT1 * (x_BTD - mean).square()).sum((0, 1))) / count
            self._follow(mean.detach(), var.detach())
        else:
            mean, var = self.running_mean, self.running_var
        gain = torch.rsqrt(var + self.eps) * (1 + self.weight)
        return ((x_BTD - mean) * gain + self.bias) * mask_BT1

    def _in_few_passes(self, x_BTD: Tensor, padding_BT: Tensor) -> Tensor:
        """The same in training on one rank, by kernels; they do not read what is padding."""
        from timetrial.kernels.masked_batch_norm_triton import KERNEL

        frames_RD, mask_R = x_BTD.flatten(0, 1), 1 - padding_BT.flatten()
        y_RD, mean, var = KERNEL(frames_RD, mask_R, self.weight, self.bias, self.eps)
        self._follow(mean, var)
        y_BTD: Tensor = y_RD.view(x_BTD.shape)
        return y_BTD

    def _follow(self, mean: Tensor, var: Tensor) -> None:
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(var, self.momentum)
        self.num_batches_tracked.add_(1)


def _is_one_rank() -> bool:
    return not (
        distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
    )


def _over_ranks(local: Tensor) -> Tensor:
    """The sum over all ranks, through which gradients flow; the value itself where there is one rank."""
    if _is_one_rank():
        return local
    world = distributed.group.WORLD
    assert world is not None
    total: Tensor = collectives.wait_tensor(collectives.all_reduce(local, "sum", world))
    return total
