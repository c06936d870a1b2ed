"""Uniform random numbers of single examples: a pure function of (seed, epoch, example).

A batch is a scattered handful of a million examples, so drawing an epoch's numbers as arrays would cost hundreds of
megabytes. Philox counts: its key stands for (seed, epoch) and a word of its counter for the example, so any example's
numbers are found at once, in whatever batch and on whatever rank it is.
"""

import numpy as np

from timetrial.data_loading.batches import AUGMENTATION_STREAM


def example_numbers(seed: int, epoch: int, examples: np.ndarray, count: int) -> np.ndarray:
    """`count` numbers in [0, 1) of each example: (n, count) float64."""
    key = np.random.SeedSequence((seed, epoch, AUGMENTATION_STREAM)).generate_state(2, np.uint64)
    philox = np.random.Philox(key=key)
    start = philox.state
    words = np.empty((len(examples), count), np.uint64)
    for row, example in zip(words, examples.tolist(), strict=True):
        start["state"]["counter"][:] = (0, example, 0, 0)
        philox.state = start
        row[:] = philox.random_raw(count)
    return (words >> np.uint64(11)) * 2.0**-53
