"""The click logs once prepared: the order of their rows, the splits, and a preparation that goes on."""

import gzip
import itertools
from pathlib import Path

import numpy as np
import pytest
from criteo_logs import features, made_lines, text_of, write_day
from hypothesis import given
from hypothesis import strategies as st

from timetrial.data_loading import criteo1tb
from timetrial.data_loading.criteo1tb import Layout, Shard, training_pieces
from timetrial.data_loading.prepared import is_complete
from timetrial.engine.errors import DataError, UsageError
from timetrial.engine.facts import Order

LAYOUT = Layout(rows_of_day=(25, 12, 7, 23), rows_per_shard=10, test_shards=1, eval_train=9)
DAYS = [made_lines(rows, seed) for seed, rows in enumerate(LAYOUT.rows_of_day)]


@pytest.fixture(scope="module")
def layout():
    """The small layout in place of the real one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(criteo1tb, "LAYOUT", LAYOUT)
        yield LAYOUT


@pytest.fixture(scope="module")
def folder(layout, tmp_path_factory):
    """The small logs, prepared; the days lie in different forms."""
    root = tmp_path_factory.mktemp("criteo")
    for day, (lines, form) in enumerate(zip(DAYS, ("gz", "plain", "cut", "gz"), strict=True)):
        write_day(root / "source", day, lines, form, rows_per_file=5)
    criteo1tb.prepare(root / "data", root / "source")
    return root / "data"


def joined(lists):
    return list(itertools.chain.from_iterable(lists))


def ids(lines):
    """The categorical part of each line's inputs, which no two lines share."""
    return [tuple(features(line)[0][13:]) for line in lines]


def ids_of(batch):
    return [tuple(row) for row in batch["inputs"][:, 13:].tolist()]


def test_the_real_layout_is_algoperfs():
    layout = criteo1tb.LAYOUT
    assert sum(shard.num_rows for shard in layout.training) == 4_195_197_692
    assert len(layout.training) == 849
    sizes = {"test": (19, 95_000_000), "validation": (17, 83_274_637), "eval_train": (849, 83_361_792)}
    for split, (num_shards, num_rows) in sizes.items():
        shards = layout.split(split)
        assert (len(shards), sum(shard.num_rows for shard in shards)) == (num_shards, num_rows)
    stored = {shard.name: shard.num_rows for shard in layout.training}
    shares = [shard.num_rows / stored[shard.name] for shard in layout.split("eval_train")]
    assert np.allclose(shares, 83_361_792 / 4_195_197_692, rtol=1e-4)
    assert 686e9 < criteo1tb.disk_need(None) < 687e9


def test_an_epoch_is_its_shards_one_after_another(folder):
    batches = list(itertools.islice(criteo1tb.training_batches(folder, Order(batch_size=4, seed=3)), 22))
    for batch in batches:
        assert {key: (value.shape, value.dtype.name) for key, value in batch.items()} == {
            "inputs": ((4, 39), "float32"),
            "targets": ((4,), "float32"),
        }
        assert all(array.flags.c_contiguous and array.flags.writeable for array in batch.values())
    shards = [ids(day[i : i + 10]) for day in DAYS[:3] for i in range(0, len(day), 10)]
    shard_of = {row: number for number, shard in enumerate(shards) for row in shard}
    label_of = {tuple(inputs[13:]): label for inputs, label in map(features, joined(DAYS[:3]))}
    orders = []
    for epoch in (batches[:11], batches[11:]):
        seen = [row for batch in epoch for row in ids_of(batch)]
        assert [y for batch in epoch for y in batch["targets"].tolist()] == [label_of[row] for row in seen]
        order = [number for number, _ in itertools.groupby(seen, shard_of.__getitem__)]
        assert len(set(order)) == len(order) == len(shards)
        assert seen == [row for number in order for row in shards[number]]
        orders.append(order)
    assert orders[0] != orders[1]


shard_lists = st.lists(st.integers(1, 9), min_size=1, max_size=8).map(
    lambda sizes: [Shard(name=f"{i}", num_rows=rows) for i, rows in enumerate(sizes)]
)


def rows_of(pieces):
    return [(piece.shard, row) for piece in pieces for row in range(piece.first, piece.last)]


@given(
    shards=shard_lists,
    share=st.integers(1, 5),
    world_size=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
    first_batch=st.integers(0, 12),
)
def test_the_order_is_a_pure_function(shards, share, world_size, seed, first_batch):
    order = {"batch_size": share * world_size, "seed": seed}
    num_rows = sum(shard.num_rows for shard in shards)
    if num_rows < order["batch_size"]:
        with pytest.raises(UsageError, match=f"larger than the {num_rows} training examples"):
            next(training_pieces(shards, Order(**order)))
        return
    count = first_batch + 5
    straight = [
        rows_of(pieces) for pieces in itertools.islice(training_pieces(shards, Order(**order)), count)
    ]
    resumed = training_pieces(shards, Order(**order, first_batch=first_batch))
    assert [rows_of(pieces) for pieces in itertools.islice(resumed, 5)] == straight[first_batch:]
    ranks = [
        itertools.islice(training_pieces(shards, Order(**order, rank=rank, world_size=world_size)), count)
        for rank in range(world_size)
    ]
    assert [joined(map(rows_of, parts)) for parts in zip(*ranks, strict=True)] == straight
    sizes = {shard.name: shard.num_rows for shard in shards}
    batches_per_epoch = num_rows // order["batch_size"]
    for start in range(0, count - batches_per_epoch + 1, batches_per_epoch):
        epoch = joined(straight[start : start + batches_per_epoch])
        assert len(epoch) == len(set(epoch)) == batches_per_epoch * order["batch_size"]
        assert all(row < sizes[shard] for shard, row in epoch)


def test_seeds_give_other_orders(layout):
    firsts = {
        next(training_pieces(layout.training, Order(batch_size=1, seed=seed)))[0].shard for seed in range(40)
    }
    assert firsts == {shard.name for shard in layout.training}


def test_ranks_and_resumption_read_the_rows_of_the_straight_run(folder):
    straight = list(itertools.islice(criteo1tb.training_batches(folder, Order(batch_size=6, seed=1)), 9))
    for rank in range(2):
        order = Order(batch_size=6, seed=1, first_batch=5, rank=rank, world_size=2)
        for whole, part in zip(straight[5:], criteo1tb.training_batches(folder, order), strict=False):
            np.testing.assert_array_equal(part["inputs"], whole["inputs"][3 * rank : 3 * rank + 3])
            np.testing.assert_array_equal(part["targets"], whole["targets"][3 * rank : 3 * rank + 3])


@pytest.mark.parametrize("batch_size", [1, 4, 13, 64])
def test_every_evaluated_row_counts_once(folder, batch_size):
    # Of 44 training rows 9 are evaluated: the first of each shard, about a fifth.
    shares = {(0, 0): 2, (0, 10): 2, (0, 20): 1, (1, 0): 2, (1, 10): 0, (2, 0): 2}
    lines = {
        "test": DAYS[3][:10],
        "validation": DAYS[3][10:],
        "eval_train": [line for (day, i), n in shares.items() for line in DAYS[day][i : i + n]],
    }
    for split, expected in lines.items():
        counted, targets = [], []
        for batch in criteo1tb.evaluation_batches(folder, split, batch_size):
            weights = batch["weights"].astype(bool)
            assert batch["inputs"].shape == (batch_size, 39)
            assert batch["targets"].shape == weights.shape == (batch_size,)
            assert {array.dtype.name for array in batch.values()} == {"float32"}
            assert not batch["inputs"][~weights].any() and not batch["targets"][~weights].any()
            counted += ids_of({"inputs": batch["inputs"][weights]})
            targets += batch["targets"][weights].tolist()
        assert counted == ids(expected)
        assert targets == [features(line)[1] for line in expected]


def test_shards_are_open_only_while_they_are_read(folder):
    batches = criteo1tb.training_batches(folder, Order(batch_size=2, seed=0))
    for _ in range(22):
        next(batches)
        mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
        # At most those of the batch that is being made meanwhile.
        assert sum(name.startswith(str(folder)) for name in mapped) <= 4
    batches.close()


def test_a_training_process_finds_no_evaluation_rows(folder):
    stored = {path.name.split(".")[0] for path in (folder / "training/criteo1tb").glob("*.npy")}
    assert stored == {shard.name for shard in LAYOUT.training}


def test_a_preparation_goes_on_where_it_was_refused(layout, tmp_path):
    source, data = tmp_path / "source", tmp_path / "data"
    for day, lines in enumerate(DAYS):
        write_day(source, day, lines, "gz")
    whole = (source / "day_0.gz").read_bytes()
    # As long as the right one, so that it counts as the same source: the third shard is damaged.
    damaged = gzip.compress(text_of(DAYS[0][:21]) + b"0\tshort\n")
    (source / "day_0.gz").write_bytes(damaged + bytes(len(whole) - len(damaged)))
    with pytest.raises(DataError, match=r"row 22 of .*day_0\.gz has 2 fields, not 40"):
        criteo1tb.prepare(data, source)
    assert not is_complete(data, "criteo1tb", criteo1tb.VERSION)
    kept = data / ".criteo1tb.partial/training/day_0_01.inputs.npy"
    written = kept.stat().st_mtime_ns
    (source / "day_0.gz").write_bytes(whole)
    criteo1tb.prepare(data, source)
    assert (data / "training/criteo1tb" / kept.name).stat().st_mtime_ns == written
    seen = np.concatenate([b["inputs"] for b in criteo1tb.evaluation_batches(data, "eval_train", 3)])
    assert [tuple(row) for row in seen[:, 13:].tolist()][:2] == ids(DAYS[0][:2])
    third = np.load(data / "training/criteo1tb/day_0_02.inputs.npy")
    assert ids_of({"inputs": third}) == ids(DAYS[0][20:])
