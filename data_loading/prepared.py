"""Datasets converted once to memory-mapped arrays, and never half.

A dataset NAME of a data folder lies in two places, so that a process can be denied one of them:

    FOLDER/training/NAME/      what the training process reads
    FOLDER/evaluation/NAME/    what the judge reads, the evaluated subset of the training examples included

Each holds `.npy` arrays and a `manifest.json` (version, and per array: shape, dtype, bytes, sha256). Arrays
are written to a scratch folder that is renamed into place once its manifest is complete, so a folder that
has a manifest is finished. A lock file makes simultaneous preparations wait for the first.
"""

import fcntl
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from timetrial.data_loading.checksum import sha256_of
from timetrial.engine.errors import DataError

Side = Literal["training", "evaluation"]
SIDES: tuple[Side, ...] = ("training", "evaluation")
Arrays = Mapping[str, np.ndarray]
MANIFEST = "manifest.json"


class StoredArray(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the manifest states about one array."""

    shape: tuple[int, ...]
    dtype: str
    num_bytes: int  # of the file
    sha256: str  # of the file


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The last file written: its presence says that the arrays beside it are complete."""

    version: int
    arrays: dict[str, StoredArray]


def prepare_once(folder: Path, name: str, version: int, convert: Callable[[], Mapping[Side, Arrays]]) -> None:
    """Make the dataset unless it is there, whole and of this version.

    `convert` returns the arrays of both sides. Arrays that do not have the checksum of their manifest are
    converted anew.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / f".{name}.lock"):
        if all(_is_whole(folder / side / name, version) for side in SIDES):
            return
        arrays = convert()
        scratch = folder / f".{name}.partial"
        shutil.rmtree(scratch, ignore_errors=True)  # of a preparation that was killed
        scratch.mkdir()
        for side in SIDES:
            _write(scratch / side, version, arrays[side])
        for side in SIDES:
            _replace(scratch / side, folder / side / name)
        scratch.rmdir()


def open_arrays(folder: Path, side: Side, name: str, version: int) -> dict[str, np.ndarray]:
    """The arrays of one side, memory-mapped and read-only. DataError where they are absent or incomplete."""
    where = folder / side / name
    manifest = _manifest(where)
    if manifest is None:
        raise DataError(f"no prepared dataset {name} in {where}; run `timetrial data prepare` first")
    if manifest.version != version:
        raise DataError(
            f"{where} holds version {manifest.version} of {name}, not {version}; run `timetrial data prepare`"
        )
    opened = {}
    for key, stated in manifest.arrays.items():
        path = where / f"{key}.npy"
        if not path.is_file() or path.stat().st_size != stated.num_bytes:
            raise DataError(
                f"{path} should have {stated.num_bytes} bytes; run `timetrial data prepare` again"
            )
        opened[key] = np.load(path, mmap_mode="r", allow_pickle=False)
    return opened


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _manifest(where: Path) -> Manifest | None:
    path = where / MANIFEST
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except msgspec.DecodeError as error:
        raise DataError(
            f"{path} is no dataset manifest: {error}; delete {where} and prepare it again"
        ) from error


def _is_whole(where: Path, version: int) -> bool:
    manifest = _manifest(where)
    if manifest is None or manifest.version != version:
        return False
    files = {where / f"{key}.npy": stated for key, stated in manifest.arrays.items()}
    return all(path.is_file() and sha256_of(path) == stated.sha256 for path, stated in files.items())


def _write(where: Path, version: int, arrays: Arrays) -> None:
    where.mkdir()
    stored = {}
    for key, array in arrays.items():
        path = where / f"{key}.npy"
        np.save(path, array, allow_pickle=False)
        stored[key] = StoredArray(
            shape=array.shape, dtype=str(array.dtype), num_bytes=path.stat().st_size, sha256=sha256_of(path)
        )
    (where / MANIFEST).write_bytes(msgspec.json.encode(Manifest(version=version, arrays=stored)))


def _replace(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        shutil.rmtree(target)
    source.rename(target)
