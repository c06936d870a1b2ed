"""Points around class centres: generated data for a workload that trains in a second.

Every class has two centres, so that no linear model separates the classes; features differ in offset and
scale, so that normalisation matters.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from timetrial.data_loading.batches import padded_batches, selections
from timetrial.data_loading.prepared import Arrays, Side, open_arrays, prepare_once
from timetrial.engine.facts import Dataset, NumpyBatch, Order, Split

NAME = "clusters"
VERSION = 1
NUM_FEATURES = 32
NUM_CLASSES = 10
CENTRES_PER_CLASS = 2
NUM_TRAIN_EXAMPLES = 4096
NUM_EVAL_TRAIN_EXAMPLES = 250  # no multiple of a power of two, so that padding is always exercised
NUM_VALIDATION_EXAMPLES = 1000
NUM_TEST_EXAMPLES = 1000
NOISE = 1.2


def prepare(folder: Path, source: Path | None = None) -> None:
    """Generate the points; the same ones everywhere."""
    del source
    prepare_once(folder, NAME, VERSION, _generate)


def training_batches(folder: Path, order: Order) -> Iterator[NumpyBatch]:
    """`inputs` (batch, 32) float32 and `targets` (batch,) int32, without end."""
    arrays = dict(open_arrays(folder, "training", NAME, VERSION))
    for selection in selections(len(arrays["targets"]), order):
        yield {key: array[selection.indices] for key, array in arrays.items()}


def evaluation_batches(
    folder: Path, split: Split, batch_size: int, gpu: int | None = None
) -> Iterable[NumpyBatch]:
    """One split in storage order; `weights` as `padded_batches` gives them."""
    del gpu
    arrays = open_arrays(folder, "evaluation", NAME, VERSION)
    return padded_batches({key: arrays[f"{split}_{key}"] for key in ("inputs", "targets")}, batch_size)


def _generate() -> Mapping[Side, Arrays]:
    generator = np.random.Generator(np.random.Philox(0))
    num_points = NUM_TRAIN_EXAMPLES + NUM_VALIDATION_EXAMPLES + NUM_TEST_EXAMPLES
    centres = generator.normal(size=(NUM_CLASSES * CENTRES_PER_CLASS, NUM_FEATURES))
    scales, offsets = np.exp(generator.normal(size=(2, NUM_FEATURES)))
    which = generator.integers(len(centres), size=num_points)
    points = centres[which] + NOISE * generator.normal(size=(num_points, NUM_FEATURES)) / np.sqrt(2)
    inputs = (points * scales + offsets).astype(np.float32)
    targets = (which % NUM_CLASSES).astype(np.int32)

    first_test = NUM_TRAIN_EXAMPLES + NUM_VALIDATION_EXAMPLES
    ranges = {
        "eval_train": slice(0, NUM_EVAL_TRAIN_EXAMPLES),
        "validation": slice(NUM_TRAIN_EXAMPLES, first_test),
        "test": slice(first_test, num_points),
    }
    evaluation: dict[str, np.ndarray] = {}
    for split, rows in ranges.items():
        evaluation |= {f"{split}_inputs": inputs[rows], f"{split}_targets": targets[rows]}
    training = {"inputs": inputs[:NUM_TRAIN_EXAMPLES], "targets": targets[:NUM_TRAIN_EXAMPLES]}
    return {"training": training, "evaluation": evaluation}


DATASET = Dataset(
    name=NAME,
    version=VERSION,
    licence="generated on the machine; no third-party data",
    package="nothing: it is generated",
    owner_files=None,
    prepare=prepare,
    disk_need=lambda source: 1_000_000,
    training_batches=training_batches,
    evaluation_batches=evaluation_batches,
)
