"""Datasets converted once to memory-mapped arrays, and never half.

A dataset NAME of a data folder lies in two places, so that a process can be denied one of them:

    FOLDER/training/NAME/      what the training process reads
    FOLDER/evaluation/NAME/    what the judge reads, the evaluated subset of the training examples included

Each holds `.npy` arrays and a `manifest.json` (version, and per array: shape, dtype, bytes, sha256). Arrays
are written to a scratch folder that is renamed into place once its manifest is complete, so a folder that
has a manifest is finished. A lock file makes simultaneous preparations wait for the first. What does not fit
into memory is converted part by part: `parts.py`.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from timetrial.data_loading.checksum import sha256_of
from timetrial.engine import lock
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
    with locked(folder, name):
        if all(_is_whole(folder / side / name, version) for side in SIDES):
            return
        arrays = convert()
        scratch = scratch_folder(folder, name)
        shutil.rmtree(scratch, ignore_errors=True)  # of a preparation that was killed
        for side in SIDES:
            (scratch / side).mkdir(parents=True)
            stored = {key: store_array(scratch / side, key, array) for key, array in arrays[side].items()}
            write_manifest(scratch / side, Manifest(version=version, arrays=stored))
        move_into_place(folder, name)


class StoredArrays(Mapping[str, np.ndarray]):
    """Arrays by name, memory-mapped and read-only; each look-up opens the file anew, so keep what it gives."""

    def __init__(self, where: Path, manifest: Manifest) -> None:
        self._where = where
        self._manifest = manifest

    def __getitem__(self, key: str) -> np.ndarray:
        if key not in self._manifest.arrays:
            raise KeyError(key)
        array: np.ndarray = np.load(self._where / f"{key}.npy", mmap_mode="r", allow_pickle=False)
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._manifest.arrays)

    def __len__(self) -> int:
        return len(self._manifest.arrays)

    def shape(self, key: str) -> tuple[int, ...]:
        """An array's shape, without opening it."""
        return self._manifest.arrays[key].shape


def open_arrays(folder: Path, side: Side, name: str, version: int) -> StoredArrays:
    """The arrays of one side. DataError where they are absent or a file does not have the size it should."""
    where = folder / side / name
    manifest = read_manifest(where)
    if manifest is None:
        raise DataError(f"no prepared dataset {name} in {where}; run `timetrial data prepare` first")
    if manifest.version != version:
        raise DataError(
            f"{where} holds version {manifest.version} of {name}, not {version}; run `timetrial data prepare`"
        )
    for key, stated in manifest.arrays.items():
        if not _has_size(where / f"{key}.npy", stated):
            raise DataError(
                f"{where / key}.npy should have {stated.num_bytes} bytes; run `timetrial data prepare` again"
            )
    return StoredArrays(where, manifest)


def is_complete(folder: Path, name: str, version: int) -> bool:
    """Whether both sides are there, of this version, with files of the right sizes; reads no array."""
    for side in SIDES:
        manifest = read_manifest(folder / side / name)
        if manifest is None or manifest.version != version:
            return False
        where = folder / side / name
        if not all(_has_size(where / f"{key}.npy", stated) for key, stated in manifest.arrays.items()):
            return False
    return True


def verify(folder: Path, name: str, checked: Callable[[int, int], None]) -> int:
    """Read every array of a dataset and compare it with its checksum; the number of bytes read.

    `checked` is told after every file how many bytes of how many are done. DataError where the dataset is absent
    or files differ from what was written: they are named.
    """
    manifests = {}
    for side in SIDES:
        manifest = read_manifest(folder / side / name)
        if manifest is None:
            raise DataError(f"no prepared dataset {name} in {folder / side}; run `timetrial data prepare`")
        manifests[folder / side / name] = manifest
    total = sum(stated.num_bytes for manifest in manifests.values() for stated in manifest.arrays.values())
    done, damaged = 0, []
    for where, manifest in manifests.items():
        for key, stated in manifest.arrays.items():
            path = where / f"{key}.npy"
            if not _has_size(path, stated) or sha256_of(path) != stated.sha256:
                damaged.append(str(path))
            done += stated.num_bytes
            checked(done, total)
    if damaged:
        some = ", ".join(damaged[:5]) + (f" and {len(damaged) - 5} more" if len(damaged) > 5 else "")
        raise DataError(f"{some}: not what was written; delete {name}'s folders and prepare it again")
    return total


def locked(folder: Path, name: str) -> AbstractContextManager[None]:
    """One preparation of a dataset at a time; the others wait."""
    return lock.locked(folder / f".{name}.lock")


def scratch_folder(folder: Path, name: str) -> Path:
    """Where a dataset lies until it is finished."""
    return folder / f".{name}.partial"


def store_array(where: Path, key: str, array: np.ndarray) -> StoredArray:
    """Write one array; what a manifest says of it."""
    path = where / f"{key}.npy"
    np.save(path, array, allow_pickle=False)
    return StoredArray(
        shape=array.shape, dtype=str(array.dtype), num_bytes=path.stat().st_size, sha256=sha256_of(path)
    )


def read_manifest(where: Path) -> Manifest | None:
    """The manifest in a folder, None where there is none. DataError where it is something else."""
    path = where / MANIFEST
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except msgspec.DecodeError as error:
        raise DataError(
            f"{path} is no dataset manifest: {error}; delete {where} and prepare it again"
        ) from error


def write_manifest(where: Path, manifest: Manifest) -> None:
    """The last file of a folder."""
    (where / MANIFEST).write_bytes(msgspec.json.encode(manifest))


def move_into_place(folder: Path, name: str) -> None:
    """Replace both sides by what the scratch folder holds, and remove that."""
    scratch = scratch_folder(folder, name)
    for side in SIDES:
        target = folder / side / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            shutil.rmtree(target)
        (scratch / side).rename(target)
    shutil.rmtree(scratch)


def _has_size(path: Path, stated: StoredArray) -> bool:
    return path.is_file() and path.stat().st_size == stated.num_bytes


def _is_whole(where: Path, version: int) -> bool:
    manifest = read_manifest(where)
    if manifest is None or manifest.version != version:
        return False
    files = {where / f"{key}.npy": stated for key, stated in manifest.arrays.items()}
    return all(path.is_file() and sha256_of(path) == stated.sha256 for path, stated in files.items())
