"""Images a second of processor time: ImageNet's training pipelines beside Pillow and NumPy doing the same.

    python benchmarks/loading_images.py

Made photographs of 500 x 375 pixels, as large as ImageNet's (some 110 kB), are converted by `imagenet.prepare` and
read by `imagenet.training_batches` (residual networks) and `imagenet.mixed_training_batches` (vision transformers:
RandAugment and mixup). The plain alternative makes the same batches, from the same windows and draws, image by image
with Pillow and NumPy in one thread. A pipeline is also cut short, to see what its steps cost.

Processor seconds of the whole process, all threads. Both ends of a measurement wait until the batch that is made
ahead is finished, so that what is counted is exactly what the batches cost.
"""

import io
import os
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from statistics import median
from time import process_time, sleep
from typing import Any

import click
import numpy as np
from nvidia.dali import fn
from nvidia.dali.pipeline import pipeline_def
from nvidia.dali.types import DALIDataType, DALIInterpType
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from timetrial.data_loading import imagenet
from timetrial.data_loading.batches import Selection, selections
from timetrial.data_loading.crop_window import NUMBERS, random_windows
from timetrial.data_loading.example_numbers import example_numbers
from timetrial.data_loading.imagenet_parts import Counts
from timetrial.data_loading.images_dali import MEAN, STD
from timetrial.data_loading.mixup import mixed, mixup_weight, one_hot
from timetrial.data_loading.prepared import open_arrays
from timetrial.data_loading.rand_augment import LAST_AFFINE, SIDE, Operation
from timetrial.data_loading.rand_augment import rounds as rand_augment_rounds
from timetrial.engine.facts import NumpyBatch, Order

CLASSES = 4
HEIGHT, WIDTH = 375, 500
QUALITY = 93  # which gives these pictures ImageNet's mean file size
GREY = (128, 128, 128)
Batches = Iterator[Any]


def picture(rng: np.random.Generator) -> np.ndarray:
    """Noise with the spectrum of natural images, shapes with edges, and a sensor's noise: (375, 500, 3) uint8."""
    frequencies = np.hypot(np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH))
    frequencies[0, 0] = np.inf
    layers = []
    for _ in range(4):
        phases = rng.normal(size=(2, *frequencies.shape))
        layer = np.fft.irfft2((phases[0] + 1j * phases[1]) / frequencies**1.2, (HEIGHT, WIDTH))
        layers.append(layer / layer.std())
    brightness = 120 + 45 * layers[0]
    texture = np.stack([brightness + s * layer for s, layer in zip((20, 14, 24), layers[1:], strict=True)], 2)
    texture = np.clip(texture, 0, 255)
    image = Image.fromarray(texture.astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(5, 15)):
        x, y, size = (int(number) for number in rng.integers((0, 0, 10), (WIDTH, HEIGHT, 140)))
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape(
            (x, y, x + size, y + int(size * rng.uniform(0.4, 1.5))),
            fill=tuple(rng.integers(0, 256, 3).tolist()),
        )
    pixels = 0.75 * np.asarray(image) + 0.25 * texture + rng.normal(0, rng.uniform(2, 7), (HEIGHT, WIDTH, 1))
    rounded: np.ndarray = np.clip(pixels, 0, 255).astype(np.uint8)
    return rounded


def prepare(folder: Path, num_images: int) -> float:
    """Make the photographs and convert them as ImageNet's; the mean bytes of a file."""
    rng = np.random.default_rng(0)
    source, num_bytes = folder / "source", 0
    for number in range(num_images):
        content = io.BytesIO()
        Image.fromarray(picture(rng)).save(content, "JPEG", quality=QUALITY)
        label = number % CLASSES
        names = [f"train/n{label:08}/{number}.JPEG"]
        if number < CLASSES:
            names += [
                f"val/n{label:08}/{number}.JPEG",
                f"imagenetv2-matched-frequency-format-val/{label}/0.jpeg",
            ]
        for name in names:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(content.getvalue())
        num_bytes += content.tell()
    imagenet.prepare(
        folder, source, Counts(classes=CLASSES, train=num_images, validation=CLASSES, test=CLASSES)
    )
    return num_bytes / num_images


def milliseconds(batches: Batches, batch_size: int, num_batches: int) -> float:
    """Processor time of an image, over the next `num_batches` batches."""
    _settle()
    begin = process_time()
    for _ in islice(batches, num_batches):
        pass
    _settle()
    return 1e3 * (process_time() - begin) / (num_batches * batch_size)


def _settle() -> None:
    """Until the process has nothing more to do."""
    before = -1.0
    while process_time() - before > 0.002:
        before = process_time()
        sleep(0.05)


def plain_batches(folder: Path, order: Order, *, augment: bool) -> Iterator[NumpyBatch]:
    """What `imagenet` gives on one rank, by Pillow and NumPy."""
    images = imagenet.StoredImages(open_arrays(folder, "training", imagenet.NAME, imagenet.VERSION), "train")
    scale = np.tile(1 / (255 * np.array(STD, np.float32)), SIDE * SIDE)
    shift = np.tile(np.array(MEAN, np.float32) / np.array(STD, np.float32), SIDE * SIDE)
    for selection in selections(len(images), order):
        rows = np.empty((order.batch_size, SIDE, SIDE, 3), np.float32)
        for row, pixels in zip(rows, _plain_images(images, order.seed, selection, augment), strict=True):
            np.multiply(pixels.reshape(-1), scale, out=row.reshape(-1))
            np.subtract(row.reshape(-1), shift, out=row.reshape(-1))
        labels = images.labels[selection.indices]
        if not augment:
            yield {"inputs": rows, "targets": labels}
            continue
        weight = mixup_weight(order.seed, selection.number)
        targets = one_hot(labels, imagenet.NUM_CLASSES)
        yield {
            key: mixed(np.concatenate([values[-1:], values]), weight)
            for key, values in (("inputs", rows), ("targets", targets))
        }


def _plain_images(
    images: imagenet.StoredImages, seed: int, selection: Selection, augment: bool
) -> Iterator[np.ndarray]:
    numbers = example_numbers(seed, selection.epoch, selection.indices, imagenet.RAND_AUGMENT.stop)
    windows = random_windows(images.sizes[selection.indices], numbers[:, :NUMBERS]).tolist()
    drawn = rand_augment_rounds(numbers[:, imagenet.RAND_AUGMENT]) if augment else ()
    for row, content in enumerate(images.encoded(selection.indices)):
        top, left, height, width = windows[row]
        image = Image.open(io.BytesIO(content.tobytes())).convert("RGB")
        image = image.crop((left, top, left + width, top + height))
        image = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        if numbers[row, imagenet.MIRROR] < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        for one in drawn:
            image = _by_pillow(image, one.operations[row], one.matrices[row], one.cutouts[row])
        yield np.asarray(image)


def _solarize_add(image: Image.Image) -> Image.Image:
    return image.point([value + 110 if value < 128 else value for value in range(256)] * 3)


ON_VALUES: dict[int, Callable[[Image.Image], Image.Image]] = {
    Operation.AUTO_CONTRAST: ImageOps.autocontrast,
    Operation.EQUALIZE: ImageOps.equalize,
    Operation.INVERT: ImageOps.invert,
    Operation.POSTERIZE: lambda image: ImageOps.posterize(image, 4),
    Operation.SOLARIZE: lambda image: ImageOps.solarize(image, 256),
    Operation.SOLARIZE_ADD: _solarize_add,
    Operation.COLOR: lambda image: ImageEnhance.Color(image).enhance(1.9),
    Operation.CONTRAST: lambda image: ImageEnhance.Contrast(image).enhance(1.9),
    Operation.BRIGHTNESS: lambda image: ImageEnhance.Brightness(image).enhance(1.9),
    Operation.SHARPNESS: lambda image: ImageEnhance.Sharpness(image).enhance(1.9),
}


def _by_pillow(image: Image.Image, operation: int, matrix: np.ndarray, cutout: np.ndarray) -> Image.Image:
    if operation <= LAST_AFFINE:
        coefficients = tuple(matrix.ravel().tolist())
        nearest = Image.Resampling.NEAREST
        return image.transform(image.size, Image.Transform.AFFINE, coefficients, nearest, fillcolor=GREY)
    if operation == Operation.CUTOUT:
        top, left, height, width = (int(value) for value in cutout)
        image.paste(GREY, (left, top, left + width, top + height))
        return image
    return ON_VALUES[operation](image)


def cut_short(folder: Path, order: Order, *, resize: bool) -> Batches:
    """The pipeline's first step, decoding windows, or its first two."""
    images = imagenet.StoredImages(open_arrays(folder, "training", imagenet.NAME, imagenet.VERSION), "train")

    def feeds() -> Iterator[list[Any]]:
        for selection in selections(len(images), order):
            numbers = example_numbers(
                order.seed, selection.epoch, selection.indices, imagenet.RAND_AUGMENT.stop
            )
            windows = random_windows(images.sizes[selection.indices], numbers[:, :NUMBERS])
            yield [images.encoded(selection.indices), windows[:, :2].copy(), windows[:, 2:].copy()]

    @pipeline_def
    def graph() -> Any:
        types = [DALIDataType.UINT8, DALIDataType.INT32, DALIDataType.INT32]
        content, corners, extents = fn.external_source(
            source=feeds(), num_outputs=3, dtype=types, ndim=[1, 1, 1]
        )
        decoded = fn.decoders.image_slice(
            content, start=corners, shape=extents, axis_names="HW", adjust_orientation=False
        )
        triangular = DALIInterpType.INTERP_TRIANGULAR
        return fn.resize(decoded, size=(SIDE, SIDE), interp_type=triangular) if resize else decoded

    pipeline = graph(batch_size=order.batch_size, num_threads=len(os.sched_getaffinity(0)), device_id=None)
    while True:
        yield pipeline.run()


def measure(
    *, num_images: int = 500, batch_size: int = 128, num_batches: int = 4, num_rounds: int = 5
) -> dict[str, Any]:
    """What an image costs each loader, the median of some rounds and the rounds, beside what was loaded.

    In a round every loader makes `num_batches` batches, one loader after the other, so that what else the machine
    does meets all of them.
    """
    order = Order(batch_size=batch_size, seed=0)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        mean_bytes = prepare(folder, num_images)
        loaders = {
            "decoded windows": cut_short(folder, order, resize=False),
            "decoded and resized": cut_short(folder, order, resize=True),
            "residual networks": imagenet.training_batches(folder, order),
            "residual networks, plain": plain_batches(folder, order, augment=False),
            "vision transformers": imagenet.mixed_training_batches(folder, order),
            "vision transformers, plain": plain_batches(folder, order, augment=True),
        }
        for loader in loaders.values():
            next(loader)  # the pipeline is built
        rounds_of: dict[str, list[float]] = {name: [] for name in loaders}
        for _ in range(num_rounds):
            for name, loader in loaders.items():
                rounds_of[name].append(milliseconds(loader, batch_size, num_batches))
    return {
        "num_images": num_images,
        "mean_bytes": mean_bytes,
        "batch_size": batch_size,
        "num_batches": num_batches,
        "milliseconds_of_processor_time": {
            name: {"median": median(rounds), "rounds": rounds} for name, rounds in rounds_of.items()
        },
    }


@click.command()
@click.option("--images", default=500, show_default=True, help="Photographs to make.")
@click.option("--batch-size", default=128, show_default=True)
@click.option("--batches", default=4, show_default=True, help="Batches a round, of each loader.")
@click.option("--rounds", default=5, show_default=True)
def main(images: int, batch_size: int, batches: int, rounds: int) -> None:
    """Print what an image costs."""
    result = measure(num_images=images, batch_size=batch_size, num_batches=batches, num_rounds=rounds)
    click.echo(f"{images} photographs of {result['mean_bytes'] / 1e3:.0f} kB, batches of {batch_size}")
    for name, cost in result["milliseconds_of_processor_time"].items():
        click.echo(
            f"{name:28} {cost['median']:6.3f} ms of processor time an image "
            f"({min(cost['rounds']):.3f} to {max(cost['rounds']):.3f}), {1e3 / cost['median']:4.0f} images a second"
        )


if __name__ == "__main__":
    main()
