"""The convolutions that make a quarter of the frames, in torch. B batch, T frames, F mel bins, C channels, D width."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn


def xavier_layer(width_in: int, width_out: int) -> nn.Linear:
    """Xavier-uniform weight, zero bias."""
    layer = nn.Linear(width_in, width_out)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class HalvingConvolution(nn.Conv2d):
    """3x3 of stride 2; its output, then its activation, is 0 where a frame is padding.

    An axis of even length is padded with a zero at its end, one of odd length with one at each end (TensorFlow's
    SAME), so that n become ceil(n / 2). `activation` maps 0 to 0, as relu and tanh do: zeros before it are zeros
    after it, and one copy fewer is kept for the gradient.
    """

    def __init__(self, channels_in: int, channels: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__(channels_in, channels, 3, stride=2)
        self.activation = activation

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.weight)
        nn.init.zeros_(self.get_parameter("bias"))

    def forward(  # type: ignore[override]
        self, x_BCTF: Tensor, padding_BT: Tensor
    ) -> tuple[Tensor, Tensor]:
        frames, bins = x_BCTF.shape[2:]
        padded = F.pad(x_BCTF, (bins % 2, 1, frames % 2, 1))
        padding_BT = padding_BT[:, ::2]
        convolved = F.conv2d(padded, self.weight, self.bias, self.stride)
        return self.activation(convolved * (1 - padding_BT)[:, None, :, None]), padding_BT


class Subsampling(nn.Module):
    """Features (B, T, F) and padding (B, T) to (B, T / 4, D) and padding (B, T / 4), both rounded up."""

    def __init__(
        self, mel_bins: int, channels: int, width: int, activation: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.conv1 = HalvingConvolution(1, channels, activation)
        self.conv2 = HalvingConvolution(channels, channels, activation)
        self.linear = xavier_layer(-(-mel_bins // 4) * channels, width)

    def forward(self, features_BTF: Tensor, padding_BT: Tensor) -> tuple[Tensor, Tensor]:
        x_BCTF, padding_BT = self.conv1(features_BTF[:, None], padding_BT)
        x_BCTF, padding_BT = self.conv2(x_BCTF, padding_BT)
        return self.linear(x_BCTF.permute(0, 2, 3, 1).flatten(2)), padding_BT
