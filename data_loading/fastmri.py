"""fastMRI's single-coil knees, 320 x 320 pixels: 34,742 slices to train with, 7,135 to evaluate.

Splits: the volumes of fastMRI's training files to train; of its validation files, in the order of their names, the
first 100 to validate and the other 99 to test. Its own test files have no images and are not read.

Stored are, on the training side, every slice's hybrid columns and target, since a mask differs from run to run;
on the evaluation side finished inputs and targets, since evaluated masks are fixed (`undersampling.py`). The
evaluated training slices are spread evenly, and masked as in a run of seed 0.

AlgoPerf shuffles in a buffer of 512 slices; here every epoch is a permutation.

Source: Zbontar et al., "fastMRI: an open dataset and benchmarks for accelerated MRI", arXiv 1811.08839; splits and
counts are those of AlgoPerf (arXiv 2306.07179).
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from timetrial.data_loading.batches import Selection, evenly_spread, padded_batches, selections
from timetrial.data_loading.fastmri_volumes import SIDE, Volume, read_slices, volumes_of
from timetrial.data_loading.parts import Part, given, prepare_parts
from timetrial.data_loading.prefetch import in_order
from timetrial.data_loading.prepared import Arrays, Side, StoredArrays, open_arrays
from timetrial.data_loading.undersampling import (
    MOST_EVALUATED_COLUMNS,
    Slice,
    batch_of,
    evaluation_columns,
    mask_key,
    training_columns,
)
from timetrial.engine.errors import DataError
from timetrial.engine.facts import Dataset, NumpyBatch, Order, Split

NAME = "fastmri"
VERSION = 1
OWNER_FILES = (
    "the folders knee_singlecoil_train and knee_singlecoil_val, extracted from fastMRI's .tar.xz archives"
)
EVAL_TRAIN_SEED = 0
KEYS = ("inputs", "targets", "mean", "std", "volume_max")  # of an evaluation shard
MOST_WORKERS = 8  # threads that make batches


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Volumes and slices per split."""

    train_volumes: int = 973
    train: int = 34_742
    eval_train: int = 3_584
    validation_volumes: int = 100
    validation: int = 3_554
    test_volumes: int = 99
    test: int = 3_581
    # Volumes: a shard of 16 has 0.8 GB, which a converting process holds in memory, and all shards of a side
    # can be open at the same time.
    per_shard: int = 16
    per_eval_train_shard: int = 160


SIZES = Sizes()


def prepare(folder: Path, source: Path | None = None) -> None:
    """Convert the owner's files in `source`, about 100 GB, to 56 GB of arrays, 16 volumes in each process.

    DataError where volumes or slices are missing or a file is not what it should be.
    """
    prepare_parts(folder, NAME, VERSION, lambda: parts(given(source, NAME, OWNER_FILES), SIZES))


def parts(source: Path, sizes: Sizes) -> list[Part]:
    """The conversion of all splits. DataError as `prepare`."""
    train = volumes_of(source, "train", sizes.train_volumes, sizes.train)
    held_out = volumes_of(
        source, "val", sizes.validation_volumes + sizes.test_volumes, sizes.validation + sizes.test
    )
    validation, test = held_out[: sizes.validation_volumes], held_out[sizes.validation_volumes :]
    found = sum(volume.num_slices for volume in validation)
    if found != sizes.validation:
        raise DataError(
            f"the first {len(validation)} validation volumes below {source} hold {found} slices, not {sizes.validation}"
        )
    for volume in held_out:
        if volume.width > MOST_EVALUATED_COLUMNS:
            raise DataError(
                f"{volume.path} has {volume.width} columns; evaluation masks are known for {MOST_EVALUATED_COLUMNS}"
            )
    return [
        *_parts("train", "training", train, sizes.per_shard, training_shard),
        *_eval_train_parts(train, sizes),
        *_parts("validation", "evaluation", validation, sizes.per_shard, held_out_shard),
        *_parts("test", "evaluation", test, sizes.per_shard, held_out_shard),
    ]


def disk_need(source: Path | None) -> int:
    """Bytes of all arrays if every volume had as many columns as can be evaluated; most have some 370."""
    del source
    image = SIDE * SIDE * np.dtype(np.float32).itemsize
    columns = MOST_EVALUATED_COLUMNS * SIDE * np.dtype(np.complex64).itemsize
    return SIZES.train * (columns + image) + (SIZES.eval_train + SIZES.validation + SIZES.test) * 2 * image


def _parts(
    split: str,
    side: Side,
    volumes: Sequence[Volume],
    per_shard: int,
    shard: Callable[[Sequence[Volume]], Arrays],
) -> Iterator[Part]:
    for number, first in enumerate(range(0, len(volumes), per_shard)):
        stretch = volumes[first : first + per_shard]
        num_bytes = sum(volume.num_bytes for volume in stretch)
        yield _part(f"{split}_{number:03}", side, num_bytes, partial(shard, stretch))


def _eval_train_parts(volumes: Sequence[Volume], sizes: Sizes) -> Iterator[Part]:
    evaluated = evenly_spread(sizes.train, sizes.eval_train, "the training part")
    begin = 0
    for number, first in enumerate(range(0, len(volumes), sizes.per_eval_train_shard)):
        stretch = volumes[first : first + sizes.per_eval_train_shard]
        end = begin + sum(volume.num_slices for volume in stretch)
        indices = evaluated[(evaluated >= begin) & (evaluated < end)]
        if len(indices):
            num_bytes = sum(volume.num_bytes for volume in stretch) * len(indices) // (end - begin)
            shard = partial(eval_train_shard, stretch, begin, indices)
            yield _part(f"eval_train_{number:03}", "evaluation", num_bytes, shard)
        begin = end


def _part(name: str, side: Side, num_bytes: int, shard: Callable[[], Arrays]) -> Part:
    """A part that is one shard."""
    return Part(name=name, side=side, num_bytes=num_bytes, convert=partial(_convert, name, shard))


def _convert(name: str, shard: Callable[[], Arrays], stored: frozenset[str]) -> Iterator[tuple[str, Arrays]]:
    if name not in stored:
        yield name, shard()


def training_shard(volumes: Sequence[Volume]) -> Arrays:
    """`columns` (columns of all slices, 320) complex64, slice after slice; `targets` (slices, 320, 320) float32;
    `widths` int64, how many columns a slice has, and `volume_max` float32, both (slices,).
    """
    counts = [volume.num_slices for volume in volumes]
    widths = np.repeat([volume.width for volume in volumes], counts)
    columns = np.empty((widths.sum(), SIDE), np.complex64)
    targets = np.empty((len(widths), SIDE, SIDE), np.float32)
    slices = (one for volume in volumes for one in read_slices(volume, range(volume.num_slices)))
    for row, (one, end) in enumerate(zip(slices, np.cumsum(widths), strict=True)):
        columns[end - widths[row] : end] = one.columns
        targets[row] = one.target
    volume_max = np.repeat(np.array([volume.volume_max for volume in volumes], np.float32), counts)
    return {"columns": columns, "targets": targets, "widths": widths, "volume_max": volume_max}


def eval_train_shard(volumes: Sequence[Volume], first: int, indices: np.ndarray) -> Arrays:
    """The training slices `indices`; the volumes' first one is slice `first` of the training set."""
    key = mask_key(EVAL_TRAIN_SEED)
    batches = []
    for volume in volumes:
        here = indices[(indices >= first) & (indices < first + volume.num_slices)]
        if len(here):
            kept = [training_columns(key, index, volume.width) for index in here.tolist()]
            batches.append(batch_of(list(read_slices(volume, (here - first).tolist())), kept))
        first += volume.num_slices
    return _joined(batches)


def held_out_shard(volumes: Sequence[Volume]) -> Arrays:
    """All slices of validation or test volumes."""
    batches = []
    for volume in volumes:
        kept = [evaluation_columns(volume.width)] * volume.num_slices
        batches.append(batch_of(list(read_slices(volume, range(volume.num_slices))), kept))
    return _joined(batches)


def _joined(batches: Sequence[Arrays]) -> NumpyBatch:
    return {key: np.concatenate([batch[key] for batch in batches]) for key in KEYS}


def training_batches(folder: Path, order: Order) -> Iterator[NumpyBatch]:
    """Batches as `batch_of` makes them, without end; a slice has the same mask in every epoch."""
    slices = TrainingSlices(open_arrays(folder, "training", NAME, VERSION))
    key = mask_key(order.seed)

    def make(selection: Selection) -> NumpyBatch:
        indices = selection.indices.tolist()
        chosen = [slices[index] for index in indices]
        kept = [
            training_columns(key, index, len(one.columns)) for index, one in zip(indices, chosen, strict=True)
        ]
        return batch_of(chosen, kept)

    workers = _workers(order.world_size)
    return in_order(make, selections(len(slices), order), workers, 2 * workers)


class TrainingSlices:
    """All training slices, memory-mapped."""

    def __init__(self, arrays: StoredArrays) -> None:
        shards = _shards(arrays, "train")
        self._columns = [np.asarray(arrays[f"{shard}.columns"]) for shard in shards]
        self._targets = [np.asarray(arrays[f"{shard}.targets"]) for shard in shards]
        # Of every slice: its shard and its number there, where its columns begin and end.
        self._at: list[tuple[int, int, int, int]] = []
        for shard, name in enumerate(shards):
            widths = np.array(arrays[f"{name}.widths"])
            ends = np.cumsum(widths)
            self._at += [
                (shard, row, int(end - width), int(end))
                for row, (width, end) in enumerate(zip(widths, ends, strict=True))
            ]
        self._volume_max = np.concatenate([arrays[f"{shard}.volume_max"] for shard in shards])

    def __len__(self) -> int:
        return len(self._at)

    def __getitem__(self, index: int) -> Slice:
        shard, row, begin, end = self._at[index]
        return Slice(
            columns=self._columns[shard][begin:end],
            target=self._targets[shard][row],
            volume_max=float(self._volume_max[index]),
        )


def evaluation_batches(
    folder: Path, split: Split, batch_size: int, gpu: int | None = None
) -> Iterable[NumpyBatch]:
    """One split by volume and slice, in batches as `batch_of` makes them with the `weights` of `padded_batches`."""
    del gpu
    arrays = open_arrays(folder, "evaluation", NAME, VERSION)
    shards = [{key: arrays[f"{shard}.{key}"] for key in KEYS} for shard in _shards(arrays, split)]
    ends = np.cumsum([len(shard["targets"]) for shard in shards]).tolist()

    def make(first: int) -> NumpyBatch:
        last = first + batch_size
        pieces = []
        for shard, end in zip(shards, ends, strict=True):
            begin = end - len(shard["targets"])
            if begin < last and first < end:
                rows = slice(max(first - begin, 0), last - begin)
                pieces.append({key: array[rows] for key, array in shard.items()})
        (batch,) = padded_batches(_joined(pieces), batch_size)
        return batch

    return in_order(make, iter(range(0, ends[-1], batch_size)), min(_workers(1), 4), 4)


def _shards(arrays: StoredArrays, split: str) -> list[str]:
    """The names of a split's shards, in order."""
    names = {key.rpartition(".")[0] for key in arrays}
    return sorted(name for name in names if name.rpartition("_")[0] == split)


def _workers(world_size: int) -> int:
    """Threads for one of `world_size` ranks, which share this machine's cores."""
    return max(1, min(MOST_WORKERS, len(os.sched_getaffinity(0)) // world_size))


DATASET = Dataset(
    name=NAME,
    version=VERSION,
    licence=(
        "fastMRI (NYU Langone Health), by its data use agreement: research and education, no redistribution; "
        "obtained by the user from its owner"
    ),
    package=None,
    owner_files=OWNER_FILES,
    prepare=prepare,
    disk_need=disk_need,
    training_batches=training_batches,
    evaluation_batches=evaluation_batches,
)
