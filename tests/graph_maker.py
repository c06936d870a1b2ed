"""Made graphs, packed as datasets store them, and a batch of them put together plainly, a graph at a time."""

import numpy as np

from timetrial.data_loading.graph_batches import Averages
from timetrial.data_loading.graphs import UNKNOWN, Graphs, PackedGraphs, with_both_directions

AVERAGES = Averages(nodes=6, edges=14)


def made_bonds(count, seed=0, *, largest=12, tasks=3, node_features=9, edge_features=3):
    """Graphs with 1 to `largest` nodes and up to as many bonds; the first feature of a node counts graphs up."""
    rng = np.random.default_rng(seed)
    n_node = rng.integers(1, largest + 1, count).astype(np.int32)
    n_edge = np.where(n_node > 1, rng.integers(0, largest, count) % (n_node + 1), 0).astype(np.int32)
    nodes = rng.integers(0, 20, (n_node.sum(), node_features)).astype(np.uint8)
    nodes[:, 0] = np.repeat(np.arange(count) % 256, n_node)
    of = np.repeat(n_node, n_edge)
    return PackedGraphs(
        n_node=n_node,
        n_edge=n_edge,
        nodes=nodes,
        edges=rng.integers(0, 5, (n_edge.sum(), edge_features)).astype(np.uint8),
        senders=rng.integers(0, of).astype(np.uint16),
        receivers=rng.integers(0, of).astype(np.uint16),
        labels=rng.integers(UNKNOWN, 2, (count, tasks)).astype(np.int8),
    )


def made_graphs(count, seed=0, **sizes):
    return with_both_directions(made_bonds(count, seed, **sizes))


def graph_numbers(batch):
    """The graphs of a batch, from their nodes' first feature: needs fewer than 257 graphs."""
    inputs = batch["inputs"]
    known = inputs.n_node.cumsum() - inputs.n_node
    real = (inputs.n_node > 0).sum() - 1  # all but the padding graph
    return inputs.nodes[known[:real], 0].astype(int).tolist()


def plain_batch(graphs, chosen, rows):
    """`chosen` put together a graph at a time; padding edges may join any padding nodes, so they are left out."""
    nodes, edges, senders, receivers = [], [], [], []
    n_node, n_edge = np.zeros(rows.graphs, np.int32), np.zeros(rows.graphs, np.int32)
    targets, weights = np.zeros((2, rows.graphs, graphs.labels.shape[1]), np.float32)
    for place, number in enumerate(chosen):
        first_node, first_edge = graphs.n_node[:number].sum(), graphs.n_edge[:number].sum()
        for edge in range(first_edge, first_edge + graphs.n_edge[number]):
            edges.append(graphs.edges[edge])
            senders.append(len(nodes) + int(graphs.senders[edge]))
            receivers.append(len(nodes) + int(graphs.receivers[edge]))
        nodes += list(graphs.nodes[first_node : first_node + graphs.n_node[number]])
        n_node[place], n_edge[place] = graphs.n_node[number], graphs.n_edge[number]
        for task, label in enumerate(graphs.labels[number]):
            targets[place, task] = label if label != UNKNOWN else 0
            weights[place, task] = label != UNKNOWN
    n_node[len(chosen)], n_edge[len(chosen)] = rows.nodes - len(nodes), rows.edges - len(edges)
    inputs = Graphs(
        nodes=np.array(nodes, np.float32).reshape(-1, graphs.nodes.shape[1]),
        edges=np.array(edges, np.float32).reshape(-1, graphs.edges.shape[1]),
        receivers=np.array(receivers, np.int32),
        senders=np.array(senders, np.int32),
        globals=np.zeros((rows.graphs, graphs.labels.shape[1]), np.float32),
        n_node=n_node,
        n_edge=n_edge,
    )
    return {"inputs": inputs, "targets": targets, "weights": weights}
