"""CIFAR-10 as its owner ships it: cifar-10-binary.tar.gz or cifar-10-python.tar.gz.

The binary version holds records of one label byte and 3,072 pixel bytes (1,024 red, 1,024 green, 1,024 blue, each
in row order). The Python version holds the same as pickled dictionaries; they are read by an unpickler that can
build NumPy arrays and nothing else. Source: the dataset's own page (Krizhevsky 2009).
"""

import io
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from timetrial.engine.errors import DataError

SIDE = 32  # pixels
PIXEL_BYTES = 3 * SIDE * SIDE
NUM_CLASSES = 10

Labelled = tuple[np.ndarray, np.ndarray]  # pixels (n, 32, 32, 3) uint8, classes (n,) int32


@dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """Both parts of the dataset, in the owner's order."""

    train: Labelled
    test: Labelled


def read_archive(folder: Path) -> LabelledImages:
    """The images of whichever archive lies in `folder`. DataError where there is none, or one is not whole."""
    for archive, inside, suffix, decode in (
        ("cifar-10-binary.tar.gz", "cifar-10-batches-bin", ".bin", _binary),
        ("cifar-10-python.tar.gz", "cifar-10-batches-py", "", _pickled),
    ):
        path = folder / archive
        if path.is_file():
            names = [f"{inside}/data_batch_{i}{suffix}" for i in range(1, 6)]
            return _read(path, names, f"{inside}/test_batch{suffix}", decode)
    raise DataError(f"{folder} holds neither cifar-10-binary.tar.gz nor cifar-10-python.tar.gz")


def _read(
    path: Path, training: list[str], test: str, decode: Callable[[bytes, str], Labelled]
) -> LabelledImages:
    try:
        with tarfile.open(path, "r:gz") as archive:
            files = {
                member.name: file.read()
                for member in archive
                if (file := archive.extractfile(member)) is not None
            }
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{path} cannot be read to its end: {error}; fetch it again") from error
    if missing := [name for name in (*training, test) if name not in files]:
        raise DataError(f"{path} lacks {', '.join(missing)}")
    parts = [decode(files[name], f"{path}, {name}") for name in training]
    pixels, classes = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return LabelledImages(train=(pixels, classes), test=decode(files[test], f"{path}, {test}"))


def _binary(content: bytes, where: str) -> Labelled:
    if len(content) % (1 + PIXEL_BYTES):
        raise DataError(
            f"{where}: {len(content)} bytes are no whole number of {1 + PIXEL_BYTES}-byte records"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, 1 + PIXEL_BYTES)
    return _labelled(records[:, 1:], records[:, 0], where)


def _pickled(content: bytes, where: str) -> Labelled:
    try:
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
        pixels, classes = batch[b"data"], np.asarray(batch[b"labels"])
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where} is no batch of CIFAR-10: {error}") from error
    if pixels.dtype != np.uint8 or pixels.shape != (len(classes), PIXEL_BYTES):
        raise DataError(
            f"{where} holds {pixels.dtype} of shape {pixels.shape}, not uint8 ({len(classes)}, {PIXEL_BYTES})"
        )
    return _labelled(pixels, classes, where)


class _ArrayUnpickler(pickle.Unpickler):
    """Builds arrays, and refuses every other name that a pickle may ask for."""

    def find_class(self, module: str, name: str) -> Any:
        match module.removeprefix("numpy.").replace("_core", "core"), name:
            case "core.multiarray", "_reconstruct":
                return np.empty(0).__reduce__()[0]
            case "numpy", "ndarray" | "dtype":
                return getattr(np, name)
            case "_codecs", "encode":
                return lambda text, encoding: text.encode(encoding)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _labelled(planes: np.ndarray, classes: np.ndarray, where: str) -> Labelled:
    wrong = np.flatnonzero((classes < 0) | (classes >= NUM_CLASSES))
    if len(wrong):
        raise DataError(
            f"{where}, record {wrong[0]}: class {classes[wrong[0]]} is not 0 to {NUM_CLASSES - 1}"
        )
    pixels = planes.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pixels), classes.astype(np.int32)
