"""Random crop after zero padding, and random mirroring: the augmentation of small images.

A pure function of (seed, epoch, example): the draws of an epoch are arrays over all examples, indexed by the
examples of a batch, so neither the batch size nor the number of ranks changes what an image looks like.
"""

from dataclasses import dataclass

import numpy as np

from timetrial.data_loading.batches import AUGMENTATION_STREAM, epoch_generator


@dataclass(frozen=True, kw_only=True)
class Draws:
    """What one epoch does to every example; each array is (num_examples,)."""

    top: np.ndarray  # first row of the crop, 0 to 2 * padding
    left: np.ndarray
    mirrored: np.ndarray  # bool


def draws(num_examples: int, padding: int, seed: int, epoch: int) -> Draws:
    """The draws of one epoch."""
    generator = epoch_generator(seed, epoch, AUGMENTATION_STREAM)
    top, left = generator.integers(2 * padding + 1, size=(2, num_examples))
    return Draws(top=top, left=left, mirrored=generator.random(num_examples) < 0.5)


def crop_and_flip(images: np.ndarray, indices: np.ndarray, epoch: Draws, padding: int) -> np.ndarray:
    """The augmented images `indices`, of the size that they have.

    images: (num_examples, height, width, channels), any dtype; indices: (batch,). Pixels outside are 0.
    """
    batch, (height, width, channels) = len(indices), images.shape[1:]
    padded = np.zeros((batch, height + 2 * padding, width + 2 * padding, channels), images.dtype)
    padded[:, padding : padding + height, padding : padding + width] = images[indices]
    rows = epoch.top[indices, None] + np.arange(height)
    columns = np.arange(width)
    columns = np.where(epoch.mirrored[indices, None], columns[::-1], columns) + epoch.left[indices, None]
    # One gather of whole pixels: their positions in the flattened batch.
    row_starts = (np.arange(batch)[:, None] * padded.shape[1] + rows) * padded.shape[2]
    pixels = row_starts[:, :, None] + columns[:, None, :]
    cropped: np.ndarray = padded.reshape(-1, channels).take(pixels, axis=0)
    return cropped
