"""A small multilayer perceptron in torch; see `mlp.py`."""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from timetrial.engine.spec import ParameterType
from timetrial.workloads.losses_torch import classification_score, softmax_cross_entropy
from timetrial.workloads.models.batch_norm_torch import BatchNorm1d
from timetrial.workloads.models.initializers_torch import lecun_normal_
from timetrial.workloads.models.mlp import MLP


class Perceptron(nn.Module):
    """x: (batch, features) to logits (batch, classes)."""

    def __init__(self, config: MLP) -> None:
        super().__init__()
        first, second = config.hidden
        self.fc1 = nn.Linear(config.num_features, first)
        self.bn1 = BatchNorm1d(first)
        self.fc2 = nn.Linear(first, second)
        self.fc3 = nn.Linear(second, config.num_classes)
        for layer in (self.fc1, self.fc2, self.fc3):
            lecun_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, dropout_rate: float = 0.0) -> Tensor:
        x = F.dropout(F.relu(self.bn1(self.fc1(x))), dropout_rate, self.training)
        x = F.dropout(F.relu(self.fc2(x)), dropout_rate, self.training)
        out: Tensor = self.fc3(x)
        return out


class Program:
    """The TorchProgram of a perceptron."""

    output_parameters = frozenset({"fc3.weight", "fc3.bias"})
    parameter_types: Mapping[str, ParameterType] = {
        "fc1.weight": ParameterType.WEIGHT,
        "fc1.bias": ParameterType.BIAS,
        "bn1.weight": ParameterType.BATCH_NORM_SCALE,
        "bn1.bias": ParameterType.BATCH_NORM_BIAS,
        "fc2.weight": ParameterType.WEIGHT,
        "fc2.bias": ParameterType.BIAS,
        "fc3.weight": ParameterType.WEIGHT,
        "fc3.bias": ParameterType.BIAS,
    }
    loss = staticmethod(softmax_cross_entropy)
    score = staticmethod(classification_score)

    def __init__(self, config: MLP) -> None:
        self.config = config

    def module(self) -> nn.Module:
        return Perceptron(self.config)

    def logits(self, module: nn.Module, batch: Mapping[str, Tensor], *, dropout_rate: float) -> Tensor:
        out: Tensor = module(batch["inputs"], dropout_rate)
        return out


def program(config: MLP) -> Program:
    """The program of this configuration."""
    return Program(config)
