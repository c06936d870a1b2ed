"""Graphs: how a batch of them is laid out for a model, and how a whole dataset of them is stored.

A dataset's graphs lie end to end in a few arrays, which are memory-mapped:

    n_node, n_edge      (graphs,) int32           nodes and directed edges of each graph
    nodes               (all nodes, features)     uint8 integer codes
    edges               (all edges, features)     uint8 integer codes
    senders, receivers  (all edges,) uint16       numbers of nodes within their graph, from 0
    labels              (graphs, tasks) int8      1, 0, or UNKNOWN where nobody measured
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

KEYS = ("n_node", "n_edge", "nodes", "edges", "senders", "receivers", "labels")
UNKNOWN = -1  # a label that nobody measured


class Graphs(NamedTuple):
    """A batch of graphs as one disconnected graph, with the field names of jraph's GraphsTuple.

    Arrays of the host, of torch or of JAX. The nodes of a graph follow each other, and so do its edges; an edge
    joins two nodes of one graph.
    """

    nodes: Any  # (nodes, node features) float32
    edges: Any  # (edges, edge features) float32
    receivers: Any  # (edges,) int32, the node that an edge leads to
    senders: Any  # (edges,) int32, the node that it comes from
    globals: Any  # (graphs, global features) float32
    n_node: Any  # (graphs,) int32; they add up to `nodes`
    n_edge: Any  # (graphs,) int32; they add up to `edges`


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedGraphs:
    """The stored arrays of some graphs; see above."""

    n_node: np.ndarray
    n_edge: np.ndarray
    nodes: np.ndarray
    edges: np.ndarray
    senders: np.ndarray
    receivers: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray], prefix: str = "") -> "PackedGraphs":
        """From arrays named `prefix` and one of `KEYS`. Those that every batch reads whole are copied to memory."""
        stored = {key: arrays[f"{prefix}{key}"] for key in KEYS}
        return cls(**stored | {key: np.array(stored[key]) for key in ("n_node", "n_edge")})

    def arrays(self, prefix: str = "") -> dict[str, np.ndarray]:
        """The inverse of `of`."""
        return {f"{prefix}{key}": getattr(self, key) for key in KEYS}

    def __len__(self) -> int:
        return len(self.n_node)

    @cached_property
    def first_node(self) -> np.ndarray:
        """Where each graph's nodes begin, (graphs,) int64."""
        return beginnings(self.n_node)

    @cached_property
    def first_edge(self) -> np.ndarray:
        """Where each graph's edges begin, (graphs,) int64."""
        return beginnings(self.n_edge)

    def node_rows(self, chosen: np.ndarray) -> np.ndarray:
        """The rows of `nodes` that the chosen graphs have, graph after graph."""
        return stretches(self.first_node[chosen], self.n_node[chosen])

    def edge_rows(self, chosen: np.ndarray) -> np.ndarray:
        """The rows of `edges`, `senders` and `receivers` that the chosen graphs have, graph after graph."""
        return stretches(self.first_edge[chosen], self.n_edge[chosen])

    def take(self, chosen: np.ndarray) -> "PackedGraphs":
        """The chosen graphs alone, in the order given."""
        node_rows, edge_rows = self.node_rows(chosen), self.edge_rows(chosen)
        return PackedGraphs(
            n_node=self.n_node[chosen],
            n_edge=self.n_edge[chosen],
            nodes=self.nodes[node_rows],
            edges=self.edges[edge_rows],
            senders=self.senders[edge_rows],
            receivers=self.receivers[edge_rows],
            labels=self.labels[chosen],
        )


def beginnings(lengths: np.ndarray) -> np.ndarray:
    """Where stretches of these lengths begin that lie end to end: (stretches,) int64."""
    first: np.ndarray = np.cumsum(lengths, dtype=np.int64) - lengths
    return first


def stretches(first: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """first[0], first[0] + 1, ... (lengths[0] numbers), then those of the next stretch: (sum of lengths,) int64."""
    numbers: np.ndarray = np.repeat(first - beginnings(lengths), lengths)
    numbers += np.arange(len(numbers))
    return numbers


def with_both_directions(bonds: PackedGraphs) -> PackedGraphs:
    """Every bond as two directed edges of equal features: a graph's bonds as given, then all of them reversed."""
    lengths = np.repeat(bonds.n_edge, 2)  # of a graph's two blocks
    forward = np.arange(len(lengths)) % 2 == 0
    rows = stretches(np.repeat(bonds.first_edge, 2), lengths)
    reverse = np.repeat(~forward, lengths)
    senders, receivers = bonds.senders[rows], bonds.receivers[rows]
    return PackedGraphs(
        n_node=bonds.n_node,
        n_edge=2 * bonds.n_edge,
        nodes=bonds.nodes,
        edges=bonds.edges[rows],
        senders=np.where(reverse, receivers, senders),
        receivers=np.where(reverse, senders, receivers),
        labels=bonds.labels,
    )
