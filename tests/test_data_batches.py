"""The training order is a pure function of (seed, epoch); evaluation batches hold every row once."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from timetrial.data_loading.batches import padded_batches, selections
from timetrial.engine.errors import UsageError
from timetrial.engine.facts import Order

sizes = st.integers(1, 60)
seeds = st.integers(0, 2**32 - 1)


def taken(num_examples, count, **order):
    return list(itertools.islice(selections(num_examples, Order(**order)), count))


@given(num_examples=sizes, batch_size=sizes, seed=seeds)
def test_an_epoch_holds_no_example_twice_and_drops_only_the_remainder(num_examples, batch_size, seed):
    assume(batch_size <= num_examples)
    per_epoch = num_examples // batch_size
    batches = taken(num_examples, 2 * per_epoch, batch_size=batch_size, seed=seed)
    for epoch in range(2):
        seen = np.concatenate([b.indices for b in batches[epoch * per_epoch : (epoch + 1) * per_epoch]])
        assert len(set(seen.tolist())) == per_epoch * batch_size
        assert seen.min() >= 0 and seen.max() < num_examples
    assert [b.epoch for b in batches] == [0] * per_epoch + [1] * per_epoch


@given(num_examples=sizes, batch_size=sizes, seed=seeds, first=st.integers(0, 40))
def test_resuming_equals_skipping(num_examples, batch_size, seed, first):
    assume(batch_size <= num_examples)
    skipped = taken(num_examples, first + 5, batch_size=batch_size, seed=seed)[first:]
    resumed = taken(num_examples, 5, batch_size=batch_size, seed=seed, first_batch=first)
    for a, b in zip(skipped, resumed, strict=True):
        assert a.epoch == b.epoch
        np.testing.assert_array_equal(a.indices, b.indices)


@given(share=st.integers(1, 6), world_size=st.integers(1, 5), seed=seeds)
def test_the_ranks_shares_concatenate_to_the_global_batch(share, world_size, seed):
    order = {"batch_size": share * world_size, "seed": seed}
    whole = taken(70, 4, **order)
    shares = [taken(70, 4, **order, rank=rank, world_size=world_size) for rank in range(world_size)]
    for batch, parts in zip(whole, zip(*shares, strict=True), strict=True):
        np.testing.assert_array_equal(batch.indices, np.concatenate([part.indices for part in parts]))


def test_seeds_and_epochs_differ():
    a, b = taken(1000, 2, batch_size=1000, seed=0)
    (c,) = taken(1000, 1, batch_size=1000, seed=1)
    assert not np.array_equal(a.indices, b.indices)
    assert not np.array_equal(a.indices, c.indices)


def test_the_order_never_changes_between_versions():
    (batch,) = taken(10, 1, batch_size=10, seed=7)
    assert batch.indices.tolist() == [1, 2, 0, 9, 8, 4, 7, 6, 3, 5]


def test_a_batch_larger_than_the_dataset_is_refused():
    with pytest.raises(UsageError, match="batch of 11 is larger than the 10"):
        taken(10, 1, batch_size=11, seed=0)


@given(num_examples=sizes, batch_size=sizes, per_token=st.booleans())
def test_evaluation_batches_hold_every_row_once_and_share_one_shape(num_examples, batch_size, per_token):
    targets = np.arange(num_examples, dtype=np.int32) + 1
    if per_token:
        targets = np.stack([targets, targets], 1)
    inputs = np.random.default_rng(0).normal(size=(num_examples, 2, 3)).astype(np.float32)
    for array in (inputs, targets):
        array.flags.writeable = False  # as rows of a memory map are
    batches = list(padded_batches({"inputs": inputs, "targets": targets}, batch_size, per_token=per_token))
    assert len(batches) == -(-num_examples // batch_size)
    for batch in batches:
        assert {k: (v.shape, v.dtype.name) for k, v in batch.items()} == {
            "inputs": ((batch_size, 2, 3), "float32"),
            "targets": ((batch_size, *targets.shape[1:]), "int32"),
            "weights": ((batch_size, *targets.shape[1:]), "float32"),
        }
        assert all(array.flags.c_contiguous and array.flags.writeable for array in batch.values())
    whole = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    np.testing.assert_array_equal(whole["targets"][:num_examples], targets)
    np.testing.assert_array_equal(whole["inputs"][:num_examples], inputs)
    assert (whole["weights"][:num_examples] == 1).all()
    for key in whole:
        assert not whole[key][num_examples:].any()
