"""A perceptron with one hidden layer in torch; see `perceptron.py`."""

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from timetrial.engine.spec import ParameterType
from timetrial.workloads.losses_torch import classification_score, softmax_cross_entropy
from timetrial.workloads.models.initializers_torch import lecun_normal_
from timetrial.workloads.models.perceptron import Perceptron


def linear(features_in: int, features_out: int) -> nn.Linear:
    """LeCun-normal weights, zero biases."""
    layer = nn.Linear(features_in, features_out)
    lecun_normal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Network(nn.Module):
    """Images (batch, ...) to logits (batch, classes)."""

    def __init__(self, config: Perceptron) -> None:
        super().__init__()
        self.net = nn.Sequential(
            OrderedDict(
                layer1=linear(config.num_features, config.hidden),
                sigmoid=nn.Sigmoid(),
                layer2=linear(config.hidden, config.num_classes),
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.net(torch.flatten(images, 1))
        return out


class Program:
    """The TorchProgram of a perceptron."""

    output_parameters = frozenset({"net.layer2.weight", "net.layer2.bias"})
    parameter_types: Mapping[str, ParameterType] = {
        "net.layer1.weight": ParameterType.WEIGHT,
        "net.layer1.bias": ParameterType.BIAS,
        "net.layer2.weight": ParameterType.WEIGHT,
        "net.layer2.bias": ParameterType.BIAS,
    }
    loss = staticmethod(softmax_cross_entropy)
    score = staticmethod(classification_score)

    def __init__(self, config: Perceptron) -> None:
        self.config = config

    def module(self) -> nn.Module:
        return Network(self.config)

    def logits(self, module: nn.Module, batch: Mapping[str, Tensor], *, dropout_rate: float) -> Tensor:
        """There is no dropout in this model: the rate is ignored."""
        out: Tensor = module(batch["inputs"])
        return out


def program(config: Perceptron) -> Program:
    """The program of this configuration."""
    return Program(config)
