"""The owner's files of fastMRI's single-coil knees: which volumes there are, and their slices.

A volume is one HDF5 file: `kspace` complex64 (slices, 640, columns), where the number of columns differs from volume
to volume; `reconstruction_esc` float32 (slices, 320, 320), the image of all columns; and the attribute `max`, the
largest value of those images, taken for 0 where it is absent.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from timetrial.data_loading.undersampling import Slice, hybrid_columns
from timetrial.engine.errors import DataError

HEIGHT = 640  # rows of k-space, twice as many as the image shows
SIDE = 320  # pixels
# What the archives are extracted to, under either name.
FOLDERS = {
    "train": ("knee_singlecoil_train", "singlecoil_train"),
    "val": ("knee_singlecoil_val", "singlecoil_val"),
}


@dataclass(frozen=True, kw_only=True)
class Volume:
    """One file, its header read and checked."""

    path: Path
    num_bytes: int
    num_slices: int
    width: int  # columns of k-space
    volume_max: float


def volumes_of(source: Path, part: str, num_volumes: int, num_slices: int) -> list[Volume]:
    """The volumes of `train` or `val` by file name. DataError where there are others than there should be."""
    names = FOLDERS[part]
    folder = next((source / name for name in names if (source / name).is_dir()), None)
    if folder is None:
        raise DataError(
            f"{source} has no folder {names[0]} or {names[1]}: extract {names[0]}.tar.xz there (archives are not read)"
        )
    paths = sorted(folder.glob("*.h5"))
    if len(paths) != num_volumes:
        raise DataError(
            f"{folder} holds {len(paths)} volumes (*.h5), not {num_volumes}; extract its archive again"
        )
    volumes = [read_header(path) for path in paths]
    found = sum(volume.num_slices for volume in volumes)
    if found != num_slices:
        raise DataError(f"the {num_volumes} volumes of {folder} hold {found} slices, not {num_slices}")
    return volumes


def read_header(path: Path) -> Volume:
    """What a file holds. DataError where that is not what it should be."""
    with _opened(path) as file:
        for key in ("kspace", "reconstruction_esc"):
            if key not in file:
                raise DataError(
                    f"{path} has no dataset `{key}`; it is no single-coil training volume of fastMRI"
                )
        kspace, target = file["kspace"], file["reconstruction_esc"]
        if (
            kspace.ndim != 3
            or kspace.shape[1] != HEIGHT
            or kspace.shape[2] < SIDE
            or kspace.dtype != np.complex64
        ):
            raise DataError(
                f"{path}: kspace is {kspace.dtype} {kspace.shape}, not complex64 (slices, {HEIGHT}, {SIDE} or more)"
            )
        wanted = (len(kspace), SIDE, SIDE)
        if target.shape != wanted or target.dtype != np.float32:
            raise DataError(
                f"{path}: reconstruction_esc is {target.dtype} {target.shape}, not float32 {wanted}"
            )
        return Volume(
            path=path,
            num_bytes=path.stat().st_size,
            num_slices=len(kspace),
            width=kspace.shape[2],
            volume_max=float(file.attrs.get("max", 0.0)),
        )


def read_slices(volume: Volume, rows: Sequence[int]) -> Iterator[Slice]:
    """Some slices of a volume. DataError where the file cannot be read or a slice has no signal."""
    with _opened(volume.path) as file:
        for row in rows:
            columns = hybrid_columns(file["kspace"][row], SIDE)
            target = file["reconstruction_esc"][row]
            if not (0 < np.abs(columns).max() < np.inf and np.isfinite(target).all()):
                raise DataError(f"{volume.path}: slice {row} is empty or holds values that are not finite")
            yield Slice(columns=columns, target=target, volume_max=volume.volume_max)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """An HDF5 file. What the library raises of it, when it is opened or read, becomes a DataError."""
    try:
        import h5py
    except ImportError as error:
        raise DataError("fastMRI's files are HDF5, which needs h5py: install timetrial[full]") from error
    try:
        with h5py.File(path, "r") as file:
            yield file
    except OSError as error:
        raise DataError(
            f"{path} is no HDF5 file or is damaged; extract its archive again: {error}"
        ) from error
