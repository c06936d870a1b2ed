"""Which examples a batch holds: the training order and the padded evaluation batches.

The training order is a pure function of (seed, epoch): one permutation of the examples per epoch, whose last
`num_examples % batch_size` entries are left out. Nothing is carried from batch to batch, so any batch can be
computed alone.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from timetrial.engine.errors import DataError, UsageError
from timetrial.engine.facts import NumpyBatch, Order

# Distinguishes the streams that one (seed, epoch) pair gives rise to.
ORDER_STREAM = 0
AUGMENTATION_STREAM = 1
MIXUP_STREAM = 2


def epoch_generator(seed: int, epoch: int, stream: int) -> np.random.Generator:
    """The random numbers of one epoch: equal arguments give equal numbers on every machine."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, epoch, stream))))


def evenly_spread(num_examples: int, count: int, where: str) -> np.ndarray:
    """`count` of the examples 0, 1, ..., spread evenly over all, ascending: (count,) int64.

    DataError, which names `where` they are, if there are fewer.
    """
    if num_examples < count:
        raise DataError(f"{where} has {num_examples} examples to choose {count} from")
    return np.arange(count) * num_examples // count


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The examples of one rank's share of one training batch."""

    number: int  # of the batch, from 0 on
    epoch: int
    indices: np.ndarray  # (batch_size / world_size,) int64
    previous: int  # the example before this share in the global batch, whose last comes before its first


def selections(num_examples: int, order: Order) -> Iterator[Selection]:
    """This rank's share of every global batch from `order.first_batch` on, without end.

    UsageError where one batch is larger than the dataset.
    """
    batches_per_epoch = num_examples // order.batch_size
    if batches_per_epoch == 0:
        raise UsageError(f"a batch of {order.batch_size} is larger than the {num_examples} training examples")
    share = order.batch_size // order.world_size
    number = order.first_batch
    epoch, batch = divmod(number, batches_per_epoch)
    while True:
        permutation = epoch_generator(order.seed, epoch, ORDER_STREAM).permutation(num_examples)
        for start in range(batch, batches_per_epoch):
            rows = permutation[start * order.batch_size : (start + 1) * order.batch_size]
            first = order.rank * share
            yield Selection(
                number=number,
                epoch=epoch,
                indices=rows[first : first + share],
                previous=int(rows[first - 1]),
            )
            number += 1
        epoch, batch = epoch + 1, 0


def padded_batches(
    arrays: Mapping[str, np.ndarray], batch_size: int, *, per_token: bool = False
) -> Iterable[NumpyBatch]:
    """All rows of the arrays once, in storage order.

    Every batch has the same keys, shapes and dtypes, so that a compiled program never sees a second shape:
    `weights` (float32; one for each row, or for each entry of `targets` where these are tokens) is in all of
    them, and the last batch is filled up with zeros whose weight is 0.
    """
    num_examples = len(arrays["targets"])
    for first in range(0, num_examples, batch_size):
        rows = {key: np.asarray(array[first : first + batch_size]) for key, array in arrays.items()}
        targets = rows["targets"]
        rows["weights"] = np.ones(targets.shape if per_token else len(targets), np.float32)
        missing = batch_size - len(targets)
        yield {key: _filled(array, missing) for key, array in rows.items()}


def _filled(array: np.ndarray, missing: int) -> np.ndarray:
    # A copy in any case: rows of a memory map are read-only, which torch does not support.
    return np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])
