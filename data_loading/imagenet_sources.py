"""ImageNet's images where their owners' files hold them.

    ILSVRC2012_img_train.tar     a tar of one tar a class, WNID.tar; or train/WNID/*.JPEG
    ILSVRC2012_img_val.tar       50,000 files, ILSVRC2012_val_NNNNNNNN.JPEG; or val/WNID/*.JPEG
    ILSVRC2012_devkit_t12.tar.gz their classes, in the order of N: data/ILSVRC2012_validation_ground_truth.txt has
                                 ids, which data/meta.mat explains; not needed for val/WNID
    imagenetv2-matched-frequency.tar.gz     folders 0 to 999, the class's place in the sorted WNIDs, with
                                            *.jpeg; or imagenetv2-matched-frequency-format-val/, unpacked

A WNID is the letter n and eight digits. An image is a stretch of a file, so those in a tar are read without
unpacking it. Whatever is wrong with the files themselves is a DataError; whether they are all there,
`imagenet_parts.py` checks.
"""

import io
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from timetrial.engine.errors import DataError

TRAIN_TAR, TRAIN_FOLDER = "ILSVRC2012_img_train.tar", "train"
VALIDATION_TAR, VALIDATION_FOLDER = "ILSVRC2012_img_val.tar", "val"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
V2_TAR, V2_FOLDER = "imagenetv2-matched-frequency.tar.gz", "imagenetv2-matched-frequency-format-val"
WNID = re.compile(r"n\d{8}")  # a WordNet id
NUMBERED = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")
SUFFIXES = {".jpeg", ".jpg"}


class EncodedImage(Protocol):
    """An image's file."""

    @property
    def name(self) -> str:
        """Where it is, for a message."""

    @property
    def num_bytes(self) -> int: ...

    def read(self) -> bytes: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """An image that is a file, or lies in an uncompressed tar."""

    path: Path
    member: str  # name within the tar; the file's own name where it is no tar
    offset: int
    num_bytes: int

    @property
    def name(self) -> str:
        return str(self.path) if self.path.name == self.member else f"{self.path}, {self.member}"

    def read(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.num_bytes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """An image in memory."""

    name: str
    content: bytes

    @property
    def num_bytes(self) -> int:
        return len(self.content)

    def read(self) -> bytes:
        return self.content


@dataclass(frozen=True, kw_only=True)
class ImageClass:
    """Training images of one class: a folder, or a tar within a tar."""

    wnid: str
    path: Path
    offset: int = 0
    num_bytes: int = 0  # of the tar

    def images(self) -> list[Stretch]:
        """Sorted by name."""
        if self.path.is_dir():
            return images_in_folder(self.path)
        return images_in_tar(self.path, self.offset, self.num_bytes)


@dataclass(frozen=True, kw_only=True)
class Devkit:
    """What the development kit says."""

    wnids: dict[int, str]  # of the classes, by id
    train_counts: dict[str, int]  # images by wnid
    validation_ids: list[int]  # of validation image 1, 2, ...


Labelled = tuple[EncodedImage, int]  # with the class's place among the sorted wnids


def training_classes(source: Path) -> list[ImageClass]:
    """Sorted by wnid."""
    tar, folder = source / TRAIN_TAR, source / TRAIN_FOLDER
    if tar.is_file():
        members = ((Path(name), offset, size) for name, offset, size in _members(tar))
        classes = [
            ImageClass(wnid=name.stem, path=tar, offset=offset, num_bytes=size)
            for name, offset, size in members
            if WNID.fullmatch(name.stem) and name.suffix == ".tar"
        ]
    elif folder.is_dir():
        classes = [ImageClass(wnid=path.name, path=path) for path in _class_folders(folder)]
    else:
        raise DataError(f"{source} holds neither {TRAIN_TAR} nor {TRAIN_FOLDER}/")
    return sorted(classes, key=lambda one: one.wnid)


def validation_images(source: Path, wnids: Sequence[str]) -> list[Labelled]:
    """Sorted by name; `wnids` are those of the training classes, sorted."""
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    tar, folder = source / VALIDATION_TAR, source / VALIDATION_FOLDER
    labelled: list[tuple[Stretch, int]] = []
    if tar.is_file():
        devkit = read_devkit(source / DEVKIT)
        labelled = [(image, _class_of(image, devkit, label_of)) for image in images_in_tar(tar)]
    elif folder.is_dir():
        for path in _class_folders(folder):
            if path.name not in label_of:
                raise DataError(f"{path} is of a class that has no training images")
            labelled += [(image, label_of[path.name]) for image in images_in_folder(path)]
    else:
        raise DataError(f"{source} holds neither {VALIDATION_TAR} nor {VALIDATION_FOLDER}/")
    return [(image, label) for image, label in sorted(labelled, key=lambda one: one[0].member)]


def v2_images(folder: Path) -> list[Labelled]:
    """ImageNet-V2's images unpacked, sorted by class and name."""
    numbered = [path for path in folder.iterdir() if path.is_dir() and path.name.isdecimal()]
    return [
        (image, int(path.name))
        for path in sorted(numbered, key=lambda path: int(path.name))
        for image in images_in_folder(path)
    ]


def v2_images_packed(path: Path) -> list[Labelled]:
    """ImageNet-V2's images in the owner's archive, sorted by class and name; all of them in memory, 1.3 GB."""
    labelled = [
        (Held(name=f"{path}, {name}", content=content), int(Path(name).parent.name))
        for name, content in _contents(path)
        if _is_image(Path(name).name) and Path(name).parent.name.isdecimal()
    ]
    return [(image, label) for image, label in sorted(labelled, key=lambda one: (one[1], one[0].name))]


def images_in_folder(folder: Path) -> list[Stretch]:
    """The images that lie directly in a folder, sorted by name."""
    with os.scandir(folder) as entries:
        images = [
            Stretch(path=Path(entry.path), member=entry.name, offset=0, num_bytes=entry.stat().st_size)
            for entry in entries
            if _is_image(entry.name)
        ]
    return sorted(images, key=lambda image: image.member)


def images_in_tar(path: Path, offset: int = 0, num_bytes: int | None = None) -> list[Stretch]:
    """The images in a tar, which may be a stretch of another file, sorted by name."""
    images = [
        Stretch(path=path, member=Path(name).name, offset=begin, num_bytes=size)
        for name, begin, size in _members(path, offset, num_bytes)
        if _is_image(Path(name).name)
    ]
    return sorted(images, key=lambda image: image.member)


def read_devkit(path: Path) -> Devkit:
    """Classes and validation labels."""
    from scipy.io import loadmat  # a tenth of a second, which commands that prepare nothing need not wait for

    if not path.is_file():
        raise DataError(f"{path} is missing; it holds the classes of {VALIDATION_TAR}")
    wanted = ("data/ILSVRC2012_validation_ground_truth.txt", "data/meta.mat")
    found = {end: content for name, content in _contents(path) for end in wanted if name.endswith(f"/{end}")}
    if missing := [end for end in wanted if end not in found]:
        raise DataError(f"{path} lacks {' and '.join(missing)}")
    truth, meta = (found[end] for end in wanted)
    try:
        ids = [int(line) for line in truth.split()]
        synsets = np.atleast_1d(loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"])
        wnids = {int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in synsets}
        counts = {str(synset["WNID"]): int(synset["num_train_images"]) for synset in synsets}
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(f"{path} is not ILSVRC2012's development kit: {error}") from error
    # meta.mat goes on with the groups that these classes belong to.
    labels = set(ids)
    classes = {number: wnid for number, wnid in wnids.items() if number in labels}
    if unknown := sorted(labels - classes.keys()):
        raise DataError(f"{path}: its validation labels name the ids {unknown[:5]}, which meta.mat lacks")
    return Devkit(
        wnids=classes,
        train_counts={wnid: counts[wnid] for wnid in classes.values()},
        validation_ids=ids,
    )


def _class_of(image: Stretch, devkit: Devkit, label_of: dict[str, int]) -> int:
    match = NUMBERED.fullmatch(image.member)
    number = int(match[1]) if match else 0
    if not 1 <= number <= len(devkit.validation_ids):
        last = len(devkit.validation_ids)
        raise DataError(f"{image.name}: validation images are ILSVRC2012_val_NNNNNNNN.JPEG, 1 to {last}")
    wnid = devkit.wnids[devkit.validation_ids[number - 1]]
    if wnid not in label_of:
        raise DataError(f"{image.name} is of class {wnid}, which has no training images")
    return label_of[wnid]


def _class_folders(folder: Path) -> Iterable[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and WNID.fullmatch(path.name))


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")


def _members(path: Path, offset: int = 0, num_bytes: int | None = None) -> list[tuple[str, int, int]]:
    """Name, offset in the file and bytes of every file in a tar; only headers are read."""
    with _readable(path), path.open("rb") as file:
        file.seek(offset)
        with tarfile.open(fileobj=file, mode="r:") as archive:
            members = [
                (member.name, member.offset_data, member.size) for member in archive if member.isfile()
            ]
    end = path.stat().st_size if num_bytes is None else offset + num_bytes
    for name, begin, size in members:
        if begin + size > end:
            raise DataError(f"{path} is cut off within {name}; fetch it again")
    return members


def _contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """Every file of a gzipped tar, in its order."""
    with _readable(path), tarfile.open(path, "r|gz") as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is not None:
                yield member.name, file.read()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{path} cannot be read to its end: {error}; fetch it again") from error
