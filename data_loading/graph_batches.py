"""Batches of graphs of static shape, filled up to budgets of nodes, edges and graphs (AlgoPerf, ogbg).

A batch size b is the most graphs that a batch holds. It also holds at most b times the average number of nodes and
of edges: graphs are taken in order until the next one would exceed a budget, and none is left out. A batch is then
padded to its budgets and one graph and one node more, and further to multiples of 64, so that JAX can split every
array over the devices. All padding nodes and edges belong to the first padding graph; the others are empty.

The training graphs of a seed are one endless sequence: a permutation of all, then another. It is cut into shares,
of which each rank receives every world_size-th, so a batch may hold the end of an epoch and the beginning of the next.
Nothing but the cuts before it decides where a batch begins; finding them costs some milliseconds an epoch.

Source: AlgoPerf v0.6, ogbg (arXiv 2306.07179), after jraph's dynamic batching. There, evaluation leaves out graphs
that do not fill the batches of all devices, and serves others twice; here every graph is evaluated once.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, pairwise

import numpy as np

from timetrial.data_loading.batches import ORDER_STREAM, epoch_generator
from timetrial.data_loading.graphs import Graphs, PackedGraphs
from timetrial.data_loading.prefetch import in_order
from timetrial.engine.errors import UsageError
from timetrial.engine.facts import Batch, Order

ROWS_MULTIPLE = 64


@dataclass(frozen=True, kw_only=True)
class Averages:
    """Nodes and directed edges that a graph of the dataset is taken to have, from which budgets are made."""

    nodes: int
    edges: int


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a batch holds at most, padding not counted."""

    graphs: int
    nodes: int
    edges: int

    @classmethod
    def of(cls, batch_size: int, averages: Averages) -> "Budget":
        return cls(graphs=batch_size, nodes=averages.nodes * batch_size, edges=averages.edges * batch_size)

    @property
    def rows(self) -> "Budget":
        """The lengths of a batch's arrays, padding included."""
        return Budget(
            graphs=_rounded(self.graphs + 1), nodes=_rounded(self.nodes + 1), edges=_rounded(self.edges)
        )


def _rounded(rows: int) -> int:
    return -(-rows // ROWS_MULTIPLE) * ROWS_MULTIPLE


def training_batches(graphs: PackedGraphs, order: Order, averages: Averages) -> Iterator[Batch]:
    """This rank's share of every batch from `order.first_batch` on, without end; see `collated`.

    UsageError where a batch is larger than the dataset or too small for its largest graph.
    """
    budget = Budget.of(order.batch_size // order.world_size, averages)
    return in_order(lambda chosen: collated(graphs, chosen, budget), selections(graphs, order, budget), 1, 2)


def evaluation_batches(graphs: PackedGraphs, batch_size: int, averages: Averages) -> Iterable[Batch]:
    """Every graph once, in storage order, in batches as `collated` makes them. UsageError as above."""
    budget = Budget.of(batch_size, averages)
    _require_room(graphs, budget)
    borders = [*cuts(graphs.n_node, graphs.n_edge, budget), len(graphs)]
    for first, last in pairwise(borders):
        yield collated(graphs, np.arange(first, last), budget)


def selections(graphs: PackedGraphs, order: Order, budget: Budget) -> Iterator[np.ndarray]:
    """The numbers of the graphs of this rank's shares, from `order.first_batch` on, without end.

    budget: of one rank's share.
    """
    if order.batch_size > len(graphs):
        raise UsageError(f"a batch of {order.batch_size} is larger than the {len(graphs)} training graphs")
    _require_room(graphs, budget)
    first_share = order.first_batch * order.world_size
    share = 0
    left = np.empty(0, np.int64)  # of earlier epochs: graphs that did not fill a share
    for epoch in count():
        permutation = epoch_generator(order.seed, epoch, ORDER_STREAM).permutation(len(graphs))
        sequence = np.concatenate([left, permutation])
        starts = cuts(graphs.n_node[sequence], graphs.n_edge[sequence], budget)
        for first, last in pairwise(starts):
            if share >= first_share and share % order.world_size == order.rank:
                yield sequence[first:last]
            share += 1
        left = sequence[starts[-1] :]


def cuts(n_node: np.ndarray, n_edge: np.ndarray, budget: Budget) -> list[int]:
    """Where batches begin when graphs of these sizes are taken in order; each fits into a batch of its own."""
    node_ends = np.cumsum(n_node, dtype=np.int64)
    edge_ends = np.cumsum(n_edge, dtype=np.int64)
    starts = []
    first = nodes = edges = 0
    while first < len(n_node):
        starts.append(first)
        # The number of graphs whose ends lie within the budget, from the beginning of all.
        by_nodes = node_ends.searchsorted(nodes + budget.nodes, "right")
        by_edges = edge_ends.searchsorted(edges + budget.edges, "right")
        first = min(first + budget.graphs, int(by_nodes), int(by_edges))
        nodes, edges = int(node_ends[first - 1]), int(edge_ends[first - 1])
    return starts


def collated(graphs: PackedGraphs, chosen: np.ndarray, budget: Budget) -> Batch:
    """The chosen graphs, which fit into the budget, as one batch.

    `inputs`: Graphs, whose globals are zeros (graphs, tasks); padding edges join padding nodes.
    `targets` (graphs, tasks) float32: 1 or 0, and 0 where the label is unknown or the graph is padding.
    `weights` (graphs, tasks) float32: 1 where the label is known, else 0.
    """
    rows = budget.rows
    n_node, n_edge = np.zeros(rows.graphs, np.int32), np.zeros(rows.graphs, np.int32)
    n_node[: len(chosen)], n_edge[: len(chosen)] = graphs.n_node[chosen], graphs.n_edge[chosen]
    first_node = np.cumsum(n_node, dtype=np.int32) - n_node
    num_nodes, num_edges = int(n_node.sum()), int(n_edge.sum())

    nodes = np.zeros((rows.nodes, graphs.nodes.shape[1]), np.float32)
    nodes[:num_nodes] = graphs.nodes[graphs.node_rows(chosen)]
    edge_rows = graphs.edge_rows(chosen)
    edges = np.zeros((rows.edges, graphs.edges.shape[1]), np.float32)
    edges[:num_edges] = graphs.edges[edge_rows]
    # Spread over the padding nodes: sums into a single one would wait for each other.
    padding = num_nodes + np.arange(rows.edges - num_edges, dtype=np.int32) % (rows.nodes - num_nodes)
    offsets = np.repeat(first_node, n_edge)
    senders = np.concatenate([offsets + graphs.senders[edge_rows], padding])
    receivers = np.concatenate([offsets + graphs.receivers[edge_rows], padding])

    n_node[len(chosen)], n_edge[len(chosen)] = rows.nodes - num_nodes, rows.edges - num_edges
    labels = graphs.labels[chosen]
    targets, weights, globals_ = np.zeros((3, rows.graphs, labels.shape[1]), np.float32)
    targets[: len(chosen)] = labels == 1
    weights[: len(chosen)] = labels >= 0
    inputs = Graphs(
        nodes=nodes,
        edges=edges,
        receivers=receivers,
        senders=senders,
        globals=globals_,
        n_node=n_node,
        n_edge=n_edge,
    )
    return {"inputs": inputs, "targets": targets, "weights": weights}


def _require_room(graphs: PackedGraphs, budget: Budget) -> None:
    """UsageError where a graph does not fit into a batch of its own."""
    large = np.flatnonzero((graphs.n_node > budget.nodes) | (graphs.n_edge > budget.edges))
    if len(large):
        number = int(large[0])
        raise UsageError(
            f"a batch of {budget.graphs} has room for {budget.nodes} nodes and {budget.edges} edges, and graph "
            f"{number} has {graphs.n_node[number]} and {graphs.n_edge[number]}: it must be larger"
        )
