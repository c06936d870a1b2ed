"""A U-Net in torch; see `unet.py`.

Images are NCHW here (N batch, C channels, H height, W width), but stored channels-last, in which a CPU
convolves them faster.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timetrial.engine.spec import ParameterType
from timetrial.workloads.losses_torch import mean_absolute_error
from timetrial.workloads.models.initializers_torch import lecun_normal_
from timetrial.workloads.models.unet import UNet
from timetrial.workloads.ssim_torch import reconstruction_score


def normalised(x_NCHW: Tensor, axes: tuple[int, ...], epsilon: float) -> Tensor:
    """x less its mean over `axes`, over its standard deviation there.

    The variance is the mean square of what is left, for E[x^2] - E[x]^2 cancels. Written for its gradient: that of
    `mean` is laid out channels-first, after which every operation mixes both layouts, and that of a subtraction
    is negated whole before it is summed.
    """
    sums = x_NCHW.sum(axes, keepdim=True)
    per_size = sums.numel() / x_NCHW.numel()
    centred = x_NCHW + sums * -per_size
    variance = centred.square().sum(axes, keepdim=True) * per_size
    return centred * torch.rsqrt(variance + epsilon)


class InstanceNorm(nn.Module):
    """Over height and width of each channel."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return normalised(x_NCHW, (2, 3), 1e-5)


class LayerNorm(nn.Module):
    """Over height, width and channels, then a scale and a bias of each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        x = normalised(x_NCHW, (1, 2, 3), 1e-6)
        return torch.addcmul(self.bias[:, None, None], x, self.weight[:, None, None])


def activated(x: Tensor, config: UNet) -> Tensor:
    """In place: x is the output of a norm, whose gradient does not need it."""
    return x.tanh_() if config.activation == "tanh" else F.leaky_relu_(x, 0.2)


class ConvBlock(nn.Module):
    """Twice: 3x3 convolution, norm, activation, dropout of whole channels."""

    def __init__(self, config: UNet, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.config = config
        self.conv_layers = nn.ModuleDict()
        for position, channels in ((0, channels_in), (4, channels_out)):
            conv = nn.Conv2d(channels, channels_out, 3, padding=1, bias=False)
            lecun_normal_(conv.weight)
            self.conv_layers[str(position)] = conv
            self.conv_layers[str(position + 1)] = (
                LayerNorm(channels_out) if config.norm == "layer" else InstanceNorm()
            )

    def forward(self, x_NCHW: Tensor, dropout_rate: float) -> Tensor:
        for conv, norm in (("0", "1"), ("4", "5")):
            x_NCHW = activated(self.conv_layers[norm](self.conv_layers[conv](x_NCHW)), self.config)
            x_NCHW = F.dropout2d(x_NCHW, dropout_rate, self.training)
        return x_NCHW


class TransposeConvBlock(nn.Module):
    """Twice the height and width: 2x2 transposed convolution, instance norm, activation."""

    def __init__(self, config: UNet, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.config = config
        conv = nn.ConvTranspose2d(channels_in, channels_out, 2, 2, bias=False)
        # The weight is (in, out, 2, 2): turned, its fan-in is 4 * channels_in, as in Flax.
        lecun_normal_(conv.weight.detach().transpose(0, 1))
        self.layers = nn.Sequential(conv, InstanceNorm())

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return activated(self.layers(x_NCHW), self.config)


class Network(nn.Module):
    """Images (batch, H, W) to images (batch, H, W); H and W at least 2**pools."""

    def __init__(self, config: UNet) -> None:
        super().__init__()
        widths = [config.channels * 2**level for level in range(config.pools + 1)]
        self.down_sample_layers = nn.ModuleList(
            ConvBlock(config, channels_in, channels_out)
            for channels_in, channels_out in zip([1, *widths], widths[:-1], strict=False)
        )
        self.conv = ConvBlock(config, widths[-2], widths[-1])
        up = [(2 * width, width) for width in reversed(widths[:-1])]
        self.up_conv = nn.ModuleList(ConvBlock(config, *channels) for channels in up)
        self.up_transpose_conv = nn.ModuleList(TransposeConvBlock(config, *channels) for channels in up)
        output = nn.Conv2d(config.channels, 1, 1)
        lecun_normal_(output.weight)
        nn.init.zeros_(output.get_parameter("bias"))
        self.up_conv[-1] = nn.ModuleList([self.up_conv[-1], output])  # the names that AlgoPerf gives them

    def forward(self, x_NHW: Tensor, dropout_rate: float = 0.0) -> Tensor:
        x = x_NHW.unsqueeze(3).permute(0, 3, 1, 2)
        skipped = []
        for block in self.down_sample_layers:
            x = block(x, dropout_rate)
            skipped.append(x)
            x = F.avg_pool2d(x, 2)
        x = self.conv(x, dropout_rate)
        *blocks, last = self.up_conv
        blocks = [*blocks, last.get_submodule("0")]
        for upsample, block in zip(self.up_transpose_conv, blocks, strict=True):
            skip = skipped.pop()
            x = upsample(x)
            odd_height, odd_width = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]
            if odd_height or odd_width:  # pooling dropped the last row or column
                x = F.pad(x, (0, odd_width, 0, odd_height), mode="reflect")
            x = block(torch.cat((x, skip), 1), dropout_rate)
        out: Tensor = last.get_submodule("1")(x)
        return out.squeeze(1)


def _parameter_types(network: Network) -> dict[str, ParameterType]:
    types = {}
    for path, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            types[f"{path}.weight"] = ParameterType.CONV_WEIGHT
            if module.bias is not None:
                types[f"{path}.bias"] = ParameterType.BIAS
        elif isinstance(module, LayerNorm):
            types[f"{path}.weight"] = ParameterType.LAYER_NORM_SCALE
            types[f"{path}.bias"] = ParameterType.LAYER_NORM_BIAS
    return types


class Program:
    """The TorchProgram of a U-Net."""

    loss = staticmethod(mean_absolute_error)
    score = staticmethod(reconstruction_score)

    def __init__(self, config: UNet) -> None:
        self.config = config
        last = f"up_conv.{config.pools - 1}.1"
        self.output_parameters = frozenset({f"{last}.weight", f"{last}.bias"})
        with torch.device("meta"):  # names only: draws no random numbers and takes no memory
            self.parameter_types: Mapping[str, ParameterType] = _parameter_types(Network(config))

    def module(self) -> nn.Module:
        return Network(self.config)

    def logits(self, module: nn.Module, batch: Mapping[str, Tensor], *, dropout_rate: float) -> Tensor:
        """The reconstruction, normalised like the inputs. inputs: (batch, H, W)."""
        out: Tensor = module(batch["inputs"], dropout_rate)
        return out


def program(config: UNet) -> Program:
    """The program of this configuration."""
    return Program(config)
