"""RandAugment's draws: two of sixteen operations an image, at fixed strength, with a random sign.

(Cubuk et al. 2020, "RandAugment: practical automated data augmentation with a reduced search space".) Operations and
strengths are those of AlgoPerf's imagenet_vit. Its two frameworks differ in places; here

- solarizing inverts values from 256 on, of which there are none: the image stays as it is;
- contrast is about the mean of the image, not about a constant;
- cutting out fills the square of 80 x 80 pixels about a uniform centre, as far as it lies in the image.

`rand_augment_dali.py` has the operations.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

SIDE = 224  # pixels of the images
OPERATIONS_PER_IMAGE = 2  # drawn with replacement, done one after the other
NUMBERS = (
    4 * OPERATIONS_PER_IMAGE
)  # random numbers an image: per operation which, sign, cutout row and column

DEGREES = 30.0
SHEAR = 0.3  # pixels aside per pixel down, or down per pixel aside; the first row or column stays
TRANSLATION = 100  # pixels
FACTOR = 1.9  # of colour, contrast, brightness and sharpness; 1 is the image itself
POSTERIZE_BITS = 4  # kept of 8
SOLARIZE_ADD, SOLARIZE_BELOW = 110, 128
CUTOUT_HALF = 40  # pixels
FILL = 128  # where an operation looks outside of the image, and in what is cut out


class Operation(IntEnum):
    """What may be done to an image; the first five are affine maps."""

    ROTATE = 0
    SHEAR_X = 1
    SHEAR_Y = 2
    TRANSLATE_X = 3
    TRANSLATE_Y = 4
    AUTO_CONTRAST = 5
    EQUALIZE = 6
    INVERT = 7
    POSTERIZE = 8
    SOLARIZE = 9
    SOLARIZE_ADD = 10
    COLOR = 11
    CONTRAST = 12
    BRIGHTNESS = 13
    SHARPNESS = 14
    CUTOUT = 15


LAST_AFFINE = Operation.TRANSLATE_Y


@dataclass(frozen=True, kw_only=True)
class Round:
    """One operation for each of n images."""

    operations: np.ndarray  # (n,) int32, values of `Operation`
    matrices: (
        np.ndarray
    )  # (n, 2, 3) float32, from output to input (x, y); identity unless the operation is affine
    cutouts: np.ndarray  # (n, 4) float32: top, left, height, width of the patch that cutout fills


def rounds(numbers: np.ndarray) -> tuple[Round, ...]:
    """What is done to n images, in order, from `numbers` (n, 8) in [0, 1)."""
    return tuple(_round(numbers[:, first : first + 4]) for first in range(0, NUMBERS, 4))


def _round(numbers: np.ndarray) -> Round:
    operations = (numbers[:, 0] * len(Operation)).astype(np.int32)
    signs = np.where(numbers[:, 1] < 0.5, -1.0, 1.0)
    centres = (numbers[:, 2:] * SIDE).astype(np.int32)
    return Round(operations=operations, matrices=affine_matrices(operations, signs), cutouts=cutouts(centres))


def affine_matrices(operations: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """Where an output's pixel (x, y) is found in the input, for n operations with their signs: (n, 2, 3) float32.

    The corner of the first pixel is (0, 0). Rotation is about the image's centre.
    """
    matrices = np.tile(np.eye(2, 3), (len(operations), 1, 1))
    matrices[:, 0, 1] = np.where(operations == Operation.SHEAR_X, signs * SHEAR, 0)
    matrices[:, 1, 0] = np.where(operations == Operation.SHEAR_Y, signs * SHEAR, 0)
    matrices[:, 0, 2] = np.where(operations == Operation.TRANSLATE_X, signs * TRANSLATION, 0)
    matrices[:, 1, 2] = np.where(operations == Operation.TRANSLATE_Y, signs * TRANSLATION, 0)
    rotated = operations == Operation.ROTATE
    matrices[rotated] = rotations(signs[rotated] * DEGREES)
    return matrices.astype(np.float32)


def rotations(degrees: np.ndarray) -> np.ndarray:
    """The matrices (n, 2, 3) of rotations about the image's centre."""
    angles = np.deg2rad(degrees)
    cosines, sines = np.cos(angles), np.sin(angles)
    centre = SIDE / 2
    return np.stack(
        [
            np.stack([cosines, -sines, centre * (1 - cosines + sines)], axis=1),
            np.stack([sines, cosines, centre * (1 - sines - cosines)], axis=1),
        ],
        axis=1,
    )


def cutouts(centres: np.ndarray) -> np.ndarray:
    """The patches (n, 4) about `centres` (n, 2), rows and columns, cut off at the image's borders."""
    first = np.maximum(centres - CUTOUT_HALF, 0)
    last = np.minimum(centres + CUTOUT_HALF, SIDE)
    return np.concatenate([first, last - first], axis=1).astype(np.float32)
