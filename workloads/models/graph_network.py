"""The configuration of a graph network, and the sizes of its layers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

LAYER_NORM_EPSILON = 1e-6


@dataclass(frozen=True, kw_only=True)
class GraphNetwork:
    """A graph network (Battaglia et al. 2018) as AlgoPerf's `ogbg` has it, which predicts tasks of whole graphs.

    Nodes and edges begin as linear maps of their features; globals begin as the batch has them, zeros. A round
    makes new edges, then nodes, then globals, each by a perceptron of its own:

        edge      of the edge, its sender, its receiver, the globals of its graph
        node      of the node, the sum of the new edges it sends, the sum of those it receives, the globals
        globals   of the sum of the graph's new nodes, the sum of its new edges, the globals

    Nothing is added to what was there before. After the last round a linear map of the globals gives the logits.
    A layer of a perceptron is Dense, layer normalisation, activation and dropout, the last one's too.

    What a perceptron's first layer is applied to is never put together. Its kernel's rows belong to parts of the
    input, the product of each part is taken where it has the fewest rows (a node's before edges look it up), and the
    products are added; the sum of a graph's edges is that of its nodes' sums. The numbers are the same but for
    rounding, with half the operations.
    """

    node_features: int = 9
    edge_features: int = 3
    num_tasks: int = 128  # also the number of globals
    latent: int = 256  # width of the first nodes and edges
    hidden: tuple[int, ...] = (256,)  # widths of each perceptron
    rounds: int = 5
    activation: Literal["relu", "gelu", "silu"] = "relu"  # `gelu` is its tanh approximation

    def input_widths(self) -> Iterator[tuple[tuple[int, ...], ...]]:
        """For each round the widths of what its edge, node and global perceptrons are applied to."""
        node = edge = self.latent
        globals_ = self.num_tasks
        new = self.hidden[-1]
        for _ in range(self.rounds):
            yield (edge, node, node, globals_), (node, new, new, globals_), (new, new, globals_)
            node = edge = globals_ = new
