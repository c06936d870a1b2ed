"""Pairs of sentences as token ids: how they are stored, and how rows of a batch are filled with them.

A shard of pairs is two arrays: `tokens` (tokens,) uint16, the source and then the target of one pair after another,
and `lengths` (pairs, 2) uint16 of both. A batch has, for inputs (the source) and targets alike, its tokens, their
positions in their sentences and the numbers of their sentences in the row (from 1 on), all (rows, length) int32
and 0 where a row is not filled.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from timetrial.data_loading.prepared import Arrays
from timetrial.engine.errors import DataError
from timetrial.engine.facts import NumpyBatch


def stored_pairs(sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], longest: int) -> Arrays:
    """A shard of the pairs whose sentences both have at most `longest` tokens."""
    kept = [
        (source, target)
        for source, target in zip(sources, targets, strict=True)
        if len(source) <= longest and len(target) <= longest
    ]
    lengths = np.array([(len(source), len(target)) for source, target in kept], np.uint16).reshape(-1, 2)
    flat = (token for pair in kept for sentence in pair for token in sentence)
    return {"tokens": np.fromiter(flat, np.uint16, int(lengths.sum())), "lengths": lengths}


def ragged_ranges(firsts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """`first`, `first` + 1, ... of every range, one after another: (sum of lengths,) int64."""
    before = np.cumsum(lengths) - lengths
    ranges: np.ndarray = np.arange(lengths.sum()) + np.repeat(firsts - before, lengths)
    return ranges


class TokenPairs:
    """The pairs of several shards, numbered from 0 on; tokens stay in the files until they are asked for."""

    def __init__(self, shards: Sequence[Arrays]) -> None:
        self._tokens = [np.asarray(shard["tokens"]) for shard in shards]
        lengths = [np.asarray(shard["lengths"]) for shard in shards]
        sizes = [each.sum(axis=1, dtype=np.int64) for each in lengths]
        self._firsts = np.concatenate([np.cumsum(each) - each for each in sizes])  # within their shards
        self._last_pairs = np.cumsum([len(each) for each in lengths])
        self._lengths = np.concatenate(lengths)  # (pairs, 2) uint16

    def __len__(self) -> int:
        return len(self._lengths)

    def lengths(self, pairs: np.ndarray) -> np.ndarray:
        """Of the source and of the target of each of the pairs: (n, 2) int64."""
        chosen: np.ndarray = self._lengths[pairs].astype(np.int64)
        return chosen

    def check_lengths(self, longest: int, where: str) -> None:
        """DataError, which names `where` they are, if there are no pairs or one does not fit into a row."""
        found = int(self._lengths.max(initial=0))
        if not 0 < found <= longest:
            raise DataError(
                f"{where} should hold sentences of 1 to {longest} tokens; the longest has {found}"
            )

    def tokens_of(self, pairs: np.ndarray) -> np.ndarray:
        """Source and target of every one of the pairs, one after another: (sum of lengths,) uint16."""
        sizes = self.lengths(pairs).sum(axis=1)
        places = ragged_ranges(self._firsts[pairs], sizes)
        shards = np.searchsorted(self._last_pairs, pairs, side="right")
        tokens = np.empty(len(places), np.uint16)
        for shard in np.unique(shards):
            here = np.repeat(shards == shard, sizes)
            tokens[here] = self._tokens[shard][places[here]]
        return tokens


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Pairs and where they lie in rows, in the order of the rows."""

    pairs: np.ndarray  # (n,) int64
    rows: np.ndarray  # (n,) int64, ascending
    starts: np.ndarray  # (n, 2) int64, of the source and of the target in the row
    segments: np.ndarray  # (n,) int64, from 1 on in every row

    def between(self, first: int, last: int) -> "Placed":
        """What lies in the rows `first` to `last` (exclusive)."""
        here = slice(*np.searchsorted(self.rows, (first, last)))
        return Placed(
            pairs=self.pairs[here],
            rows=self.rows[here],
            starts=self.starts[here],
            segments=self.segments[here],
        )


def batch_of(pairs: TokenPairs, placed: Placed, num_rows: int, length: int) -> NumpyBatch:
    """The batch whose rows are filled as `placed` says; `weights` (rows, length) float32 is 1 where a target is.

    A target that is unknown to the vocabulary has the id of padding, and its weight, as AlgoPerf has it.
    """
    lengths = pairs.lengths(placed.pairs).ravel()  # source, target, source, ...
    sides = np.array([0, num_rows * length])
    firsts = (sides + placed.rows[:, None] * length + placed.starts).ravel()
    places = ragged_ranges(firsts, lengths)
    tokens, positions, segments = np.zeros((3, 2, num_rows, length), np.int32)
    tokens.reshape(-1)[places] = pairs.tokens_of(placed.pairs)
    positions.reshape(-1)[places] = ragged_ranges(np.zeros_like(lengths), lengths)
    segments.reshape(-1)[places] = np.repeat(np.repeat(placed.segments, 2), lengths)
    return {
        "inputs": tokens[0],
        "targets": tokens[1],
        "inputs_position": positions[0],
        "targets_position": positions[1],
        "inputs_segmentation": segments[0],
        "targets_segmentation": segments[1],
        "weights": (tokens[1] > 0).astype(np.float32),
    }


def one_a_row(pairs: TokenPairs, chosen: np.ndarray, batch_size: int, length: int) -> Iterable[NumpyBatch]:
    """Each of the chosen pairs once, in a row of its own; the last batch is filled up with rows of zeros."""
    for first in range(0, len(chosen), batch_size):
        some = chosen[first : first + batch_size]
        placed = Placed(
            pairs=some,
            rows=np.arange(len(some)),
            starts=np.zeros((len(some), 2), np.int64),
            segments=np.ones(len(some), np.int64),
        )
        yield batch_of(pairs, placed, batch_size, length)
