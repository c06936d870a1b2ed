"""Encoded photographs to batches of normalised pixels, as one DALI pipeline on the CPU or on a GPU.

Each image is decoded in its window alone, resized to 224 x 224 with an antialiased triangular filter, perhaps
mirrored and augmented, and normalised. Nothing here draws a random number: windows and augmentations come with the
images, so a batch depends on what is fed and not on threads, batch size or device.

A JPEG's chroma is upsampled by interpolation on both devices, EXIF orientation is ignored, and grey or CMYK images
become RGB.
"""

import os
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from nvidia.dali import fn
from nvidia.dali.data_node import DataNode
from nvidia.dali.pipeline import pipeline_def
from nvidia.dali.types import DALIDataType, DALIInterpType

from timetrial.data_loading.rand_augment import OPERATIONS_PER_IMAGE, SIDE
from timetrial.data_loading.rand_augment_dali import augmented

# Of ImageNet's values in 0 to 1, per channel (AlgoPerf's imagenet workloads).
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
QUEUE_DEPTH = 2  # batches: the one that is used and the one that is made meanwhile

# One batch by input name. `encoded` is a list of n uint8 arrays; all others have n rows.
Feed = Mapping[str, list[np.ndarray] | np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Steps:
    """What is done to images beyond decoding, resizing and normalising; it says which inputs are fed.

    Always: `encoded`, and `corners` and `extents` (n, 2) int32 of the windows, rows before columns. With `mirror`:
    `mirrored` (n,) int32, 0 or 1. With `rand_augment`: of each round r, as in `rand_augment.Round`, `operations_r`
    (n,) int32, `matrices_r` (n, 2, 3) float32 and `cutouts_r` (n, 4) float32.

    With `padding`: `weights` (n,) float32, by which every image is multiplied; 0 makes a row of padding. With
    `mixup`: `weights` of an image, and the image before it in the batch has the rest. The one before the first is
    the last; or, with `joined`, it is fed, for the batch is a share of a larger one: `is_first` (n,) bool, and all
    of an image's inputs once more as `previous_NAME`, of which only the first row is used.
    """

    mirror: bool = False
    rand_augment: bool = False
    mixup: bool = False
    joined: bool = False
    padding: bool = False


@dataclass(frozen=True, kw_only=True)
class Input:
    """How an input is declared to DALI."""

    dtype: DALIDataType
    num_axes: int  # of one row


def image_inputs(steps: Steps) -> dict[str, Input]:
    """The inputs that describe one image."""
    inputs = {
        "encoded": Input(dtype=DALIDataType.UINT8, num_axes=1),
        "corners": Input(dtype=DALIDataType.INT32, num_axes=1),
        "extents": Input(dtype=DALIDataType.INT32, num_axes=1),
    }
    if steps.mirror:
        inputs["mirrored"] = Input(dtype=DALIDataType.INT32, num_axes=0)
    if steps.rand_augment:
        for number in range(OPERATIONS_PER_IMAGE):
            inputs[f"operations_{number}"] = Input(dtype=DALIDataType.INT32, num_axes=0)
            inputs[f"matrices_{number}"] = Input(dtype=DALIDataType.FLOAT, num_axes=2)
            inputs[f"cutouts_{number}"] = Input(dtype=DALIDataType.FLOAT, num_axes=1)
    return inputs


def all_inputs(steps: Steps) -> dict[str, Input]:
    """The inputs of a pipeline."""
    inputs = image_inputs(steps)
    if steps.joined:
        inputs |= {f"previous_{name}": given for name, given in inputs.items()}
        inputs["is_first"] = Input(dtype=DALIDataType.BOOL, num_axes=0)
    if steps.mixup or steps.padding:
        inputs["weights"] = Input(dtype=DALIDataType.FLOAT, num_axes=0)
    return inputs


def pixels(feeds: Iterator[Feed], steps: Steps, batch_size: int, gpu: int | None) -> Iterator[Any]:
    """The batch (batch_size, 224, 224, 3) float32 of every feed, in order; one more is made while one is used.

    NumPy arrays where `gpu` is None, else DALI tensors on that GPU. They stay valid for as long as they are kept.
    """
    names = list(all_inputs(steps))
    under_way: deque[Feed] = deque()  # DALI reads from the arrays themselves: they must live until then

    def rows() -> Iterator[list[list[np.ndarray] | np.ndarray]]:
        for feed in feeds:
            under_way.append(feed)
            yield [feed[name] for name in names]

    pipeline = _pipeline(
        rows(),
        steps,
        batch_size,
        gpu,
        batch_size=batch_size,
        num_threads=len(os.sched_getaffinity(0)),
        device_id=gpu,
        prefetch_queue_depth=QUEUE_DEPTH,
        enable_conditionals=True,
    )
    try:
        while True:
            (images,) = pipeline.run()
            under_way.popleft()
            tensor = images.as_tensor()
            yield np.asarray(tensor) if gpu is None else tensor
    except StopIteration:  # there is no feed left
        return
    finally:
        del pipeline  # before what is under way: it may be at work on that


@pipeline_def
def _pipeline(
    rows: Iterator[list[list[np.ndarray] | np.ndarray]], steps: Steps, size: int, gpu: int | None
) -> DataNode:
    declared = all_inputs(steps)
    nodes = fn.external_source(
        source=rows,
        num_outputs=len(declared),
        dtype=[given.dtype for given in declared.values()],
        ndim=[given.num_axes for given in declared.values()],
        no_copy=True,
    )
    inputs = {name: nodes[position] for position, name in enumerate(declared)}
    device = "cpu" if gpu is None else "gpu"
    images = _normalised(_prepared({name: inputs[name] for name in image_inputs(steps)}, steps, device))
    if not (steps.mixup or steps.padding):
        return images
    weights = inputs["weights"] if gpu is None else inputs["weights"].gpu()
    if steps.padding:
        return images * weights
    before = fn.permute_batch(images, indices=[size - 1, *range(size - 1)])
    if steps.joined:
        before = _first_replaced(before, inputs, steps, device)
    return images * weights + before * (1.0 - weights)


def _prepared(inputs: Mapping[str, DataNode], steps: Steps, device: str) -> DataNode:
    """Images (224, 224, 3) uint8."""
    windows = fn.decoders.image_slice(
        inputs["encoded"],
        start=inputs["corners"],
        shape=inputs["extents"],
        axis_names="HW",
        device="cpu" if device == "cpu" else "mixed",
        adjust_orientation=False,
        jpeg_fancy_upsampling=True,
    )
    resized = fn.resize(
        windows, size=(SIDE, SIDE), interp_type=DALIInterpType.INTERP_TRIANGULAR, antialias=True
    )
    images = cast(DataNode, resized)  # more than one node only where its sizes are asked for
    if steps.mirror:
        images = fn.flip(images, horizontal=inputs["mirrored"])
    if steps.rand_augment:
        for number in range(OPERATIONS_PER_IMAGE):
            images = augmented(
                images,
                inputs[f"operations_{number}"],
                inputs[f"matrices_{number}"],
                inputs[f"cutouts_{number}"],
                device,
            )
    return images


def _normalised(images: DataNode) -> DataNode:
    return fn.crop_mirror_normalize(
        images,
        mean=[255 * mean for mean in MEAN],
        std=[255 * std for std in STD],
        dtype=DALIDataType.FLOAT,
        output_layout="HWC",
    )


def _first_replaced(before: DataNode, inputs: Mapping[str, DataNode], steps: Steps, device: str) -> DataNode:
    if inputs["is_first"]:
        previous = {name: inputs[f"previous_{name}"] for name in image_inputs(steps)}
        before = _normalised(_prepared(previous, steps, device))
    return before
