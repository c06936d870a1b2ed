"""Batches of graphs: filled greedily, padded by the rule, the same for everybody who asks; nothing is left out."""

from itertools import islice

import numpy as np
import pytest
from graph_maker import AVERAGES, graph_numbers, made_bonds, made_graphs, plain_batch
from hypothesis import given
from hypothesis import strategies as st

from timetrial.data_loading.graph_batches import (
    Averages,
    Budget,
    collated,
    cuts,
    evaluation_batches,
    selections,
    training_batches,
)
from timetrial.data_loading.graphs import KEYS, PackedGraphs, stretches, with_both_directions
from timetrial.engine.errors import UsageError
from timetrial.engine.facts import Order

GRAPHS = made_graphs(100)


def shares(graphs, count, **order):
    order = Order(**{"batch_size": 8, "seed": 0} | order)
    budget = Budget.of(order.batch_size // order.world_size, AVERAGES)
    return [chosen.tolist() for chosen in islice(selections(graphs, order, budget), count)]


def greedy(n_node, n_edge, budget):
    """Where batches begin, a graph at a time."""
    starts, graphs, nodes, edges = [0], 0, 0, 0
    for number, (more_nodes, more_edges) in enumerate(zip(n_node, n_edge, strict=True)):
        if (
            graphs + 1 > budget.graphs
            or nodes + more_nodes > budget.nodes
            or edges + more_edges > budget.edges
        ):
            starts.append(number)
            graphs = nodes = edges = 0
        graphs, nodes, edges = graphs + 1, nodes + more_nodes, edges + more_edges
    return starts


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=60),
    st.integers(1, 9),
    st.integers(9, 40),
    st.integers(9, 40),
)
def test_batches_are_filled_until_the_next_graph_exceeds_a_budget(sizes, graphs, nodes, edges):
    n_node, n_edge = np.array(sizes, np.int32).T
    budget = Budget(graphs=graphs, nodes=nodes, edges=edges)
    assert cuts(n_node, n_edge, budget) == greedy(n_node, n_edge, budget)


def test_budgets_and_padding_are_algoperfs():
    """512 molecules: 13,312 atoms, 28,672 edges; one node and one graph more, then up to multiples of 64."""
    budget = Budget.of(512, Averages(nodes=26, edges=56))
    assert budget == Budget(graphs=512, nodes=13_312, edges=28_672)
    assert budget.rows == Budget(graphs=576, nodes=13_376, edges=28_672)
    assert Budget(graphs=63, nodes=64, edges=64).rows == Budget(graphs=64, nodes=128, edges=64)


@given(st.integers(0, 2**32 - 1), st.integers(0, 8))
def test_a_batch_is_its_graphs_one_after_another(seed, count):
    graphs = made_graphs(12, seed)
    chosen = np.random.default_rng(seed).permutation(12)[:count]
    budget = Budget(graphs=8, nodes=100, edges=200)
    batch, plain = collated(graphs, chosen, budget), plain_batch(graphs, chosen, budget.rows)
    for key in ("targets", "weights"):
        np.testing.assert_array_equal(batch[key], plain[key])
    inputs, wanted = batch["inputs"], plain["inputs"]
    for field in ("globals", "n_node", "n_edge"):
        np.testing.assert_array_equal(getattr(inputs, field), getattr(wanted, field))
    for field in ("nodes", "edges", "receivers", "senders"):
        found, real = getattr(inputs, field), getattr(wanted, field)
        np.testing.assert_array_equal(found[: len(real)], real, err_msg=field)
        assert found.dtype == real.dtype
        if field in ("nodes", "edges"):
            assert (found[len(real) :] == 0).all()
        else:  # padding edges join padding nodes
            assert (found[len(real) :] >= len(wanted.nodes)).all()
            assert (found < len(inputs.nodes)).all()


def test_batches_have_one_shape_and_padding_that_belongs_to_one_graph():
    order = Order(batch_size=8, seed=0)
    batches = list(islice(training_batches(GRAPHS, order, AVERAGES), 30))
    batches += evaluation_batches(GRAPHS, 8, AVERAGES)
    rows = Budget.of(8, AVERAGES).rows
    for batch in batches:
        inputs = batch["inputs"]
        assert {field: (a.shape, a.dtype.name) for field, a in inputs._asdict().items()} == {
            "nodes": ((rows.nodes, 9), "float32"),
            "edges": ((rows.edges, 3), "float32"),
            "receivers": ((rows.edges,), "int32"),
            "senders": ((rows.edges,), "int32"),
            "globals": ((rows.graphs, 3), "float32"),
            "n_node": ((rows.graphs,), "int32"),
            "n_edge": ((rows.graphs,), "int32"),
        }
        arrays = [*inputs, batch["targets"], batch["weights"]]
        assert all(a.flags.c_contiguous and a.flags.writeable and len(a) % 64 == 0 for a in arrays)
        assert inputs.n_node.sum() == rows.nodes and inputs.n_edge.sum() == rows.edges
        real = len(graph_numbers(batch))
        assert real <= 8 and inputs.n_node[real] > 0
        assert (inputs.n_node[real + 1 :] == 0).all() and (inputs.n_edge[real + 1 :] == 0).all()
        assert (batch["weights"][real:] == 0).all() and (batch["targets"][real:] == 0).all()
        of_nodes = np.repeat(np.arange(rows.graphs), inputs.n_node)
        of_edges = np.repeat(np.arange(rows.graphs), inputs.n_edge)
        np.testing.assert_array_equal(of_nodes[inputs.senders], of_edges)
        np.testing.assert_array_equal(of_nodes[inputs.receivers], of_edges)


@pytest.mark.parametrize("batch_size", [3, 8, 64, 1000])
def test_every_graph_is_evaluated_once_in_order(batch_size):
    batches = list(evaluation_batches(GRAPHS, batch_size, AVERAGES))
    assert [number for batch in batches for number in graph_numbers(batch)] == list(range(100))
    assert sum(batch["weights"].sum() for batch in batches) == (GRAPHS.labels >= 0).sum()
    assert sum(batch["targets"].sum() for batch in batches) == (GRAPHS.labels == 1).sum()


def test_every_graph_is_in_every_epoch_once_and_nothing_is_left_out():
    sequence = [number for share in shares(GRAPHS, 120) for number in share]
    epochs = [sequence[first : first + 100] for first in range(0, len(sequence) - 99, 100)]
    assert len(epochs) >= 5
    assert all(sorted(epoch) == list(range(100)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


def test_epochs_run_into_each_other():
    """No batch is cut short by the end of an epoch: each is as full as a greedy one."""
    batches = shares(GRAPHS, 60)
    sequence = [number for batch in batches for number in batch]
    starts = greedy(GRAPHS.n_node[sequence], GRAPHS.n_edge[sequence], Budget.of(8, AVERAGES))
    assert starts == np.cumsum([0, *(len(batch) for batch in batches[:-1])]).tolist()


@given(st.integers(0, 90), st.sampled_from([1, 2, 4]), st.integers(0, 3))
def test_an_order_is_resumed_anywhere(first_batch, world_size, seed):
    rank = seed % world_size
    where = {"world_size": world_size, "rank": rank, "seed": seed, "batch_size": 16}
    resumed = shares(GRAPHS, 5, first_batch=first_batch, **where)
    assert resumed == shares(GRAPHS, first_batch + 5, **where)[first_batch:]


def test_ranks_take_turns_in_one_sequence():
    """Shares of four ranks are what one rank would take at a quarter of the batch."""
    together = shares(GRAPHS, 40, batch_size=4)
    for rank in range(4):
        assert shares(GRAPHS, 10, batch_size=16, world_size=4, rank=rank) == together[rank::4]


def test_orders_differ_by_seed():
    assert shares(GRAPHS, 10, seed=0) == shares(GRAPHS, 10, seed=0) != shares(GRAPHS, 10, seed=1)


def test_a_batch_is_neither_larger_than_the_data_nor_too_small_for_a_graph():
    with pytest.raises(UsageError, match="a batch of 101 is larger than the 100 training graphs"):
        shares(GRAPHS, 1, batch_size=101)
    assert len(shares(GRAPHS, 3, batch_size=100)) == 3
    largest = int(GRAPHS.n_node.argmax())
    with pytest.raises(UsageError, match=r"room for 6 nodes and 14 edges, and graph \d+ has"):
        list(evaluation_batches(GRAPHS, 1, AVERAGES))
    with pytest.raises(UsageError, match=f"graph {largest} has {GRAPHS.n_node[largest]} and"):
        list(evaluation_batches(GRAPHS.take(np.arange(100)), 1, Averages(nodes=11, edges=99)))


def test_both_directions_are_a_block_each():
    bonds = made_bonds(30, 3)
    graphs = with_both_directions(bonds)
    for number in range(30):
        one = graphs.take(np.array([number]))
        bond = bonds.take(np.array([number]))
        half = len(bond.edges)
        assert one.n_edge.tolist() == [2 * half] and one.n_node.tolist() == bond.n_node.tolist()
        np.testing.assert_array_equal(one.edges, np.concatenate([bond.edges, bond.edges]))
        np.testing.assert_array_equal(one.senders, np.concatenate([bond.senders, bond.receivers]))
        np.testing.assert_array_equal(one.receivers, np.concatenate([bond.receivers, bond.senders]))
        np.testing.assert_array_equal(one.labels[0], bonds.labels[number])


def test_packed_arrays_keep_their_names_and_dtypes():
    arrays = GRAPHS.arrays("test_")
    assert arrays.keys() == {f"test_{key}" for key in KEYS}
    again = PackedGraphs.of(arrays, "test_")
    for key in KEYS:
        np.testing.assert_array_equal(getattr(again, key), getattr(GRAPHS, key))
        assert getattr(again, key).dtype == getattr(GRAPHS, key).dtype
    assert len(again) == 100


def test_stretches():
    assert stretches(np.array([5, 0, 9]), np.array([2, 0, 3])).tolist() == [5, 6, 9, 10, 11]
    assert stretches(np.array([], int), np.array([], int)).tolist() == []
