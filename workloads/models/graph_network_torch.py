"""The graph network in torch; see `graph_network.py`.

Shapes: N node, E edge, G graph, D width of anything.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timetrial.data_loading.graphs import Graphs
from timetrial.engine.spec import ParameterType
from timetrial.workloads.graph_losses_torch import graph_score, masked_sigmoid_cross_entropy
from timetrial.workloads.models.graph_network import LAYER_NORM_EPSILON, GraphNetwork
from timetrial.workloads.models.initializers_torch import lecun_normal_

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
}


def linear(features_in: int, features_out: int) -> nn.Linear:
    """Weights are LeCun-normal, biases 0."""
    layer = nn.Linear(features_in, features_out)
    lecun_normal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def segment_sum(rows: Tensor, segments: Tensor, num_segments: int) -> Tensor:
    """Sums (num_segments, D) of the rows (..., D) that have the same number in `segments`."""
    return rows.new_zeros(num_segments, rows.shape[1]).index_add(0, segments, rows)


class MLP(nn.Module):
    """Dense, layer normalisation, activation and dropout, once for each of `hidden`."""

    def __init__(self, input_widths: tuple[int, ...], config: GraphNetwork) -> None:
        super().__init__()
        self.input_widths = input_widths
        self.activation = ACTIVATIONS[config.activation]
        self.first = linear(sum(input_widths), config.hidden[0])
        self.dense = nn.ModuleList(linear(*widths) for widths in pairwise(config.hidden))
        self.norm = nn.ModuleList(nn.LayerNorm(width, LAYER_NORM_EPSILON) for width in config.hidden)

    def products(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Of each part of the input, whatever its rows, with its columns of the first layer's weight."""
        weights = self.first.weight.split(self.input_widths, dim=1)
        return [F.linear(part, weight) for part, weight in zip(parts, weights, strict=True)]

    def forward(self, summed: Tensor, dropout_rate: float) -> Tensor:
        """What follows once the products of all parts are added up, bias not included."""
        x = summed + self.first.bias
        for number, norm in enumerate(self.norm):
            if number > 0:
                x = self.dense[number - 1](x)
            x = F.dropout(self.activation(norm(x)), dropout_rate, self.training)
        return x


class Round(nn.Module):
    """New edges, nodes and globals."""

    def __init__(self, input_widths: tuple[tuple[int, ...], ...], config: GraphNetwork) -> None:
        super().__init__()
        edge, node, globals_ = input_widths
        self.update_edge_fn = MLP(edge, config)
        self.update_node_fn = MLP(node, config)
        self.update_global_fn = MLP(globals_, config)

    def forward(
        self,
        nodes_ND: Tensor,
        edges_ED: Tensor,
        globals_GD: Tensor,
        senders_E: Tensor,
        receivers_E: Tensor,
        graph_N: Tensor,
        dropout_rate: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        parts = (edges_ED, nodes_ND, nodes_ND, globals_GD)
        edge, sender, receiver, graph = self.update_edge_fn.products(parts)
        # An edge is in its sender's graph.
        sender = sender + graph.index_select(0, graph_N)
        at_ends = sender.index_select(0, senders_E) + receiver.index_select(0, receivers_E)
        edges_ED = self.update_edge_fn(edge + at_ends, dropout_rate)

        sent_ND = segment_sum(edges_ED, senders_E, len(nodes_ND))
        received_ND = segment_sum(edges_ED, receivers_E, len(nodes_ND))
        parts = (nodes_ND, sent_ND, received_ND, globals_GD)
        node, sent, received, graph = self.update_node_fn.products(parts)
        summed = node + sent + received + graph.index_select(0, graph_N)
        nodes_ND = self.update_node_fn(summed, dropout_rate)

        num_graphs = len(globals_GD)
        sums = (
            segment_sum(nodes_ND, graph_N, num_graphs),
            segment_sum(sent_ND, graph_N, num_graphs),
            globals_GD,
        )
        node, sent, graph = self.update_global_fn.products(sums)
        return nodes_ND, edges_ED, self.update_global_fn(node + sent + graph, dropout_rate)


class Network(nn.Module):
    """A batch of graphs to logits (G, tasks)."""

    def __init__(self, config: GraphNetwork) -> None:
        super().__init__()
        self.node_embedder = linear(config.node_features, config.latent)
        self.edge_embedder = linear(config.edge_features, config.latent)
        self.graph_network = nn.ModuleList(Round(widths, config) for widths in config.input_widths())
        self.decoder = linear(config.hidden[-1], config.num_tasks)

    def forward(self, graphs: Graphs, dropout_rate: float = 0.0) -> Tensor:
        nodes_ND = self.node_embedder(graphs.nodes)
        edges_ED = self.edge_embedder(graphs.edges)
        globals_GD = graphs.globals
        numbers = torch.arange(len(globals_GD), device=nodes_ND.device)
        graph_N = torch.repeat_interleave(numbers, graphs.n_node, output_size=len(nodes_ND))
        for update in self.graph_network:
            nodes_ND, edges_ED, globals_GD = update(
                nodes_ND, edges_ED, globals_GD, graphs.senders, graphs.receivers, graph_N, dropout_rate
            )
        logits: Tensor = self.decoder(globals_GD)
        return logits


def _parameter_types(network: nn.Module) -> dict[str, ParameterType]:
    types = {}
    for path, module in network.named_modules():
        if isinstance(module, nn.Linear):
            embeds = path in ("node_embedder", "edge_embedder")
            types[f"{path}.weight"] = ParameterType.EMBEDDING if embeds else ParameterType.WEIGHT
            types[f"{path}.bias"] = ParameterType.BIAS
        elif isinstance(module, nn.LayerNorm):
            types[f"{path}.weight"] = ParameterType.LAYER_NORM_SCALE
            types[f"{path}.bias"] = ParameterType.LAYER_NORM_BIAS
    return types


class Program:
    """The TorchProgram of a graph network."""

    loss = staticmethod(masked_sigmoid_cross_entropy)
    score = staticmethod(graph_score)
    output_parameters = frozenset({"decoder.weight", "decoder.bias"})

    def __init__(self, config: GraphNetwork) -> None:
        self.config = config
        with torch.device("meta"):  # names only: draws no random numbers and takes no memory
            self.parameter_types: Mapping[str, ParameterType] = _parameter_types(Network(config))

    def module(self) -> nn.Module:
        return Network(self.config)

    def logits(self, module: nn.Module, batch: Mapping[str, Any], *, dropout_rate: float) -> Tensor:
        out: Tensor = module(batch["inputs"], dropout_rate)
        return out


def program(config: GraphNetwork) -> Program:
    """The program of this configuration."""
    return Program(config)
