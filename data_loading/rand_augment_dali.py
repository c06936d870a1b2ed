"""RandAugment's operations as a DALI graph, the same on the CPU and on a GPU.

Each operation runs on those samples of a batch that drew it. Images are uint8, HWC, RGB. Values that an operation
scales are cut off to whole numbers, as Pillow and TensorFlow do. Equalizing divides exactly where those two divide by
a step rounded down to a whole number of pixels; on photographs they differ by a level at most.
"""

from collections.abc import Callable

import numpy as np
from nvidia.dali import fn
from nvidia.dali.data_node import DataNode
from nvidia.dali.types import Constant, DALIDataType, DALIImageType, DALIInterpType

from timetrial.data_loading.rand_augment import (
    FACTOR,
    FILL,
    LAST_AFFINE,
    POSTERIZE_BITS,
    SIDE,
    SOLARIZE_ADD,
    SOLARIZE_BELOW,
    Operation,
)

# Rounding a number less this is cutting off its fraction, as long as its fraction is a whole number of tenths.
ALMOST_HALF = 0.4999
KEPT_BITS = np.uint8(256 - 2 ** (8 - POSTERIZE_BITS))
SMOOTHING = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13


# A batch of one array; arrays that are given to an operator as they are cannot be used in a conditional.
constant: Callable[..., DataNode] = Constant


def augmented(
    images: DataNode, operation: DataNode, matrix: DataNode, cutout: DataNode, device: str
) -> DataNode:
    """One operation of each image, whose parameters are scalars or rows of a `Round`, on the CPU.

    To be called where a pipeline with conditionals enabled is defined.
    """
    if operation <= int(LAST_AFFINE):
        images = fn.warp_affine(images, matrix=matrix, interp_type=DALIInterpType.INTERP_NN, fill_value=FILL)
    elif operation == int(Operation.AUTO_CONTRAST):
        images = _auto_contrast(images)
    elif operation == int(Operation.EQUALIZE):
        images = _equalized(images)
    elif operation == int(Operation.INVERT):
        images = _inverted(images)
    elif operation == int(Operation.POSTERIZE):
        images = images & KEPT_BITS
    elif operation == int(Operation.SOLARIZE_ADD):
        images = images + (images < SOLARIZE_BELOW) * np.uint8(SOLARIZE_ADD)
    elif operation == int(Operation.COLOR):
        images = _away_from(_grey(images), images)
    elif operation == int(Operation.CONTRAST):
        images = _away_from(_mean_grey(images), images)
    elif operation == int(Operation.BRIGHTNESS):
        images = fn.brightness(images, brightness=FACTOR, brightness_shift=-ALMOST_HALF / 255)
    elif operation == int(Operation.SHARPNESS):
        images = _sharpened(images, device)
    elif operation == int(Operation.CUTOUT):
        images = fn.erase(images, anchor=cutout[:2], shape=cutout[2:], axis_names="HW", fill_value=FILL)
    return images  # solarizing from 256 on leaves it as it is


def _auto_contrast(images: DataNode) -> DataNode:
    """Each channel stretched so that its least value becomes 0 and its greatest 255; as it is if they are equal."""
    least = fn.cast(fn.reductions.min(images, axes=(0, 1), keep_dims=True), dtype=DALIDataType.FLOAT)
    greatest = fn.cast(fn.reductions.max(images, axes=(0, 1), keep_dims=True), dtype=DALIDataType.FLOAT)
    flat = fn.cast(least == greatest, dtype=DALIDataType.FLOAT)
    scale = flat + (1 - flat) * 255.0 / (greatest - least + flat)
    shift = (1 - flat) * least * scale + ALMOST_HALF
    return fn.cast(images * scale - shift, dtype=DALIDataType.UINT8)


def _equalized(images: DataNode) -> DataNode:
    """Each channel's values v mapped to 255 (pixels below v) / (pixels below its greatest value), rounded.

    The operator maps to 255 (pixels up to v and above the least) / (pixels above the least), so it is given the
    negative, where below and above change places.
    """
    return _inverted(fn.equalize(_inverted(images)))


def _inverted(images: DataNode) -> DataNode:
    return images ^ np.uint8(255)


def _away_from(degenerate: DataNode, images: DataNode) -> DataNode:
    """Nearly twice as far from the degenerate image (uint8 or a scalar), cut off to whole numbers."""
    moved = images * FACTOR - (degenerate * (FACTOR - 1) + ALMOST_HALF)
    return fn.cast(moved, dtype=DALIDataType.UINT8)


def _grey(images: DataNode) -> DataNode:
    """Luminance (ITU-R 601), rounded, in three equal channels."""
    grey = fn.color_space_conversion(images, image_type=DALIImageType.RGB, output_type=DALIImageType.GRAY)
    return fn.color_space_conversion(grey, image_type=DALIImageType.GRAY, output_type=DALIImageType.RGB)


def _mean_grey(images: DataNode) -> DataNode:
    """The mean luminance, rounded: a scalar."""
    grey = fn.color_space_conversion(images, image_type=DALIImageType.RGB, output_type=DALIImageType.GRAY)
    return fn.cast(fn.reductions.mean(grey), dtype=DALIDataType.INT32)


def _sharpened(images: DataNode, device: str) -> DataNode:
    """Nearly twice as far from the smoothed image, rounded; the outermost pixels stay as they are."""
    kernel = (1 - FACTOR) * SMOOTHING
    kernel[1, 1] += FACTOR
    inner = fn.filter(images, constant(kernel, device=device), mode="valid")
    corners = constant(np.array([[0, 0], [1, 1]], np.int32), device="cpu")
    return fn.multi_paste(images, inner, out_anchors=corners, output_size=(SIDE, SIDE))
