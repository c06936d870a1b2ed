"""Scaffolds of molecules: their rings and what links them, without side chains (Bemis and Murcko 1996).

Only which molecules share a scaffold is needed, so a scaffold is a number, the same for equal ones: a hash of its
atoms (atomic numbers) and bonds (orders), after Weisfeiler and Lehman, in whatever order they are stored.
"""

import numpy as np

from timetrial.data_loading.graphs import PackedGraphs

ROUNDS = 6  # after which an atom's hash depends on all that is up to six bonds away
ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio


def scaffolds(graphs: PackedGraphs) -> np.ndarray:
    """A number for each molecule, (graphs,) uint64; 0 for those without a ring.

    graphs: their first node feature is the atomic number, their first edge feature the order, and every bond is
    there in both directions.
    """
    offsets = np.repeat(graphs.first_node, graphs.n_edge)
    senders, receivers = offsets + graphs.senders, offsets + graphs.receivers
    kept = _without_side_chains(senders, receivers, len(graphs.nodes))
    senders, receivers = senders[kept], receivers[kept]
    orders = graphs.edges[kept, 0].astype(np.uint64) + np.uint64(1)
    inside = np.zeros(len(graphs.nodes), bool)
    inside[senders] = True

    hashes = _mixed(graphs.nodes[:, 0].astype(np.uint64))
    for _ in range(ROUNDS):
        around = np.zeros_like(hashes)
        np.add.at(around, receivers, _mixed(hashes[senders] + orders))
        hashes = _mixed(hashes * np.uint64(3) + around)
    graph_of_node = np.repeat(np.arange(len(graphs)), graphs.n_node)
    numbers = np.zeros(len(graphs), np.uint64)
    np.add.at(numbers, graph_of_node[inside], _mixed(hashes[inside]))
    return numbers


def _without_side_chains(senders: np.ndarray, receivers: np.ndarray, num_nodes: int) -> np.ndarray:
    """Numbers of the edges that are left when atoms with one neighbour are taken away until there are none."""
    kept = np.arange(len(senders))
    while True:
        ends = np.bincount(senders[kept], minlength=num_nodes) < 2
        lost = ends[senders[kept]] | ends[receivers[kept]]
        if not lost.any():
            return kept
        kept = kept[~lost]


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """A fixed scrambling of 64-bit numbers that no sum of others undoes."""
    for shift in (29, 32):
        numbers = (numbers ^ (numbers >> np.uint64(shift))) * ODD + np.uint64(shift)
    mixed: np.ndarray = numbers ^ (numbers >> np.uint64(31))
    return mixed
