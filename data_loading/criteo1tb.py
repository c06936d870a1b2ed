"""The Criteo 1TB click logs: 4.4 billion advertisements shown in 24 days, and whether each was clicked.

Converted once from the owner's files (`criteo_days.py`) to the features of AlgoPerf's criteo1tb
(`criteo_rows.py`), in shards of 5,000,000 rows: `inputs` (rows, 39) float32, 13 logarithmic counts and 26 ids, and
`targets` (rows,) uint8, 1 where there was a click. Days 0 to 22 train; of day 23 the first 19 shards test and the
later ones validate. The evaluated training rows are the first of every training shard, in proportion to its length.

Order: one permutation of the training shards per (seed, epoch), the rows of a shard in sequence, batches across the
borders of shards; the rows of an epoch that do not fill a batch are left out. The reference permutes files too,
but not reproducibly.

Source: Criteo AI Lab, Criteo 1TB Click Logs.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from timetrial.data_loading.batches import ORDER_STREAM, epoch_generator
from timetrial.data_loading.criteo_days import Block, DayReader, files_of_day
from timetrial.data_loading.criteo_rows import NUM_FEATURES, parse
from timetrial.data_loading.parts import Part, given, prepare_parts
from timetrial.data_loading.prefetch import in_order
from timetrial.data_loading.prepared import Arrays, Side, StoredArrays, open_arrays
from timetrial.engine.errors import DataError, UsageError
from timetrial.engine.facts import Dataset, NumpyBatch, Order, Split

NAME = "criteo1tb"
VERSION = 1
OWNER_FILES = (
    "day_0.gz to day_23.gz of the Criteo 1TB click logs, or day_N, or day_N_00, day_N_01, ... of each day"
)
BYTES_PER_ROW = 4 * NUM_FEATURES + 1
HEADER_BYTES = 128  # of a stored array


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Some rows that follow each other in the logs; here always the first ones of a stored shard."""

    name: str
    num_rows: int


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the rows are divided; the last day is the evaluation's."""

    rows_of_day: tuple[int, ...]
    rows_per_shard: int
    test_shards: int  # of the last day, from its beginning; the others validate
    eval_train: int  # rows

    @cached_property
    def days(self) -> tuple[tuple[Shard, ...], ...]:
        """The shards of every day; the last shard of a day is shorter."""
        return tuple(self._shards(day, rows) for day, rows in enumerate(self.rows_of_day))

    def _shards(self, day: int, rows: int) -> tuple[Shard, ...]:
        firsts = range(0, rows, self.rows_per_shard)
        return tuple(
            Shard(name=f"day_{day}_{i:02}", num_rows=min(self.rows_per_shard, rows - first))
            for i, first in enumerate(firsts)
        )

    @property
    def training(self) -> tuple[Shard, ...]:
        """The shards of all days but the last."""
        return tuple(shard for shards in self.days[:-1] for shard in shards)

    def side(self, day: int) -> Side:
        """Where a day is stored."""
        return "evaluation" if day == len(self.rows_of_day) - 1 else "training"

    def split(self, split: Split) -> tuple[Shard, ...]:
        """The rows of a split."""
        if split == "eval_train":
            ends = np.cumsum([shard.num_rows for shard in self.training])
            # Rounded down at every border, so that the shares add up to `eval_train`.
            shares = np.diff(ends * self.eval_train // ends[-1], prepend=0)
            return tuple(
                Shard(name=shard.name, num_rows=int(share))
                for shard, share in zip(self.training, shares, strict=True)
            )
        return self.days[-1][: self.test_shards] if split == "test" else self.days[-1][self.test_shards :]


# Rows per day as counted by several users of the logs; days 0 to 22 add up to AlgoPerf's number of training
# examples and to its 849 files. The other numbers are AlgoPerf's.
LAYOUT = Layout(
    rows_of_day=(
        *(195_841_983, 199_563_535, 196_792_019, 181_115_208, 152_115_810, 172_548_507),
        *(204_846_845, 200_801_003, 193_772_492, 198_424_372, 185_778_055, 153_588_700),
        *(169_003_364, 194_216_520, 194_081_279, 187_154_596, 177_984_934, 163_382_602),
        *(142_061_091, 156_534_237, 193_627_464, 192_215_183, 189_747_893, 178_274_637),
    ),
    rows_per_shard=5_000_000,
    test_shards=19,
    eval_train=83_361_792,
)


def prepare(folder: Path, source: Path | None = None) -> None:
    """Convert the owner's files in `source`, 1.1 TB unpacked, to 687 GB of arrays, a day in each process.

    DataError where a day is missing, damaged or has another number of rows than it should, or a row is malformed.
    """
    prepare_parts(folder, NAME, VERSION, lambda: _days(given(source, NAME, OWNER_FILES), LAYOUT))


def _days(source: Path, layout: Layout) -> list[Part]:
    parts = []
    for day in range(len(layout.rows_of_day)):
        files = files_of_day(source, day)
        part = Part(
            name=f"day_{day}",
            side=layout.side(day),
            num_bytes=sum(file.stat().st_size for file in files),
            convert=partial(convert_day, layout, day, files),
        )
        parts.append(part)
    return parts


def disk_need(source: Path | None) -> int:
    """Bytes of all arrays, whatever form the owner's files have."""
    del source
    num_shards = sum(len(shards) for shards in LAYOUT.days)
    return sum(LAYOUT.rows_of_day) * BYTES_PER_ROW + 2 * num_shards * HEADER_BYTES


def convert_day(
    layout: Layout, day: int, files: tuple[Path, ...], stored: frozenset[str]
) -> Iterator[tuple[str, Arrays]]:
    """The arrays of a day's shards that are not stored yet. DataError as `prepare`.

    No shard that is cut short, and no last shard of a day that is too long, is ever given.
    """
    reader = DayReader(files)
    shards = layout.days[day]
    if stored >= {shard.name for shard in shards}:
        return
    before = 0
    for shard in shards:
        wanted = shard.name not in stored
        arrays = _empty_arrays(shard.num_rows) if wanted else None
        found = _fill(reader, shard.num_rows, arrays)
        before += found
        surplus = _rows_left(reader) if shard is shards[-1] else 0
        if found < shard.num_rows or surplus:
            raise DataError(
                f"day {day} ({files[0]}{' and following' if len(files) > 1 else ''}) has {before + surplus:,} "
                f"rows, not {layout.rows_of_day[day]:,}"
            )
        if arrays is not None:
            yield shard.name, arrays


def _empty_arrays(num_rows: int) -> dict[str, np.ndarray]:
    return {
        "inputs": np.empty((num_rows, NUM_FEATURES), np.float32),
        "targets": np.empty(num_rows, np.uint8),
    }


def _rows_left(reader: DayReader) -> int:
    blocks: Iterator[Block] = iter(lambda: reader.take(sys.maxsize), None)
    return sum(block.num_rows for block in blocks)


def _fill(reader: DayReader, num_rows: int, arrays: dict[str, np.ndarray] | None) -> int:
    """Read the next `num_rows` rows into the arrays, or past them; the number of rows that there were."""
    filled = 0
    while filled < num_rows and (block := reader.take(num_rows - filled)) is not None:
        rows = slice(filled, filled + block.num_rows)
        if arrays is not None:
            parse(block, arrays["inputs"][rows], arrays["targets"][rows])
        filled += block.num_rows
    return filled


def training_batches(folder: Path, order: Order) -> Iterator[NumpyBatch]:
    """`inputs` (batch, 39) float32 and `targets` (batch,) float32, without end.

    UsageError where one batch is larger than the dataset.
    """
    rows = Rows(open_arrays(folder, "training", NAME, VERSION))
    share = order.batch_size // order.world_size
    return in_order(lambda pieces: rows.batch(pieces, share), training_pieces(LAYOUT.training, order), 1, 2)


def evaluation_batches(
    folder: Path, split: Split, batch_size: int, gpu: int | None = None
) -> Iterable[NumpyBatch]:
    """Every row of one split once, in the order of the logs; the last batch filled up with rows of weight 0."""
    del gpu
    # The judge may read the training side; the racer is denied the other one.
    side: Side = "training" if split == "eval_train" else "evaluation"
    rows = Rows(open_arrays(folder, side, NAME, VERSION))
    shards = LAYOUT.split(split)
    total = sum(shard.num_rows for shard in shards)
    batches = (
        pieces_between(shards, first, min(first + batch_size, total)) for first in range(0, total, batch_size)
    )
    return in_order(lambda pieces: rows.weighted_batch(pieces, batch_size), batches, 1, 2)


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Some rows of one shard."""

    shard: str
    first: int
    last: int  # exclusive


def training_pieces(shards: Sequence[Shard], order: Order) -> Iterator[list[Piece]]:
    """Where the rows of this rank's share of every global batch lie, from `order.first_batch` on, without end."""
    num_rows = sum(shard.num_rows for shard in shards)
    batches_per_epoch = num_rows // order.batch_size
    if batches_per_epoch == 0:
        raise UsageError(f"a batch of {order.batch_size} is larger than the {num_rows} training examples")
    share = order.batch_size // order.world_size
    epoch, batch = divmod(order.first_batch, batches_per_epoch)
    while True:
        permutation = epoch_generator(order.seed, epoch, ORDER_STREAM).permutation(len(shards))
        permuted = [shards[i] for i in permutation]
        for start in range(batch, batches_per_epoch):
            first = start * order.batch_size + order.rank * share
            yield pieces_between(permuted, first, first + share)
        epoch, batch = epoch + 1, 0


def pieces_between(shards: Sequence[Shard], first: int, last: int) -> list[Piece]:
    """Rows `first` to `last` (exclusive) of the shards laid end to end."""
    pieces = []
    begin = 0
    for shard in shards:
        if begin >= last:
            break
        end = begin + shard.num_rows
        if end > first:
            pieces.append(Piece(shard=shard.name, first=max(first - begin, 0), last=min(last, end) - begin))
        begin = end
    return pieces


class Rows:
    """The rows of one side. A shard is open only while a batch is copied from it: there are hundreds."""

    def __init__(self, arrays: StoredArrays) -> None:
        self._arrays = arrays

    def batch(self, pieces: Sequence[Piece], batch_size: int) -> NumpyBatch:
        """`inputs` and `targets` of the pieces one after another; rows up to `batch_size` that they lack are 0."""
        inputs = np.zeros((batch_size, NUM_FEATURES), np.float32)
        targets = np.zeros(batch_size, np.float32)
        filled = 0
        for piece in pieces:
            rows = slice(filled, filled + piece.last - piece.first)
            inputs[rows] = self._arrays[f"{piece.shard}.inputs"][piece.first : piece.last]
            targets[rows] = self._arrays[f"{piece.shard}.targets"][piece.first : piece.last]
            filled = rows.stop
        return {"inputs": inputs, "targets": targets}

    def weighted_batch(self, pieces: Sequence[Piece], batch_size: int) -> NumpyBatch:
        """The same with `weights`: 1 for the rows of the pieces, 0 for the others."""
        weights = np.zeros(batch_size, np.float32)
        weights[: sum(piece.last - piece.first for piece in pieces)] = 1
        return self.batch(pieces, batch_size) | {"weights": weights}


DATASET = Dataset(
    name=NAME,
    version=VERSION,
    licence="Criteo 1TB Click Logs (Criteo AI Lab), CC BY-NC-SA 4.0; obtained by the user from its owner",
    package=None,
    owner_files=OWNER_FILES,
    prepare=prepare,
    disk_need=disk_need,
    training_batches=training_batches,
    evaluation_batches=evaluation_batches,
)
