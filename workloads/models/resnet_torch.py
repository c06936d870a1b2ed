"""A residual network in torch; see `resnet.py`.

Images are NCHW here (N batch, C channels, H height, W width); convolutions have no bias.
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timetrial.engine.spec import ParameterType
from timetrial.workloads.losses_torch import classification_score, softmax_cross_entropy
from timetrial.workloads.models.batch_norm_torch import BatchNorm2d
from timetrial.workloads.models.initializers_torch import lecun_normal_
from timetrial.workloads.models.resnet import ResNet

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "silu": F.silu,
    "gelu": partial(F.gelu, approximate="tanh"),
}


def convolution(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps height and width at stride 1."""
    layer = nn.Conv2d(channels_in, channels_out, kernel, stride, padding=(kernel - 1) // 2, bias=False)
    lecun_normal_(layer.weight)
    return layer


class Projection(nn.Module):
    """The shortcut where a block changes shape."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv = convolution(channels_in, channels_out, 1, stride)
        self.bn = BatchNorm2d(channels_out)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        out: Tensor = self.bn(self.conv(x_NCHW))
        return out


def shortcut(channels_in: int, channels_out: int, stride: int) -> Projection | None:
    """None where the block's input can be added as it is."""
    same = stride == 1 and channels_in == channels_out
    return None if same else Projection(channels_in, channels_out, stride)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 and the shortcut."""

    expansion = 4  # channels of the output over the width

    def __init__(self, config: ResNet, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.activated = ACTIVATIONS[config.activation]
        channels_out = self.expansion * width
        self.conv1 = convolution(channels_in, width, 1)
        self.bn1 = BatchNorm2d(width)
        self.conv2 = convolution(width, width, 3, stride)
        self.bn2 = BatchNorm2d(width)
        self.conv3 = convolution(width, channels_out, 1)
        self.bn3 = BatchNorm2d(channels_out)
        nn.init.constant_(self.bn3.weight, config.last_batch_norm_scale)
        self.downsample = shortcut(channels_in, channels_out, stride)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        y = self.activated(self.bn1(self.conv1(x_NCHW)))
        y = self.activated(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.activated(y + (x_NCHW if self.downsample is None else self.downsample(x_NCHW)))


class Basic(nn.Module):
    """3x3, 3x3 and the shortcut."""

    expansion = 1

    def __init__(self, config: ResNet, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.activated = ACTIVATIONS[config.activation]
        self.conv1 = convolution(channels_in, width, 3, stride)
        self.bn1 = BatchNorm2d(width)
        self.conv2 = convolution(width, width, 3)
        self.bn2 = BatchNorm2d(width)
        nn.init.constant_(self.bn2.weight, config.last_batch_norm_scale)
        self.downsample = shortcut(channels_in, width, stride)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        y = self.activated(self.bn1(self.conv1(x_NCHW)))
        y = self.bn2(self.conv2(y))
        return self.activated(y + (x_NCHW if self.downsample is None else self.downsample(x_NCHW)))


BLOCKS: Mapping[str, type[Bottleneck] | type[Basic]] = {"bottleneck": Bottleneck, "basic": Basic}


class Network(nn.Module):
    """Images NCHW to logits (batch, classes)."""

    def __init__(self, config: ResNet) -> None:
        super().__init__()
        self.stem_pool = config.stem_pool
        self.activated = ACTIVATIONS[config.activation]
        self.conv1 = convolution(3, config.width, config.stem_kernel, config.stem_stride)
        self.bn1 = BatchNorm2d(config.width)
        self.num_stages = len(config.stage_sizes)
        block_class, channels = BLOCKS[config.block], config.width
        for stage, num_blocks in enumerate(config.stage_sizes):
            blocks, width = [], config.width * 2**stage
            for block in range(num_blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(block_class(config, channels, width, stride))
                channels = block_class.expansion * width
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, config.num_classes)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        x_NCHW = self.activated(self.bn1(self.conv1(x_NCHW)))
        if self.stem_pool:
            x_NCHW = F.max_pool2d(x_NCHW, 3, 2, padding=1)
        for stage in range(self.num_stages):
            x_NCHW = self.get_submodule(f"layer{stage + 1}")(x_NCHW)
        out: Tensor = self.fc(x_NCHW.mean((2, 3)))
        return out


def _parameter_types(network: Network) -> dict[str, ParameterType]:
    types = {}
    for path, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            types[f"{path}.weight"] = ParameterType.CONV_WEIGHT
        elif isinstance(module, BatchNorm2d):
            types[f"{path}.weight"] = ParameterType.BATCH_NORM_SCALE
            types[f"{path}.bias"] = ParameterType.BATCH_NORM_BIAS
        elif isinstance(module, nn.Linear):
            types[f"{path}.weight"] = ParameterType.WEIGHT
            types[f"{path}.bias"] = ParameterType.BIAS
    return types


class Program:
    """The TorchProgram of a residual network. Batches hold NHWC images."""

    output_parameters = frozenset({"fc.weight", "fc.bias"})
    loss = staticmethod(softmax_cross_entropy)
    score = staticmethod(classification_score)

    def __init__(self, config: ResNet) -> None:
        self.config = config
        with torch.device("meta"):  # names only: draws no random numbers and takes no memory
            self.parameter_types: Mapping[str, ParameterType] = _parameter_types(Network(config))

    def module(self) -> nn.Module:
        return Network(self.config)

    def logits(self, module: nn.Module, batch: Mapping[str, Tensor], *, dropout_rate: float) -> Tensor:
        """There is no dropout in this model: the rate is ignored."""
        out: Tensor = module(batch["inputs"].permute(0, 3, 1, 2))
        return out


def program(config: ResNet) -> Program:
    """The program of this configuration."""
    return Program(config)
