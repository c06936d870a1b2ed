"""Mixup: every example of a training batch becomes a weighted mean of itself and the one before it.

One weight a batch, drawn from Beta(alpha, alpha), the same on all ranks; the partner of a row is the row before
it in the global batch, and of the first row the last (Zhang et al. 2018; AlgoPerf's imagenet_vit has alpha 0.2).
"""

import numpy as np

from timetrial.data_loading.batches import MIXUP_STREAM, epoch_generator

ALPHA = 0.2


def mixup_weight(seed: int, batch_number: int) -> np.float32:
    """The weight of a row itself in one batch; its partner has the rest."""
    return np.float32(epoch_generator(seed, batch_number, MIXUP_STREAM).beta(ALPHA, ALPHA))


def mixed(rows: np.ndarray, weight: np.float32) -> np.ndarray:
    """Rows (n + 1, ...) float32, of which the first is the one before the share, to the share mixed (n, ...)."""
    mixed_rows: np.ndarray = weight * rows[1:]
    mixed_rows += (1 - weight) * rows[:-1]
    return mixed_rows


def one_hot(classes: np.ndarray, num_classes: int) -> np.ndarray:
    """Integer classes (n,) to distributions (n, num_classes) float32."""
    rows: np.ndarray = np.eye(num_classes, dtype=np.float32)[classes]
    return rows
