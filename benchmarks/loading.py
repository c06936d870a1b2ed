"""How fast training batches come, beside the plain alternative: `python benchmarks/loading.py [DATASET…]`.

Each dataset is made up in its owner's format, prepared, and read twice in the same process: by our loader, and by the
obvious code that reads the owner's files for every epoch: pandas for TSV, h5py and numpy.fft for k-space, one example
at a time for digits, PIL and NumPy for photographs (`loading_images.py`). Graphs, sentences and speech are made up as
stored arrays; beside them are a loop over graphs, SentencePiece and a loop over pairs, and a file an utterance
(`loading_sequences.py`). Printed: examples per second of processor time, all threads counted, and their ratio. The
reference's figures are those of AlgoPerf's own pipelines on a loaded machine of this kind. Conversion is not counted;
its own rate is printed for Criteo. Results go to benchmarks/results/loading.json.
"""

import itertools
import json
import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from time import process_time
from typing import Any
from unittest.mock import patch

import click
import h5py
import loading_images
import loading_sequences
import numpy as np
import pandas as pd
from cpu_rate import rate

from timetrial.data_loading import criteo1tb, fastmri, mnist
from timetrial.data_loading.criteo_rows import VOCABULARIES, buckets
from timetrial.data_loading.parts import prepare_parts
from timetrial.data_loading.undersampling import mask_key, training_columns
from timetrial.engine import provenance
from timetrial.engine.clock import utc_timestamp
from timetrial.engine.facts import Order
from timetrial.engine.records import write_json_atomic

RESULTS = Path(__file__).parent / "results" / "loading.json"

Row = dict[str, Any]


def row(ours: float, plain: float, reference: float, **more: float) -> Row:
    return {
        "ours": ours,
        "plain": plain,
        "ratio_to_plain": ours / plain,
        "reference": reference,
        "ratio_to_reference": ours / reference,
        **more,
    }


def criteo() -> Row:
    """Rows of click logs, in batches of 262,144."""
    rows_per_day, batch_size = (524_288, 4_096), 262_144
    layout = criteo1tb.Layout(
        rows_of_day=rows_per_day, rows_per_shard=262_144, test_shards=1, eval_train=4_096
    )
    with tempfile.TemporaryDirectory() as name, patch.object(criteo1tb, "LAYOUT", layout):
        folder = Path(name)
        for day, count in enumerate(rows_per_day):
            (folder / f"day_{day}").write_bytes(click_log(count))
        started = process_time()
        converted = sum(
            len(arrays["targets"])
            for _, arrays in criteo1tb.convert_day(layout, 0, (folder / "day_0",), frozenset())
        )
        conversion = converted / (process_time() - started)
        criteo1tb.prepare(folder / "data", folder)
        ours = rate(
            criteo1tb.training_batches(folder / "data", Order(batch_size=batch_size, seed=0)), batch_size
        )
        plain = rate(pandas_batches(folder / "day_0", 65_536), 65_536)
    return row(ours, plain, 50_000, conversion_rows_per_cpu_second=conversion)


def click_log(num_rows: int) -> bytes:
    """Rows of the owner's format, a tenth of the fields empty."""
    generator = np.random.default_rng(0)
    lines = []
    for _ in range(num_rows):
        numbers = [str(n) if n < 900 else "" for n in generator.integers(-1, 1000, 13)]
        words = [f"{n:08x}" if n >> 28 else "" for n in generator.integers(1 << 32, size=26)]
        lines.append("\t".join([str(int(generator.random() < 0.03)), *numbers, *words]))
    return ("\n".join(lines) + "\n").encode()


def pandas_batches(file: Path, batch_size: int) -> Iterator[Any]:
    """The same features straight from the text, with the same hash."""
    while True:
        for frame in pd.read_csv(file, sep="\t", header=None, chunksize=batch_size, dtype={0: np.float32}):
            dense = np.log1p(frame.iloc[:, 1:14].fillna(0).clip(lower=0).to_numpy(np.float32))
            columns = []
            for column, vocabulary in enumerate(VOCABULARIES):
                words = frame.iloc[:, 14 + column].fillna("00000000").to_numpy().astype("S8")
                columns.append(buckets(words.view(np.uint64), column, vocabulary).astype(np.float32))
            yield {"inputs": np.column_stack([dense, *columns]), "targets": frame[0].to_numpy()}


def knee_slices() -> Row:
    """Slices of 640 x 368 samples, in batches of 32, by one worker."""
    sizes = fastmri.Sizes(
        train_volumes=3, train=96, eval_train=4, validation_volumes=1, validation=2, test_volumes=1, test=2
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train = [write_volume(folder / f"knee_singlecoil_train/file{i}.h5", 32) for i in range(3)]
        for i in range(2):
            write_volume(folder / f"knee_singlecoil_val/file{i}.h5", 2)
        prepare_parts(folder / "data", fastmri.NAME, fastmri.VERSION, lambda: fastmri.parts(folder, sizes))
        ours = rate(fastmri.training_batches(folder / "data", Order(batch_size=32, seed=0)), 32)
        plain = rate(h5py_batches(train, 32), 32)
    return row(ours, plain, 62)


def write_volume(path: Path, num_slices: int) -> Path:
    """A volume of noise in the owner's format."""
    path.parent.mkdir(exist_ok=True)
    generator = np.random.default_rng(0)
    samples = generator.normal(size=(2, num_slices, 640, 368)).astype(np.float32)
    image = generator.random((num_slices, 320, 320), np.float32)
    with h5py.File(path, "w") as file:
        file["kspace"] = samples[0] + 1j * samples[1]
        file["reconstruction_esc"] = image
        file.attrs["max"] = float(image.max())
    return path


def h5py_batches(files: list[Path], batch_size: int) -> Iterator[Any]:
    """Each slice by itself: read, mask, transform, crop, normalise."""
    key = mask_key(0)

    def slices() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for path in itertools.cycle(files):
            with h5py.File(path) as file:
                for index in range(len(file["kspace"])):
                    kspace, target = file["kspace"][index], file["reconstruction_esc"][index]
                    mask = np.zeros(kspace.shape[1], np.float32)
                    mask[training_columns(key, index, len(mask))] = 1
                    shifted = np.fft.ifftshift(kspace * mask)
                    image = np.fft.fftshift(np.fft.ifft2(shifted, norm="ortho"))
                    top, left = (image.shape[0] - 320) // 2, (image.shape[1] - 320) // 2
                    magnitude = np.abs(image[top : top + 320, left : left + 320])
                    mean, std = magnitude.mean(), magnitude.std()
                    normalised = ((magnitude - mean) / std).clip(-6, 6).astype(np.float32)
                    yield normalised, ((target - mean) / std).clip(-6, 6)

    endless = slices()
    while True:
        batch = list(itertools.islice(endless, batch_size))
        yield [np.stack(arrays) for arrays in zip(*batch, strict=True)]


def digits() -> Row:
    """MNIST, in batches of 16."""
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for images, labels, count in (
            (mnist.TRAIN_IMAGES, mnist.TRAIN_LABELS, 60_000),
            (mnist.TEST_IMAGES, mnist.TEST_LABELS, 10_000),
        ):
            pixels = generator.integers(256, size=(count, 28, 28), dtype=np.uint8)
            (folder / images).write_bytes(idx(pixels))
            (folder / labels).write_bytes(idx(generator.integers(10, size=count, dtype=np.uint8)))
        mnist.prepare(folder / "data", folder)
        ours = rate(mnist.training_batches(folder / "data", Order(batch_size=16, seed=0)), 16)
        pixels = mnist.idx_array((folder / mnist.TRAIN_IMAGES).read_bytes(), "", 3)
        plain = rate(single_batches(pixels, 16), 16)
    return row(ours, plain, 3_150)


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, mnist.UNSIGNED_BYTES, array.ndim]) + sizes + array.tobytes()


def single_batches(pixels: np.ndarray, batch_size: int) -> Iterator[Any]:
    """Each image by itself: normalise, then stack."""
    generator = np.random.default_rng(0)
    while True:
        rows = generator.integers(len(pixels), size=batch_size)
        yield np.stack([(pixels[i].astype(np.float32) - mnist.MEAN) / mnist.STD for i in rows])


measured_photographs = cache(loading_images.measure)  # one run has both kinds


def photographs(kind: str, reference: float) -> Row:
    """Images of 500 x 375 pixels, in batches of 128; see `loading_images.py`. `kind` as it names its loaders."""
    found = measured_photographs()
    costs = found["milliseconds_of_processor_time"]
    ours, plain = (1e3 / costs[name]["median"] for name in (kind, f"{kind}, plain"))
    return row(ours, plain, reference, mean_bytes_an_image=found["mean_bytes"])


# With the better of the reference's two pipelines.
DATASETS: dict[str, Callable[[], Row]] = {
    "criteo1tb": criteo,
    "fastmri": knee_slices,
    "mnist": digits,
    "imagenet_resnet": partial(photographs, "residual networks", 172),
    "imagenet_vit": partial(photographs, "vision transformers", 113),
    "ogbg": lambda: row(*loading_sequences.graphs(), 1_600),
    "wmt": lambda: row(*loading_sequences.sentences(), 184),
    "librispeech": lambda: row(*loading_sequences.speech(), 119),
}


@click.command()
@click.argument("datasets", nargs=-1, type=click.Choice(list(DATASETS)))
def main(datasets: tuple[str, ...]) -> None:
    """Measure DATASETS, or all."""
    rows: dict[str, Row] = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else {}
    click.echo(
        f"{'examples per CPU second':26}{'ours':>12}{'plain':>12}{'ratio':>8}{'reference':>11}{'ratio':>8}"
    )
    for name in datasets or DATASETS:
        rows[name] = found = DATASETS[name]()
        click.echo(
            f"{name:26}{found['ours']:12,.0f}{found['plain']:12,.0f}{found['ratio_to_plain']:8.2f}"
            f"{found['reference']:11,.0f}{found['ratio_to_reference']:8.2f}"
        )
    machine = {**provenance.hardware(), **provenance.versions()}
    write_json_atomic(
        RESULTS,
        {
            "command": "python benchmarks/loading.py",
            "date": utc_timestamp(),
            "machine": machine,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
