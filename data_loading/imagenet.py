"""ImageNet: 1.3 million photographs in 1,000 classes, and ImageNet-V2's 10,000 to test on.

Converted once from the owners' files (`imagenet_sources.py`): the encoded images as they are, one after the other in
shards. A shard's arrays are `bytes` (bytes of all files,) uint8, `offsets` (n + 1,) int64 where each file begins,
`sizes` (n, 2) int32, heights and widths, and `labels` (n,) int32, places among the sorted class names. Splits:
ILSVRC2012's training images to train, of which a fixed, evenly spread part is evaluated too; its validation images;
ImageNet-V2's matched-frequency images to test. Every file is checked to be whole (`encoded_image.py`).

Training: one permutation an epoch, random window, random mirroring, for vision transformers RandAugment and mixup.
Evaluating: the middle. All through one pipeline (`images_dali.py`), which AlgoPerf has two of; of their differences
this takes the permutation, the antialiased bilinear resizing and the uint8 values of its PyTorch version, for the
test images too, and the evaluated square of its JAX version.

Source: Russakovsky et al. 2015, "ImageNet large scale visual recognition challenge"; Recht et al. 2019, "Do ImageNet
classifiers generalize to ImageNet?".
"""

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from timetrial.data_loading.batches import Selection, evenly_spread, selections
from timetrial.data_loading.crop_window import NUMBERS as WINDOW_NUMBERS
from timetrial.data_loading.crop_window import evaluation_windows, random_windows
from timetrial.data_loading.example_numbers import example_numbers
from timetrial.data_loading.imagenet_parts import Counts, parts
from timetrial.data_loading.mixup import mixed, mixup_weight, one_hot
from timetrial.data_loading.parts import given, prepare_parts
from timetrial.data_loading.prepared import StoredArrays, open_arrays
from timetrial.data_loading.rand_augment import NUMBERS as RAND_AUGMENT_NUMBERS
from timetrial.data_loading.rand_augment import rounds
from timetrial.engine.errors import UsageError
from timetrial.engine.facts import Dataset, NumpyBatch, Order, Split

if TYPE_CHECKING:
    from timetrial.data_loading.images_dali import Feed

NAME = "imagenet"
VERSION = 1
NUM_CLASSES = 1_000
OWNER_FILES = (
    "ILSVRC2012_img_train.tar or train/, ILSVRC2012_img_val.tar with ILSVRC2012_devkit_t12.tar.gz or val/, and "
    "imagenetv2-matched-frequency.tar.gz or imagenetv2-matched-frequency-format-val/"
)
NUM_BYTES = 156_000_000_000  # of the three archives, which are what the shards are
# Columns of an example's random numbers; a window does not depend on what else is done to the image.
MIRROR = WINDOW_NUMBERS
RAND_AUGMENT = slice(MIRROR + 1, MIRROR + 1 + RAND_AUGMENT_NUMBERS)


def prepare(folder: Path, source: Path | None = None, counts: Counts | None = None) -> None:
    """Convert the owners' files in `source` to shards of the same size, 156 GB, one in each process at a time.

    DataError where images are missing, too many or not whole.
    """
    wanted = counts or Counts()
    prepare_parts(folder, NAME, VERSION, lambda: parts(given(source, NAME, OWNER_FILES), wanted))


class StoredImages:
    """The images of a stored split, by their place in it."""

    def __init__(self, arrays: StoredArrays, split: str) -> None:
        ending = ".bytes"
        shards = sorted(
            key.removesuffix(ending) for key in arrays if key.startswith(f"{split}_") and key.endswith(ending)
        )
        # Plain arrays over the maps: a slice of a map itself costs several times as much.
        self._files = [np.asarray(arrays[shard + ending]) for shard in shards]
        offsets = [np.array(arrays[f"{shard}.offsets"]) for shard in shards]
        self._shards = np.repeat(np.arange(len(shards)), [len(own) - 1 for own in offsets])
        self._begins = np.concatenate([own[:-1] for own in offsets])
        self._ends = np.concatenate([own[1:] for own in offsets])
        self.sizes = np.concatenate([arrays[f"{shard}.sizes"] for shard in shards])
        self.labels = np.concatenate([arrays[f"{shard}.labels"] for shard in shards])

    def __len__(self) -> int:
        return len(self.labels)

    def encoded(self, indices: np.ndarray) -> list[np.ndarray]:
        """The files of these images, uint8, as views of the maps."""
        where = zip(
            self._shards[indices].tolist(),
            self._begins[indices].tolist(),
            self._ends[indices].tolist(),
            strict=True,
        )
        return [self._files[shard][begin:end] for shard, begin, end in where]


def training_batches(folder: Path, order: Order) -> Iterator[NumpyBatch]:
    """`inputs` (batch, 224, 224, 3) float32, cropped, mirrored and normalised, and `targets` (batch,) int32."""
    images = StoredImages(open_arrays(folder, "training", NAME, VERSION), "train")
    for_inputs, for_targets = tee(selections(len(images), order))
    feeds = (
        _drawn(images, order.seed, selection.epoch, selection.indices, rand_augment=False)
        for selection in for_inputs
    )
    share = order.batch_size // order.world_size
    inputs = _pixels(feeds, share, order.gpu, mirror=True)
    for selection, pixels in zip(for_targets, inputs, strict=False):
        yield {"inputs": pixels, "targets": images.labels[selection.indices]}


def mixed_training_batches(folder: Path, order: Order) -> Iterator[NumpyBatch]:
    """The same with RandAugment and mixup: `targets` (batch, 1000) float32 are distributions."""
    images = StoredImages(open_arrays(folder, "training", NAME, VERSION), "train")
    for_inputs, for_targets = tee(selections(len(images), order))
    joined = order.world_size > 1
    feeds = (_drawn_for_mixup(images, order.seed, selection, joined) for selection in for_inputs)
    share = order.batch_size // order.world_size
    inputs = _pixels(feeds, share, order.gpu, mirror=True, rand_augment=True, mixup=True, joined=joined)
    for selection, pixels in zip(for_targets, inputs, strict=False):
        labels = images.labels[np.concatenate([[selection.previous], selection.indices])]
        weight = mixup_weight(order.seed, selection.number)
        yield {"inputs": pixels, "targets": mixed(one_hot(labels, NUM_CLASSES), weight)}


def evaluation_batches(
    folder: Path, split: Split, batch_size: int, gpu: int | None = None, *, num_eval_train: int
) -> Iterable[NumpyBatch]:
    """One split in storage order, the middle of every image; a last batch is filled up with zeros of weight 0."""
    if split == "eval_train":
        images = StoredImages(open_arrays(folder, "training", NAME, VERSION), "train")
        indices = evenly_spread(len(images), num_eval_train, "the training part")
    else:
        images = StoredImages(open_arrays(folder, "evaluation", NAME, VERSION), split)
        indices = np.arange(len(images))
    begins = range(0, len(indices), batch_size)
    # Rows of padding are any image times 0.
    padded = np.pad(indices, (0, len(begins) * batch_size - len(indices)), mode="edge").reshape(
        -1, batch_size
    )
    weights = (np.arange(padded.size) < len(indices)).astype(np.float32).reshape(padded.shape)
    feeds = (
        _described(images, rows, evaluation_windows(images.sizes[rows])) | {"weights": own}
        for rows, own in zip(padded, weights, strict=True)
    )
    inputs = _pixels(feeds, batch_size, gpu, padding=True)
    for rows, own, pixels in zip(padded, weights, inputs, strict=True):
        targets = np.where(own > 0, images.labels[rows], 0)
        yield {"inputs": pixels, "targets": targets, "weights": own}


def _drawn(images: StoredImages, seed: int, epoch: int, indices: np.ndarray, *, rand_augment: bool) -> "Feed":
    """Training images with what is drawn for them in this epoch."""
    numbers = example_numbers(seed, epoch, indices, RAND_AUGMENT.stop)
    windows = random_windows(images.sizes[indices], numbers[:, :WINDOW_NUMBERS])
    feed = _described(images, indices, windows) | {"mirrored": (numbers[:, MIRROR] < 0.5).astype(np.int32)}
    if rand_augment:
        for number, drawn in enumerate(rounds(numbers[:, RAND_AUGMENT])):
            feed |= {
                f"operations_{number}": drawn.operations,
                f"matrices_{number}": drawn.matrices,
                f"cutouts_{number}": drawn.cutouts,
            }
    return feed


def _drawn_for_mixup(images: StoredImages, seed: int, selection: Selection, joined: bool) -> "Feed":
    share = len(selection.indices)
    feed = {
        **_drawn(images, seed, selection.epoch, selection.indices, rand_augment=True),
        "weights": np.full(share, mixup_weight(seed, selection.number)),
    }
    if joined:
        previous = _drawn(images, seed, selection.epoch, np.array([selection.previous]), rand_augment=True)
        for name, rows in previous.items():
            feed[f"previous_{name}"] = (
                rows * share if isinstance(rows, list) else np.repeat(rows, share, axis=0)
            )
        feed["is_first"] = np.arange(share) == 0
    return feed


def _described(images: StoredImages, indices: np.ndarray, windows: np.ndarray) -> dict[str, Any]:
    return {
        "encoded": images.encoded(indices),
        "corners": np.ascontiguousarray(windows[:, :2]),
        "extents": np.ascontiguousarray(windows[:, 2:]),
    }


def _pixels(feeds: Iterator["Feed"], batch_size: int, gpu: int | None, **steps: bool) -> Iterator[Any]:
    # Imported here, for the pages name this file and must do without DALI. UsageError where it is missing.
    try:
        from timetrial.data_loading import images_dali
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("nvidia"):
            raise
        raise UsageError(
            "ImageNet's images are read by NVIDIA DALI, which is not installed; install timetrial[full]"
        ) from error
    return images_dali.pixels(feeds, images_dali.Steps(**steps), batch_size, gpu)


def _dataset(training: Any, num_eval_train: int) -> Dataset:
    return Dataset(
        name=NAME,
        version=VERSION,
        licence=(
            "ILSVRC2012, for non-commercial research and education under the terms of its owners, who give it to "
            "those who register; ImageNet-V2, MIT licence"
        ),
        package=None,
        owner_files=OWNER_FILES,
        prepare=prepare,
        disk_need=lambda source: NUM_BYTES,
        training_batches=training,
        evaluation_batches=partial(evaluation_batches, num_eval_train=num_eval_train),
    )


RESNET_DATASET = _dataset(training_batches, num_eval_train=50_176)
VIT_DATASET = _dataset(mixed_training_batches, num_eval_train=51_200)
