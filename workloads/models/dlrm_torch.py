"""Click prediction in torch; see `dlrm.py`.

The embedding table is one parameter, as in AlgoPerf's JAX model. (Its torch model holds the table in four and joins
them in every forward pass.)

Shapes: B batch, C categorical feature, F vector (the bottom's output and C embeddings), E embedding, P pair of F.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timetrial.engine.spec import ParameterType
from timetrial.workloads.losses_torch import click_score, sigmoid_cross_entropy
from timetrial.workloads.models.dlrm import DLRM, LAYER_NORM_EPSILON, DLRMResNet


def embedding_table(config: DLRM | DLRMResNet) -> nn.Parameter:
    """The table (rows, E)."""
    table = torch.empty(config.table_rows, config.embedding_width)
    return nn.Parameter(table.uniform_(0, config.embedding_bound))


def row_numbers(ids_BC: Tensor, table: Tensor) -> Tensor:
    """Of ids that arrive as floats; float32 has rounded those above 2**24, as AlgoPerf does."""
    return ids_BC.to(torch.int32) % table.shape[0]


def embeddings(ids_BC: Tensor, table: Tensor) -> Tensor:
    """Rows (B, C, E) of ids."""
    return F.embedding(row_numbers(ids_BC, table), table)


def bottom_linear(features_in: int, features_out: int) -> nn.Linear:
    """Weights are Glorot-uniform, biases Normal(0, sqrt(1 / fan-out))."""
    layer = nn.Linear(features_in, features_out)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.normal_(layer.bias, std=features_out**-0.5)
    return layer


def top_linear(features_in: int, features_out: int) -> nn.Linear:
    """Weights are Normal(0, sqrt(2 / (fan-in + fan-out))), biases Normal(0, sqrt(1 / fan-out))."""
    layer = nn.Linear(features_in, features_out)
    nn.init.xavier_normal_(layer.weight)
    nn.init.normal_(layer.bias, std=features_out**-0.5)
    return layer


def activation(width: int, layer_norm: bool) -> list[nn.Module]:
    """ReLU and, where the configuration has it, layer normalisation."""
    return [nn.ReLU(), *([nn.LayerNorm(width, LAYER_NORM_EPSILON)] if layer_norm else [])]


class Dropout(nn.Module):
    """Dropout whose rate is given per call."""

    def forward(self, x: Tensor, rate: float) -> Tensor:
        return F.dropout(x, rate, self.training)


class Perceptron(nn.ModuleList):
    """Layers one after the other; `Dropout` is told the rate."""

    def forward(self, x: Tensor, dropout_rate: float) -> Tensor:
        for layer in self:
            x = layer(x, dropout_rate) if isinstance(layer, Dropout) else layer(x)
        return x


class Network(nn.Module):
    """Inputs (B, dense features, then C ids) to logits (B, 1)."""

    pairs_P: Tensor

    def __init__(self, config: DLRM) -> None:
        super().__init__()
        self.num_dense = config.num_dense
        self.embedding_table = embedding_table(config)
        layers: list[nn.Module] = []
        width = config.num_dense
        for width_out in config.bottom_widths:
            layers += [bottom_linear(width, width_out), *activation(width_out, config.layer_norm)]
            width = width_out
        self.bot_mlp = nn.Sequential(*layers)
        self.embed_ln = nn.LayerNorm(width, LAYER_NORM_EPSILON) if config.layer_norm else nn.Identity()
        num_vectors = 1 + config.num_categorical
        first, second = torch.triu_indices(num_vectors, num_vectors)
        self.register_buffer("pairs_P", first * num_vectors + second, persistent=False)
        width += len(first)
        layers = []
        for width_out in config.top_widths:
            layers += [top_linear(width, width_out), *activation(width_out, config.layer_norm)]
            width = width_out
        self.top_mlp = Perceptron([*layers, Dropout(), top_linear(width, 1)])

    def forward(self, inputs: Tensor, dropout_rate: float = 0.0) -> Tensor:
        bottom_BE = self.bot_mlp(inputs[:, : self.num_dense])
        numbers_BC = row_numbers(inputs[:, self.num_dense :], self.embedding_table)
        logits: Tensor = self.top_mlp(self._interaction(bottom_BE, numbers_BC), dropout_rate)
        return logits

    def _interaction(self, bottom_BE: Tensor, numbers_BC: Tensor) -> Tensor:
        """The bottom's output and the products of all pairs (B, E + P)."""
        if bottom_BE.is_cuda and isinstance(self.embed_ln, nn.Identity):
            return _interaction_on_chip(bottom_BE, numbers_BC, self.embedding_table)
        embeddings_BCE = self.embed_ln(F.embedding(numbers_BC, self.embedding_table))
        vectors_BFE = torch.cat((bottom_BE.unsqueeze(1), embeddings_BCE), 1)
        products_BFF = torch.bmm(vectors_BFE, vectors_BFE.transpose(1, 2))
        products_BP = products_BFF.flatten(1).gather(1, self.pairs_P.expand(len(bottom_BE), -1))
        return torch.cat((bottom_BE, products_BP), 1)


def _interaction_on_chip(bottom_BE: Tensor, numbers_BC: Tensor, table: Tensor) -> Tensor:
    """The same without layer normalisation, by a kernel whose vectors never leave the chip."""
    from timetrial.kernels.embedding_interaction_triton import KERNEL

    joined: Tensor = KERNEL(bottom_BE, numbers_BC, table)
    return joined


class ResidualNetwork(nn.Module):
    """Inputs (B, dense features, then C ids) to logits (B, 1)."""

    def __init__(self, config: DLRMResNet) -> None:
        super().__init__()
        self.num_dense = config.num_dense
        self.embedding_table = embedding_table(config)
        width = config.width
        joined = width + config.num_categorical * config.embedding_width
        bottom = [config.num_dense] + [width] * (config.bottom_layers - 1)
        top = [joined] + [width] * (config.top_layers - 1)
        self.bot_mlp = nn.ModuleList(bottom_linear(features, width) for features in bottom)
        self.top_mlp = nn.ModuleList(
            [*(top_linear(features, width) for features in top), top_linear(width, 1)]
        )

    def forward(self, inputs: Tensor, dropout_rate: float = 0.0) -> Tensor:
        first, *inner = self.bot_mlp
        x = F.relu(first(inputs[:, : self.num_dense]))
        for layer in inner:
            x = x + F.relu(layer(x))
        embeddings_BCE = embeddings(inputs[:, self.num_dense :], self.embedding_table)
        first, *inner, last, output = self.top_mlp
        x = F.relu(first(torch.cat((x, embeddings_BCE.flatten(1)), 1)))
        for layer in inner:
            x = x + F.relu(layer(x))
        x = x + F.dropout(F.relu(last(x)), dropout_rate, self.training)
        logits: Tensor = output(x)
        return logits


def _network(config: DLRM | DLRMResNet) -> Network | ResidualNetwork:
    return Network(config) if isinstance(config, DLRM) else ResidualNetwork(config)


def _parameter_types(network: nn.Module) -> dict[str, ParameterType]:
    types = {"embedding_table": ParameterType.EMBEDDING}
    for path, module in network.named_modules():
        if isinstance(module, nn.Linear):
            types[f"{path}.weight"] = ParameterType.WEIGHT
            types[f"{path}.bias"] = ParameterType.BIAS
        elif isinstance(module, nn.LayerNorm):
            types[f"{path}.weight"] = ParameterType.LAYER_NORM_SCALE
            types[f"{path}.bias"] = ParameterType.LAYER_NORM_BIAS
    return types


class Program:
    """The TorchProgram of either network."""

    loss = staticmethod(sigmoid_cross_entropy)
    score = staticmethod(click_score)

    def __init__(self, config: DLRM | DLRMResNet) -> None:
        self.config = config
        with torch.device("meta"):  # names only: draws no random numbers and takes no memory
            network = _network(config)
        self.parameter_types: Mapping[str, ParameterType] = _parameter_types(network)
        output = f"top_mlp.{len(network.top_mlp) - 1}"
        self.output_parameters = frozenset({f"{output}.weight", f"{output}.bias"})

    def module(self) -> nn.Module:
        return _network(self.config)

    def logits(self, module: nn.Module, batch: Mapping[str, Tensor], *, dropout_rate: float) -> Tensor:
        out: Tensor = module(batch["inputs"], dropout_rate)
        return out


def program(config: DLRM | DLRMResNet) -> Program:
    """The program of this configuration."""
    return Program(config)
