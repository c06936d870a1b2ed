"""Recorded speech with its transcripts' tokens: how it is stored, and batches of one length.

A shard holds, of n utterances laid end to end:

    audio           (samples,) int16
    audio_ends      (n,) int64, the place after an utterance's last sample
    tokens          (tokens,) int16
    token_ends      (n,) int64

A batch has, of every utterance, filled up to one number of samples and of labels:

    inputs          audio (batch, samples) float32, the stored integers, 0 where there is padding;
                    padding (batch, samples) float32, 1 where there is
    targets         labels (batch, labels) int32, 0 where there is padding; padding (batch, labels) float32
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from timetrial.data_loading.batches import selections
from timetrial.data_loading.prefetch import in_order
from timetrial.data_loading.prepared import Arrays
from timetrial.engine.facts import Batch, Order

KEYS = ("audio", "audio_ends", "tokens", "token_ends")
MOST_WORKERS = 4  # threads that make batches: one of 256 utterances of 20 s has 0.7 GB
Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """What every utterance of a batch is filled up to; none that is stored is longer."""

    samples: int
    labels: int


def shard_arrays(audio: Sequence[np.ndarray], tokens: Sequence[Sequence[int]]) -> Arrays:
    """A shard of these utterances."""
    labels = [np.array(one, np.int16) for one in tokens]
    return {
        "audio": np.concatenate([*audio, np.empty(0, np.int16)], dtype=np.int16),
        "audio_ends": np.cumsum([len(one) for one in audio], dtype=np.int64),
        "tokens": np.concatenate([*labels, np.empty(0, np.int16)]),
        "token_ends": np.cumsum([len(one) for one in labels], dtype=np.int64),
    }


class Utterances:
    """The utterances of some shards, memory-mapped; `order` says which, by their places in the shards joined."""

    def __init__(
        self, shards: Sequence[Mapping[str, np.ndarray]], lengths: Lengths, order: np.ndarray | None = None
    ) -> None:
        # Plain arrays: to slice a np.memmap costs ten times as much.
        self._audio = [np.asarray(shard["audio"]) for shard in shards]
        self._tokens = [np.array(shard["tokens"]) for shard in shards]
        self._lengths = lengths
        numbers = [len(shard["audio_ends"]) for shard in shards]
        # Of every utterance: its shard; where its samples begin and end; where its tokens do.
        self._at = np.empty((sum(numbers), 5), np.int64)
        self._at[:, 0] = np.repeat(np.arange(len(shards)), numbers)
        for column, key in ((1, "audio_ends"), (3, "token_ends")):
            ends = [np.array(shard[key]) for shard in shards]
            self._at[:, column] = np.concatenate([np.concatenate([[0], one])[:-1] for one in ends])
            self._at[:, column + 1] = np.concatenate(ends)
        if order is not None:
            self._at = self._at[order]

    def __len__(self) -> int:
        return len(self._at)

    def batch(self, indices: Sequence[int] | np.ndarray, batch_size: int) -> dict[str, Pair]:
        """`inputs` and `targets` of these utterances; rows beyond them are padding from their first entry on."""
        audio, audio_padding = _padded_rows(batch_size, self._lengths.samples, np.dtype(np.float32))
        labels, label_padding = _padded_rows(batch_size, self._lengths.labels, np.dtype(np.int32))
        for row, (shard, *ends) in enumerate(self._at[indices].tolist()):
            _copy(self._audio[shard][ends[0] : ends[1]], audio[row], audio_padding[row])
            _copy(self._tokens[shard][ends[2] : ends[3]], labels[row], label_padding[row])
        for row in range(len(indices), batch_size):
            audio_padding[row] = 1
            label_padding[row] = 1
        return {"inputs": (audio, audio_padding), "targets": (labels, label_padding)}

    def training_batches(self, order: Order) -> Iterator[Batch]:
        """Batches without end, made ahead in threads."""
        share = order.batch_size // order.world_size
        workers = max(1, min(MOST_WORKERS, len(os.sched_getaffinity(0)) // order.world_size))
        chosen = selections(len(self), order)
        return in_order(lambda one: self.batch(one.indices, share), chosen, workers, workers + 1)

    def evaluation_batches(self, batch_size: int) -> Iterable[Batch]:
        """Every utterance once, with `weights` (batch,) float32; the last batch filled up with rows of weight 0."""

        def make(first: int) -> Batch:
            indices = range(first, min(first + batch_size, len(self)))
            weights = np.zeros(batch_size, np.float32)
            weights[: len(indices)] = 1
            return {**self.batch(indices, batch_size), "weights": weights}

        return in_order(make, iter(range(0, len(self), batch_size)), 1, 2)


def _padded_rows(batch_size: int, length: int, dtype: np.dtype) -> Pair:
    """Values and padding, both 0: memory that is only touched where it is written or read."""
    return np.zeros((batch_size, length), dtype), np.zeros((batch_size, length), np.float32)


def _copy(values: np.ndarray, row: np.ndarray, padding: np.ndarray) -> None:
    row[: len(values)] = values
    padding[len(values) :] = 1
