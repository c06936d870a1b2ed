"""Training batches of sentence pairs, several pairs to a row.

Rows are filled greedily, as AlgoPerf fills them: of 256 pairs that follow each other, each goes into the row of the
one before it while both of its sides still fit there, else into the next row; a row holds pairs of one such group.

The order is a pure function of (seed, epoch): one permutation of all pairs per epoch, cut into groups, the last of
which may be smaller; rows of one epoch follow those of the one before, and batches cross from one to the next, so that
every pair comes once per epoch. (The reference permutes in a moving window of 1,024 pairs of files that are
themselves shuffled once.) How many rows an epoch has depends on the permutation, so whoever resumes packs what came
before again, without reading a token.

Source: AlgoPerf v0.6, wmt; it took the scheme from Tensor2Tensor (arXiv 1803.07416).
"""

from collections.abc import Iterator
from itertools import count

import numpy as np

from timetrial.data_loading.batches import ORDER_STREAM, epoch_generator
from timetrial.data_loading.prefetch import in_order
from timetrial.data_loading.token_pairs import Placed, TokenPairs, batch_of
from timetrial.engine.facts import NumpyBatch, Order

GROUP = 256  # pairs
GROUPS_AT_ONCE = 1024  # packed together, so that the beginning of an epoch does not take long


def pack(pairs: np.ndarray, lengths: np.ndarray, length: int) -> Placed:
    """Where the pairs, whose lengths (n, 2) are at most `length`, lie in rows of that many tokens, group by group."""
    group = min(GROUP, len(pairs))
    num_groups = -(-len(pairs) // group)
    padded = np.zeros((num_groups * group, 2), np.int64)
    padded[: len(pairs)] = lengths
    # The i-th pairs of all groups lie side by side here, for they are placed at once.
    sizes = np.ascontiguousarray(padded.reshape(num_groups, group, 2).swapaxes(0, 1))
    rows, segments = np.empty((2, group, num_groups), np.int64)
    starts = np.empty_like(sizes)
    row, segment = np.zeros((2, num_groups), np.int64)
    used = np.zeros((num_groups, 2), np.int64)
    for i, size in enumerate(sizes):
        full = (used + size).max(axis=1) > length
        used[full] = 0
        row += full
        segment[full] = 0
        segment += 1
        rows[i], starts[i], segments[i] = row, used, segment
        used += size
    rows_of_group = row + 1
    rows += np.cumsum(rows_of_group) - rows_of_group
    n = len(pairs)
    return Placed(
        pairs=pairs,
        rows=rows.T.reshape(-1)[:n],
        starts=starts.swapaxes(0, 1).reshape(-1, 2)[:n],
        segments=segments.T.reshape(-1)[:n],
    )


def packed_batches(pairs: TokenPairs, length: int, order: Order) -> Iterator[NumpyBatch]:
    """This rank's rows of every global batch from `order.first_batch` on, without end; as `batch_of`."""
    share = order.batch_size // order.world_size
    first = order.first_batch * order.batch_size + order.rank * share
    stretches = _rows(pairs, length, order.seed, first, share, order.batch_size)
    return in_order(lambda placed: batch_of(pairs, placed, share, length), stretches, 1, 2)


def _rows(pairs: TokenPairs, length: int, seed: int, first: int, share: int, stride: int) -> Iterator[Placed]:
    """What lies in the rows `first` to `first` + `share` of the stream of all epochs, then `stride` rows later."""
    begin = 0  # of a block, in the stream
    parts: list[Placed] = []  # of the stretch that is being collected
    for chosen in _blocks(len(pairs), seed):
        block = pack(chosen, pairs.lengths(chosen), length)
        end = begin + int(block.rows[-1]) + 1
        while first < end:
            parts.append(_moved(block.between(first - begin, first + share - begin), begin - first))
            if first + share > end:
                break  # the rest is in the next block
            yield _joined(parts)
            parts, first = [], first + stride
        begin = end


def _blocks(num_pairs: int, seed: int) -> Iterator[np.ndarray]:
    size = GROUP * GROUPS_AT_ONCE
    for epoch in count():
        permutation = epoch_generator(seed, epoch, ORDER_STREAM).permutation(num_pairs)
        for first in range(0, num_pairs, size):
            yield permutation[first : first + size]


def _moved(placed: Placed, rows: int) -> Placed:
    return Placed(pairs=placed.pairs, rows=placed.rows + rows, starts=placed.starts, segments=placed.segments)


def _joined(parts: list[Placed]) -> Placed:
    return Placed(
        pairs=np.concatenate([part.pairs for part in parts]),
        rows=np.concatenate([part.rows for part in parts]),
        starts=np.concatenate([part.starts for part in parts]),
        segments=np.concatenate([part.segments for part in parts]),
    )
