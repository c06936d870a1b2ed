"""ImageNet from sources of the owners' formats with a few images: what is stored, what is refused, and batches."""

import io
import itertools
import shutil
import sys

import numpy as np
import pytest
from imagenet_maker import (
    TRAIN,
    TRUTH,
    V2,
    V2_NAME,
    VALIDATION,
    WNIDS,
    class_of_validation,
    devkit,
    encoded,
    tar_of,
    write_archives,
    write_folders,
)
from PIL import Image

from timetrial import data_loading
from timetrial.data_loading import imagenet
from timetrial.data_loading.batches import selections
from timetrial.data_loading.imagenet_parts import Counts, parts
from timetrial.data_loading.images_dali import MEAN, STD
from timetrial.data_loading.mixup import mixup_weight
from timetrial.data_loading.prepared import open_arrays
from timetrial.data_loading.rand_augment import Operation, rounds
from timetrial.engine.errors import DataError, UsageError
from timetrial.engine.facts import Order

COUNTS = Counts(classes=6, train=24, validation=12, test=18, classes_per_shard=4, images_per_shard=5)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder prepared from the archives; only read from."""
    folder = tmp_path_factory.mktemp("imagenet")
    imagenet.prepare(folder, write_archives(folder / "source"), COUNTS)
    shutil.rmtree(folder / "source")
    return folder


def stored(folder, split):
    side = "training" if split == "train" else "evaluation"
    return imagenet.StoredImages(open_arrays(folder, side, "imagenet", imagenet.VERSION), split)


def in_order():
    """What each split holds, as (file, label)."""
    return {
        "train": [(TRAIN[wnid][name], c) for c, wnid in enumerate(WNIDS) for name in sorted(TRAIN[wnid])],
        "validation": [(VALIDATION[name], WNIDS.index(class_of_validation(name))) for name in VALIDATION],
        "test": [(V2[name], int(name[0])) for name in sorted(V2)],
    }


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_the_stored_images_are_the_owners_files(prepared, split):
    images, wanted = stored(prepared, split), in_order()[split]
    assert len(images) == len(wanted)
    files = images.encoded(np.arange(len(images)))
    assert [file.tobytes() for file in files] == [content for content, _ in wanted]
    assert images.labels.tolist() == [label for _, label in wanted] and images.labels.dtype == np.int32
    sizes = [Image.open(io.BytesIO(content)).size[::-1] for content, _ in wanted]
    np.testing.assert_array_equal(images.sizes, sizes)
    assert not any(file.flags.writeable for file in files)  # of a map, which is open for reading only
    backwards = images.encoded(np.arange(len(images))[::-1])
    assert [file.tobytes() for file in backwards] == [content for content, _ in wanted][::-1]


def test_shards_are_cut_as_the_counts_say(prepared):
    names = {
        key.split(".")[0]
        for side in ("training", "evaluation")
        for key in open_arrays(prepared, side, "imagenet", imagenet.VERSION)
    }
    assert names == {
        *("train_000", "train_001", "validation_000", "validation_001", "validation_002"),
        *("test_000", "test_001", "test_002", "test_003"),
    }


def test_folders_are_stored_as_archives_are(prepared, tmp_path):
    imagenet.prepare(tmp_path, write_folders(tmp_path / "source"), COUNTS)
    for side in ("training", "evaluation"):
        wanted = {path.name: path.read_bytes() for path in (prepared / side / "imagenet").iterdir()}
        assert {path.name: path.read_bytes() for path in (tmp_path / side / "imagenet").iterdir()} == wanted


def test_a_shard_that_is_stored_is_not_made_again(tmp_path):
    of_name = {part.name: part for part in parts(write_archives(tmp_path / "source"), COUNTS)}
    assert not list(of_name["train_001"].convert(frozenset({"train_001"})))
    made = [name for name, _ in of_name["test"].convert(frozenset({"test_000", "test_002"}))]
    assert made == ["test_001", "test_003"]


def test_what_is_prepared_needs_no_source(prepared, tmp_path):
    imagenet.prepare(prepared, None)
    with pytest.raises(DataError, match="not fetched: give the folder that holds ILSVRC2012_img_train"):
        imagenet.prepare(tmp_path, None)


def test_the_real_counts_are_asked_for(tmp_path):
    source = write_archives(tmp_path / "source")
    with pytest.raises(DataError, match="training images of 6 classes, not 1000"):
        imagenet.RESNET_DATASET.prepare(tmp_path, source)
    counts = Counts()
    assert (counts.train, counts.validation, counts.test) == (1_281_167, 50_000, 10_000)


def without(files, *names):
    return {name: data for name, data in files.items() if name not in names}


def refused(tmp_path, message, **changes):
    with pytest.raises(DataError, match=message):
        parts(write_archives(tmp_path / "source", **changes), COUNTS)


def test_a_missing_class_is_named(tmp_path):
    message = "training images of 5 classes, not 6: missing are n00003000"
    refused(tmp_path, message, train=without(TRAIN, "n00003000"))


def test_classes_that_miss_images_are_named(tmp_path):
    train = TRAIN | {"n00500000": without(TRAIN["n00500000"], "n00500000_10.JPEG")}
    refused(tmp_path, "23 training images, not 24: n00500000 has 3 of 4$", train=train)


def test_missing_validation_images_are_told_by_class(tmp_path):
    validation = without(VALIDATION, "ILSVRC2012_val_00000003.JPEG")  # of id 2
    refused(tmp_path, "11 validation images, not 12: n00040000 has 1 of 2$", validation=validation)


def test_missing_test_images_are_told_by_class(tmp_path):
    (part,) = (
        p
        for p in parts(write_archives(tmp_path / "a", v2=without(V2, "4/b0f.jpeg")), COUNTS)
        if p.name == "test"
    )
    with pytest.raises(DataError, match=r"17 ImageNet-V2 images, not 18: n00500000 has 2 of 3$"):
        list(part.convert(frozenset()))
    with pytest.raises(DataError, match=r"17 ImageNet-V2 images, not 18: n00500000 has 2 of 3$"):
        parts(write_folders(tmp_path / "b", v2=without(V2, "4/b0f.jpeg")), COUNTS)


def test_a_test_folder_beyond_the_classes_is_refused(tmp_path):
    v2 = without(V2, "4/b0f.jpeg") | {"6/b0f.jpeg": V2["4/b0f.jpeg"]}
    with pytest.raises(DataError, match="a folder of ImageNet-V2 images is named 6; the last is 5"):
        parts(write_folders(tmp_path / "source", v2=v2), COUNTS)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("ILSVRC2012_img_train.tar", "holds neither ILSVRC2012_img_train.tar nor train/"),
        ("ILSVRC2012_img_val.tar", "holds neither ILSVRC2012_img_val.tar nor val/"),
        ("ILSVRC2012_devkit_t12.tar.gz", r"devkit_t12\.tar\.gz is missing; it holds the classes of"),
        (f"{V2_NAME}.tar.gz", rf"holds neither {V2_NAME}\.tar\.gz nor {V2_NAME}-format-val/"),
    ],
)
def test_a_missing_archive_is_named(tmp_path, missing, message):
    source = write_archives(tmp_path / "source")
    (source / missing).unlink()
    with pytest.raises(DataError, match=message):
        parts(source, COUNTS)


@pytest.mark.parametrize("name", ["ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"])
@pytest.mark.parametrize("fraction", [0.3, 0.999])
def test_a_tar_that_was_cut_off_is_refused(tmp_path, name, fraction):
    source = write_archives(tmp_path / "source")
    content = (source / name).read_bytes()
    end = content.rindex(b"\xff\xd9")  # of the last image; nothing but zeros comes after it
    (source / name).write_bytes(content[: int(fraction * end)])
    with pytest.raises(DataError, match=rf"{name} (cannot be read to its end|is cut off)"):
        parts(source, COUNTS)


@pytest.mark.parametrize("name", ["ILSVRC2012_devkit_t12.tar.gz", f"{V2_NAME}.tar.gz"])
def test_a_gzipped_tar_that_was_cut_off_is_refused(tmp_path, name):
    source = write_archives(tmp_path / "source")
    content = (source / name).read_bytes()
    (source / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=rf"{name} cannot be read to its end"):
        for part in parts(source, COUNTS):
            if part.name == "test":
                list(part.convert(frozenset()))


@pytest.mark.parametrize(
    ("kit", "message"),
    [
        (tar_of({"kit/data/meta.mat": b""}, "w:gz"), "lacks data/ILSVRC2012_validation_ground_truth.txt"),
        (devkit(truth=[9] * 12), r"validation labels name the ids \[9\], which meta\.mat lacks"),
        (devkit(truth=TRUTH[:11]), "validation images are ILSVRC2012_val_NNNNNNNN.JPEG, 1 to 11"),
        (devkit(truth=["n00000013"]), "is not ILSVRC2012's development kit"),
    ],
    ids=["incomplete", "another id", "a label missing", "another kit"],
)
def test_a_kit_that_is_another_is_refused(tmp_path, kit, message):
    refused(tmp_path, message, kit=kit)


def test_validation_images_of_unknown_names_are_refused(tmp_path):
    validation = without(VALIDATION, "ILSVRC2012_val_00000003.JPEG") | {"cat.JPEG": encoded(1)}
    refused(
        tmp_path, r"cat\.JPEG: validation images are ILSVRC2012_val_NNNNNNNN\.JPEG", validation=validation
    )


def test_validation_folders_of_unknown_classes_are_refused(tmp_path):
    source = write_folders(tmp_path / "source")
    (source / "val" / "n00000013").rename(source / "val" / "n00000014")
    with pytest.raises(DataError, match="n00000014 is of a class that has no training images"):
        parts(source, COUNTS)


def test_an_image_that_was_cut_off_ends_the_conversion_and_is_named(tmp_path):
    name = "n00040000_8.JPEG"
    train = TRAIN | {"n00040000": TRAIN["n00040000"] | {name: TRAIN["n00040000"][name][:-300]}}
    source = write_archives(tmp_path / "source", train=train)
    with pytest.raises(DataError, match=rf"ILSVRC2012_img_train\.tar, {name} cannot be decoded to its end"):
        imagenet.prepare(tmp_path / "data", source, COUNTS)
    assert not (tmp_path / "data" / "training").exists()


def evaluated(folder, split, batch_size):
    return list(imagenet.evaluation_batches(folder, split, batch_size, num_eval_train=7))


def by_pillow(content):
    """The middle of an image, 224/256 of its short side, as values 0 to 255."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    side = min(image.size) * 224 // 256
    left, top = ((extent - side) // 2 for extent in image.size)
    image = image.crop((left, top, left + side, top + side))
    return np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR)).astype(float)


@pytest.mark.parametrize("split", ["eval_train", "validation", "test"])
@pytest.mark.parametrize("batch_size", [4, 5, 40])
def test_evaluation_has_every_example_once_and_pads_with_zeros(prepared, split, batch_size):
    wanted = in_order()["train" if split == "eval_train" else split]
    if split == "eval_train":
        wanted = [wanted[i * 24 // 7] for i in range(7)]
    batches = evaluated(prepared, split, batch_size)
    assert len(batches) == -(-len(wanted) // batch_size)
    for batch in batches:
        assert {key: (array.shape, array.dtype.name) for key, array in batch.items()} == {
            "inputs": ((batch_size, 224, 224, 3), "float32"),
            "targets": ((batch_size,), "int32"),
            "weights": ((batch_size,), "float32"),
        }
    whole = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    assert whole["targets"][: len(wanted)].tolist() == [label for _, label in wanted]
    assert (whole["weights"][: len(wanted)] == 1).all()
    for array in whole.values():
        assert not array[len(wanted) :].any()
    for inputs, (content, _) in zip(whole["inputs"], wanted, strict=False):
        assert np.abs((inputs * STD + MEAN) * 255 - by_pillow(content)).mean() < 0.4


def taken(batches, count):
    return list(itertools.islice(batches, count))


TRAININGS = (imagenet.training_batches, imagenet.mixed_training_batches)
TRAINING = pytest.mark.parametrize("training", TRAININGS)


def test_training_batches_follow_the_order(prepared):
    order = Order(batch_size=8, seed=3)
    labels = stored(prepared, "train").labels
    batches = taken(imagenet.training_batches(prepared, order), 4)
    for batch, selection in zip(batches, selections(24, order), strict=False):
        assert batch["inputs"].shape == (8, 224, 224, 3) and batch["inputs"].dtype == np.float32
        assert batch["targets"].dtype == np.int32
        np.testing.assert_array_equal(batch["targets"], labels[selection.indices])


def test_training_images_are_crops_of_their_examples(prepared):
    """Each differs from the middle of its image, and has colours that are there."""
    (batch,) = taken(imagenet.training_batches(prepared, Order(batch_size=24, seed=3)), 1)
    selection = next(selections(24, Order(batch_size=24, seed=3)))
    files = [content for content, _ in in_order()["train"]]
    for inputs, index in zip(batch["inputs"], selection.indices, strict=True):
        values = (inputs * STD + MEAN) * 255
        original = np.asarray(Image.open(io.BytesIO(files[index])).convert("RGB")).astype(float)
        assert np.abs(values - by_pillow(files[index])).mean() > 1
        low, high = original.min(axis=(0, 1)), original.max(axis=(0, 1))
        assert (values >= low - 12).all() and (values <= high + 12).all()


@TRAINING
def test_training_resumes_into_the_second_epoch(prepared, training):
    straight = taken(training(prepared, Order(batch_size=8, seed=1)), 5)[2:]
    resumed = taken(training(prepared, Order(batch_size=8, seed=1, first_batch=2)), 3)
    for a, b in zip(straight, resumed, strict=True):
        np.testing.assert_array_equal(a["inputs"], b["inputs"])
        np.testing.assert_array_equal(a["targets"], b["targets"])


@TRAINING
def test_the_ranks_shares_concatenate_to_the_global_batch(prepared, training):
    whole = taken(training(prepared, Order(batch_size=12, seed=1)), 2)
    ranks = [
        taken(training(prepared, Order(batch_size=12, seed=1, rank=r, world_size=3)), 2) for r in range(3)
    ]
    for batch, *shares in zip(whole, *ranks, strict=True):
        for key in ("inputs", "targets"):
            np.testing.assert_array_equal(batch[key], np.concatenate([share[key] for share in shares]))


def test_an_example_looks_the_same_in_batches_of_any_size(prepared):
    large = taken(imagenet.training_batches(prepared, Order(batch_size=12, seed=5)), 2)
    small = taken(imagenet.training_batches(prepared, Order(batch_size=6, seed=5)), 4)
    for key in ("inputs", "targets"):
        np.testing.assert_array_equal(
            np.concatenate([batch[key] for batch in large]), np.concatenate([batch[key] for batch in small])
        )


def test_every_epoch_and_seed_draws_anew(prepared):
    """The same example, in two epochs and by two seeds."""
    first, second = taken(imagenet.training_batches(prepared, Order(batch_size=24, seed=5)), 2)
    (other,) = taken(imagenet.training_batches(prepared, Order(batch_size=24, seed=6)), 1)
    orders = [
        *taken(selections(24, Order(batch_size=24, seed=5)), 2),
        next(selections(24, Order(batch_size=24, seed=6))),
    ]
    row = [
        batch["inputs"][np.argmax(order.indices == 7)]
        for batch, order in zip((first, second, other), orders, strict=True)
    ]
    assert np.abs(row[0] - row[1]).mean() > 0.05 and np.abs(row[0] - row[2]).mean() > 0.05


def test_mixup_is_the_formula_over_the_global_batch(prepared, monkeypatch):
    order = Order(batch_size=8, seed=2)
    batches = taken(imagenet.mixed_training_batches(prepared, order), 4)
    monkeypatch.setattr(imagenet, "mixup_weight", lambda seed, number: np.float32(1))
    unmixed = taken(imagenet.mixed_training_batches(prepared, order), 4)
    labels = stored(prepared, "train").labels
    weights = [mixup_weight(2, number) for number in range(4)]
    assert len(set(weights)) == 4 and min(weights) < 0.5
    for batch, plain, weight, selection in zip(
        batches, unmixed, weights, selections(24, order), strict=False
    ):
        images = plain["inputs"]
        wanted = weight * images + (1 - weight) * np.roll(images, 1, axis=0)
        np.testing.assert_allclose(batch["inputs"], wanted, rtol=0, atol=1e-5)
        one_hot = np.zeros((8, 1000), np.float32)
        one_hot[np.arange(8), labels[selection.indices]] = 1
        assert batch["targets"].shape == (8, 1000) and batch["targets"].dtype == np.float32
        wanted = weight * one_hot + (1 - weight) * np.roll(one_hot, 1, axis=0)
        np.testing.assert_allclose(batch["targets"], wanted, rtol=0, atol=1e-6)


def test_vision_transformers_see_the_same_crops_augmented(prepared, monkeypatch):
    """RandAugment's solarizing changes nothing, so with it alone they see what residual networks see."""
    monkeypatch.setattr(imagenet, "mixup_weight", lambda seed, number: np.float32(1))
    order = Order(batch_size=12, seed=2)
    plain, augmented = (next(training(prepared, order))["inputs"] for training in TRAININGS)
    assert sum(np.array_equal(a, b) for a, b in zip(plain, augmented, strict=True)) < 3
    solarize = np.full((12, 8), (Operation.SOLARIZE + 0.5) / len(Operation))
    monkeypatch.setattr(imagenet, "rounds", lambda numbers: rounds(solarize[: len(numbers)]))
    np.testing.assert_array_equal(next(imagenet.mixed_training_batches(prepared, order))["inputs"], plain)


def test_training_and_validation_need_nothing_of_each_other(prepared, tmp_path):
    shutil.copytree(prepared / "training", tmp_path / "a" / "training")
    shutil.copytree(prepared / "evaluation", tmp_path / "b" / "evaluation")
    next(imagenet.training_batches(tmp_path / "a", Order(batch_size=5, seed=1)))
    assert len(evaluated(tmp_path / "b", "validation", 12)) == 1
    assert len(evaluated(tmp_path / "b", "test", 18)) == 1


def test_without_dali_it_says_what_to_install(prepared, monkeypatch):
    monkeypatch.delitem(sys.modules, "timetrial.data_loading.images_dali")
    monkeypatch.delattr(data_loading, "images_dali")
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(UsageError, match=r"DALI, which is not installed; install timetrial\[full\]"):
        next(imagenet.training_batches(prepared, Order(batch_size=5, seed=1)))
