"""The conversion of ImageNet's files to shards: whether all images are there, and the arrays of each shard."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from timetrial.data_loading.download import progress
from timetrial.data_loading.encoded_image import image_size
from timetrial.data_loading.imagenet_sources import (
    DEVKIT,
    V2_FOLDER,
    V2_TAR,
    ImageClass,
    Labelled,
    read_devkit,
    training_classes,
    v2_images,
    v2_images_packed,
    validation_images,
)
from timetrial.data_loading.parts import Part
from timetrial.data_loading.prepared import Arrays
from timetrial.engine.errors import DataError

NAMED = 5  # classes that a message names


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What must be there, and how it is stored.

    A shard of training images has 0.6 GB, which a converting process holds in memory; all shards of a side can be
    open at the same time.
    """

    classes: int = 1_000
    train: int = 1_281_167
    validation: int = 50_000
    test: int = 10_000
    classes_per_shard: int = 4  # of training images
    images_per_shard: int = 1_000  # of the others


def parts(source: Path, counts: Counts) -> list[Part]:
    """One part a shard, but all of ImageNet-V2 in one if it is packed: such an archive cannot be entered midway.

    DataError where images or classes are missing or too many; whether files are whole, the parts find out.
    """
    classes = training_classes(source)
    listed = _check_training(source, classes, counts)
    wnids = [one.wnid for one in classes]
    validation = validation_images(source, wnids)
    check_even(validation, "validation", counts.validation, wnids, source)
    return [
        *_training_parts(classes, listed, counts.classes_per_shard),
        *_flat_parts("validation", validation, counts.images_per_shard),
        *_test_parts(source, wnids, counts),
    ]


def check_even(
    images: Sequence[Labelled], split: str, count: int, wnids: Sequence[str], source: Path
) -> None:
    """DataError unless there are `count` images, equally many of each class."""
    labels = np.array([label for _, label in images], np.int64)
    of_class = np.bincount(labels, minlength=len(wnids))
    if len(of_class) > len(wnids):
        raise DataError(
            f"{source}: a folder of {split} images is named {labels.max()}; the last is {len(wnids) - 1}"
        )
    wanted = count // len(wnids)
    if (of_class != wanted).any():
        wrong = [
            f"{wnid} has {found} of {wanted}"
            for wnid, found in zip(wnids, of_class, strict=True)
            if found != wanted
        ]
        raise DataError(f"{source} holds {len(labels)} {split} images, not {count}: {_some(wrong)}")


def shard_arrays(images: Sequence[Labelled]) -> Arrays:
    """A shard of these images, as `imagenet.py` describes. DataError naming a file that is not whole."""
    lengths = [image.num_bytes for image, _ in images]
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    joined = np.empty(offsets[-1], np.uint8)
    sizes = np.empty((len(images), 2), np.int32)
    for row, (image, _) in enumerate(images):
        content = image.read()
        sizes[row] = image_size(content, image.name)
        joined[offsets[row] : offsets[row + 1]] = np.frombuffer(content, np.uint8)
    labels = np.array([label for _, label in images], np.int32)
    return {"bytes": joined, "offsets": offsets, "sizes": sizes, "labels": labels}


def _check_training(source: Path, classes: Sequence[ImageClass], counts: Counts) -> list[tuple[int, int]]:
    """Images and their bytes of every class, by reading directories and headers of tars."""
    known = read_devkit(source / DEVKIT).train_counts if (source / DEVKIT).is_file() else {}
    if len(classes) != counts.classes:
        missing = _some(sorted(known.keys() - {one.wnid for one in classes}))
        named = f": missing are {missing}" if missing else ""
        raise DataError(
            f"{source} holds training images of {len(classes)} classes, not {counts.classes}{named}"
        )
    report = progress.get() or (lambda *_: None)
    listed, num_bytes = [], 0
    for one in classes:
        images = one.images()
        listed.append((len(images), sum(image.num_bytes for image in images)))
        num_bytes += listed[-1][1]
        report("imagenet: source listed", num_bytes, None)
    found = sum(number for number, _ in listed)
    if found != counts.train:
        wrong = _some(
            [
                f"{one.wnid} has {number} of {known[one.wnid]}"
                for one, (number, _) in zip(classes, listed, strict=True)
                if known.get(one.wnid, number) != number
            ]
        )
        named = f": {wrong}" if wrong else ""
        raise DataError(f"{source} holds {found} training images, not {counts.train}{named}")
    return listed


def _training_parts(
    classes: Sequence[ImageClass], listed: Sequence[tuple[int, int]], per_shard: int
) -> Iterator[Part]:
    for number, first in enumerate(range(0, len(classes), per_shard)):
        name, stretch = f"train_{number:03}", slice(first, first + per_shard)
        load = partial(_images_of_classes, classes[stretch], first)
        yield Part(
            name=name,
            side="training",
            num_bytes=sum(num_bytes for _, num_bytes in listed[stretch]),
            convert=partial(_convert_shard, name, load),
        )


def _images_of_classes(classes: Sequence[ImageClass], first_label: int) -> list[Labelled]:
    return [(image, label) for label, one in enumerate(classes, first_label) for image in one.images()]


def _flat_parts(split: str, images: Sequence[Labelled], per_shard: int) -> Iterator[Part]:
    for name, stretch in _shards(split, images, per_shard):
        yield Part(
            name=name,
            side="evaluation",
            num_bytes=sum(image.num_bytes for image, _ in stretch),
            convert=partial(_convert_shard, name, partial(list, stretch)),
        )


def _test_parts(source: Path, wnids: Sequence[str], counts: Counts) -> list[Part]:
    packed, folder = source / V2_TAR, source / V2_FOLDER
    if packed.is_file():
        convert = partial(_convert_packed, packed, wnids, counts)
        return [
            Part(name="test", side="evaluation", num_bytes=packed.stat().st_size, convert=convert),
        ]
    if not folder.is_dir():
        raise DataError(f"{source} holds neither {V2_TAR} nor {V2_FOLDER}/")
    images = v2_images(folder)
    check_even(images, "ImageNet-V2", counts.test, wnids, source)
    return list(_flat_parts("test", images, counts.images_per_shard))


def _convert_shard(
    name: str, load: Callable[[], Sequence[Labelled]], stored: frozenset[str]
) -> Iterator[tuple[str, Arrays]]:
    if name not in stored:
        yield name, shard_arrays(load())


def _convert_packed(
    path: Path, wnids: Sequence[str], counts: Counts, stored: frozenset[str]
) -> Iterator[tuple[str, Arrays]]:
    images = v2_images_packed(path)
    check_even(images, "ImageNet-V2", counts.test, wnids, path)
    for name, stretch in _shards("test", images, counts.images_per_shard):
        if name not in stored:
            yield name, shard_arrays(stretch)


def _shards(
    split: str, images: Sequence[Labelled], per_shard: int
) -> Iterable[tuple[str, Sequence[Labelled]]]:
    for number, first in enumerate(range(0, len(images), per_shard)):
        yield f"{split}_{number:03}", images[first : first + per_shard]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
