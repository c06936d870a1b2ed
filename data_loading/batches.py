"""Which examples a batch holds: the training order and the padded evaluation batches.

The training order is a pure function of (seed, epoch): one permutation of the examples per epoch, whose last
`num_examples % batch_size` entries are left out. Nothing is carried from batch to batch, so any batch can be
computed alone.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from timetrial.engine.errors import UsageError
from timetrial.engine.facts import NumpyBatch, Order

# Distinguishes the streams that one (seed, epoch) pair gives rise to.
ORDER_STREAM = 0
AUGMENTATION_STREAM = 1


def epoch_generator(seed: int, epoch: int, stream: int) -> np.random.Generator:
    """The random numbers of one epoch: equal arguments give equal numbers on every machine."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, epoch, stream))))


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The examples of one rank's share of one training batch."""

    epoch: int
    indices: np.ndarray  # (batch_size / world_size,) int64


def selections(num_examples: int, order: Order) -> Iterator[Selection]:
    """This rank's share of every global batch from `order.first_batch` on, without end.

    UsageError where one batch is larger than the dataset.
    """
    batches_per_epoch = num_examples // order.batch_size
    if batches_per_epoch == 0:
        raise UsageError(f"a batch of {order.batch_size} is larger than the {num_examples} training examples")
    share = order.batch_size // order.world_size
    epoch, batch = divmod(order.first_batch, batches_per_epoch)
    while True:
        permutation = epoch_generator(order.seed, epoch, ORDER_STREAM).permutation(num_examples)
        for start in range(batch, batches_per_epoch):
            first = start * order.batch_size + order.rank * share
            yield Selection(epoch=epoch, indices=permutation[first : first + share])
        epoch, batch = epoch + 1, 0


def padded_batches(arrays: Mapping[str, np.ndarray], batch_size: int) -> Iterable[NumpyBatch]:
    """All rows of `inputs` and `targets` once, in storage order.

    Every batch has the same keys, shapes and dtypes, so that a compiled program never sees a second shape:
    `weights` (float32, the shape of `targets`) is in all of them, and the last batch is filled up with zeros
    whose weight is 0.
    """
    num_examples = len(arrays["targets"])
    for first in range(0, num_examples, batch_size):
        rows = {key: np.asarray(array[first : first + batch_size]) for key, array in arrays.items()}
        rows["weights"] = np.ones(rows["targets"].shape, np.float32)
        missing = batch_size - len(rows["targets"])
        yield {key: _filled(array, missing) for key, array in rows.items()}


def _filled(array: np.ndarray, missing: int) -> np.ndarray:
    # A copy in any case: rows of a memory map are read-only, which torch does not support.
    return np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])
