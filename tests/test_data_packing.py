"""Sentence pairs in rows: packed as a plain loop packs them, every pair once per epoch, resumed and shared."""

from collections import Counter
from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timetrial.data_loading import packing
from timetrial.data_loading.batches import ORDER_STREAM, epoch_generator
from timetrial.data_loading.packing import pack, packed_batches
from timetrial.data_loading.token_pairs import TokenPairs, one_a_row, ragged_ranges, stored_pairs
from timetrial.engine.errors import DataError
from timetrial.engine.facts import Order

LENGTH = 10


def made_pairs(count, seed=0, longest=LENGTH):
    """Sentences whose tokens tell them apart: (number, number, ...) of some length each, from 1 on."""
    draw = np.random.default_rng(seed)
    return [tuple([number + 1] * draw.integers(1, longest + 1) for _ in range(2)) for number in range(count)]


def stored(pairs, shards=1):
    cuts = np.linspace(0, len(pairs), shards + 1).astype(int)
    pieces = [pairs[first:last] for first, last in pairwise(cuts)]
    return TokenPairs([stored_pairs(*zip(*piece, strict=True), LENGTH) for piece in pieces])


def plainly_packed(pairs, length, group):
    """The rows, as lists of pairs: one pair after another, as the rule says it."""
    rows = []
    for first in range(0, len(pairs), group):
        row, used = [], (0, 0)
        for pair in pairs[first : first + group]:
            sizes = tuple(len(side) for side in pair)
            if any(u + s > length for u, s in zip(used, sizes, strict=True)):
                rows.append(row)
                row, used = [], (0, 0)
            row.append(pair)
            used = tuple(u + s for u, s in zip(used, sizes, strict=True))
        rows.append(row)
    return rows


def filled(row, length):
    """Tokens, positions and segments of both sides of a row."""
    arrays = {}
    for side, name in enumerate(("inputs", "targets")):
        tokens, positions, segments = [], [], []
        for number, pair in enumerate(row, start=1):
            tokens += pair[side]
            positions += range(len(pair[side]))
            segments += [number] * len(pair[side])
        rest = [0] * (length - len(tokens))
        arrays |= {
            name: tokens + rest,
            f"{name}_position": positions + rest,
            f"{name}_segmentation": segments + rest,
        }
    return arrays | {"weights": [float(token > 0) for token in arrays["targets"]]}


def epochs(pairs, seed, count):
    """The pairs in the order of the first epochs, group by group."""
    permuted = []
    for epoch in range(count):
        permuted.append(
            [pairs[i] for i in epoch_generator(seed, epoch, ORDER_STREAM).permutation(len(pairs))]
        )
    return permuted


def row_of(batch, i):
    return {key: array[i].tolist() for key, array in batch.items()}


def joined(batches):
    return {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}


@given(
    st.lists(st.tuples(st.integers(1, LENGTH), st.integers(1, LENGTH)), min_size=1, max_size=60),
    st.integers(1, 9),
)
def test_rows_are_those_of_the_plain_loop(sizes, group):
    pairs = [([1] * source, [1] * target) for source, target in sizes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "GROUP", group)
        placed = pack(np.arange(len(sizes)), np.array(sizes), LENGTH)
    place = 0
    for number, row in enumerate(plainly_packed(pairs, LENGTH, group)):
        begin = np.zeros(2, int)
        for segment, pair in enumerate(row, start=1):
            assert placed.rows[place] == number
            assert placed.segments[place] == segment
            assert placed.starts[place].tolist() == begin.tolist()
            begin += [len(side) for side in pair]
            place += 1
    assert place == len(placed.pairs)


@pytest.mark.parametrize("shards", [1, 3])
def test_batches_hold_the_rows_of_all_epochs_one_after_another(monkeypatch, shards):
    monkeypatch.setattr(packing, "GROUP", 8)
    monkeypatch.setattr(
        packing, "GROUPS_AT_ONCE", 2
    )  # so that batches cross the borders of blocks and epochs
    pairs = made_pairs(53)
    expected = [
        filled(row, LENGTH)
        for epoch in epochs(pairs, seed=4, count=3)
        for first in range(0, len(epoch), 16)
        for row in plainly_packed(epoch[first : first + 16], LENGTH, 8)
    ]
    batches = packed_batches(stored(pairs, shards), LENGTH, Order(batch_size=6, seed=4))
    found = [row_of(batch, i) for batch in islice(batches, len(expected) // 6) for i in range(6)]
    assert len(found) > 60
    assert found == expected[: len(found)]


def test_every_pair_comes_once_per_epoch():
    pairs = made_pairs(700)
    num_rows = sum(
        len(plainly_packed(epoch, LENGTH, packing.GROUP)) for epoch in epochs(pairs, seed=1, count=2)
    )
    batches = packed_batches(stored(pairs), LENGTH, Order(batch_size=1, seed=1))
    firsts = Counter()
    for batch in islice(batches, num_rows):
        firsts.update(batch["inputs"][(batch["inputs_position"] == 0) & (batch["inputs"] > 0)].tolist())
    assert firsts == Counter({number + 1: 2 for number in range(700)})


def test_the_order_is_a_function_of_the_seed():
    pairs = stored(made_pairs(400))
    first, again, other = (
        next(packed_batches(pairs, LENGTH, Order(batch_size=30, seed=seed))) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first["inputs"], again["inputs"])
    assert (first["inputs"] != other["inputs"]).any()


@pytest.mark.parametrize("first_batch", [1, 7, 40])
def test_an_order_is_resumed_at_any_batch(monkeypatch, first_batch):
    monkeypatch.setattr(packing, "GROUP", 8)
    monkeypatch.setattr(packing, "GROUPS_AT_ONCE", 2)
    pairs = stored(made_pairs(90))
    whole = packed_batches(pairs, LENGTH, Order(batch_size=4, seed=3))
    resumed = packed_batches(pairs, LENGTH, Order(batch_size=4, seed=3, first_batch=first_batch))
    for expected, found in islice(zip(islice(whole, first_batch, None), resumed, strict=False), 12):
        for key in expected:
            np.testing.assert_array_equal(found[key], expected[key])


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 4), st.integers(1, 4))
def test_ranks_share_every_global_batch(count, world_size, share):
    pairs = stored(made_pairs(count))  # perhaps fewer rows in an epoch than in a batch
    size = world_size * share
    whole = islice(packed_batches(pairs, LENGTH, Order(batch_size=size, seed=5)), 5)
    ranks = [
        packed_batches(pairs, LENGTH, Order(batch_size=size, seed=5, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    for expected, *shares in zip(whole, *ranks, strict=False):
        together = joined(shares)
        for key in expected:
            assert (together[key].dtype, together[key].flags.c_contiguous) == (expected[key].dtype, True)
            np.testing.assert_array_equal(together[key], expected[key])


@given(st.integers(1, 30), st.integers(1, 12), st.integers(1, 3))
def test_evaluation_has_every_chosen_pair_once_in_its_own_row(count, batch_size, shards):
    made = made_pairs(count)
    chosen = np.arange(0, count, 2)
    batches = list(one_a_row(stored(made, min(shards, count)), chosen, batch_size, LENGTH))
    assert {batch["inputs"].shape for batch in batches} == {(batch_size, LENGTH)}
    rows = joined(batches)
    for place, number in enumerate(chosen):
        assert row_of(rows, place) == filled([made[number]], LENGTH)
    assert all(not array[len(chosen) :].any() for array in rows.values())


def test_an_unknown_target_has_no_weight():
    pairs = stored([([5, 0, 2], [7, 0, 2])])
    (batch,) = one_a_row(pairs, np.array([0]), 1, LENGTH)
    assert batch["weights"][0, :4].tolist() == [1, 0, 1, 0]
    assert batch["targets_segmentation"][0, :4].tolist() == [1, 1, 1, 0]


def test_pairs_with_a_sentence_that_is_too_long_are_not_stored():
    long, short = [3] * (LENGTH + 1), [3] * LENGTH
    kept = stored_pairs([long, short, short], [short, long, short], LENGTH)
    assert kept["lengths"].tolist() == [[LENGTH, LENGTH]]
    assert kept["tokens"].tolist() == short + short


def test_rows_that_a_sentence_does_not_fit_into_are_an_error():
    with pytest.raises(DataError, match=r"1 to 9 tokens; the longest has 10"):
        stored([([1] * 10, [2])]).check_lengths(9, "here")
    empty = TokenPairs([stored_pairs([], [], LENGTH)])
    with pytest.raises(DataError, match="the longest has 0"):
        empty.check_lengths(9, "here")


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5)), min_size=1))
def test_ragged_ranges_are_ranges_end_to_end(ranges):
    firsts, lengths = np.array(ranges).T
    expected = [i for first, length in ranges for i in range(first, first + length)]
    assert ragged_ranges(firsts, lengths).tolist() == expected
