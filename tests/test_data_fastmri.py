"""fastMRI, from a few small volumes in the owner's format."""

import itertools
from dataclasses import replace

import h5py
import numpy as np
import pytest

from timetrial.data_loading import fastmri, fastmri_volumes
from timetrial.data_loading.undersampling import evaluation_columns, mask_key, training_columns
from timetrial.engine.errors import DataError
from timetrial.engine.facts import Order

# Slices and columns of each volume.
TRAIN = [(2, 324), (1, 321), (3, 332)]
HELD_OUT = [(1, 322), (2, 324), (1, 340)]
SIZES = fastmri.Sizes(
    train_volumes=3,
    train=6,
    eval_train=5,
    validation_volumes=2,
    validation=3,
    test_volumes=1,
    test=1,
    per_shard=2,
    per_eval_train_shard=2,
)


def write_volume(path, slices, width, seed, maximum=None):
    generator = np.random.default_rng(seed)
    kspace = generator.normal(size=(2, slices, 640, width))
    with h5py.File(path, "w") as file:
        file["kspace"] = (kspace[0] + 1j * kspace[1]).astype(np.complex64)
        file["reconstruction_esc"] = generator.random((slices, 320, 320), np.float32) * 2
        if maximum is not None:
            file.attrs["max"] = maximum


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Volume i has the maximum i + 1, but for the last, which has none. Files are not written in order."""
    source = tmp_path_factory.mktemp("owner")
    for folder, volumes in (("knee_singlecoil_train", TRAIN), ("singlecoil_val", HELD_OUT)):
        (source / folder).mkdir()
        for number, (slices, width) in reversed(list(enumerate(volumes))):
            maximum = None if volumes is HELD_OUT and number == 2 else number + 1
            write_volume(source / folder / f"file100000{number}.h5", slices, width, width + number, maximum)
    return source


@pytest.fixture(scope="module")
def prepared(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fastmri, "SIZES", SIZES)
        fastmri.prepare(folder, source)
    return folder


@pytest.fixture
def damaged(source, tmp_path):
    """A copy of the training folder, to be damaged."""
    (tmp_path / "knee_singlecoil_train").mkdir()
    for path in (source / "knee_singlecoil_train").iterdir():
        (tmp_path / "knee_singlecoil_train" / path.name).write_bytes(path.read_bytes())
    return tmp_path


def read(damaged):
    """Headers and slices of all training volumes."""
    volumes = fastmri_volumes.volumes_of(damaged, "train", 3, 6)
    return [list(fastmri_volumes.read_slices(volume, range(volume.num_slices))) for volume in volumes]


def stated(path, row, kept):
    """From the file to the model's input and target, in float64 and on all of k-space."""
    with h5py.File(path) as file:
        kspace = file["kspace"][row].astype(np.complex128)
        target = file["reconstruction_esc"][row].astype(np.float64)
        maximum = file.attrs.get("max", 0)
    height, width = kspace.shape
    kspace[:, np.setdiff1d(np.arange(width), kept)] = 0
    image = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace))) * np.sqrt(height * width)
    left = (width - 320) // 2
    zero_filled = abs(image[160:480, left : left + 320])
    mean, std = zero_filled.mean(), zero_filled.std()
    return {
        "inputs": np.clip((zero_filled - mean) / std, -6, 6),
        "targets": np.clip((target - mean) / std, -6, 6),
        "mean": mean,
        "std": std,
        "volume_max": maximum,
    }


def agree(batch, row, wanted):
    for key, value in wanted.items():
        np.testing.assert_allclose(batch[key][row], value, rtol=0, atol=1e-5, err_msg=key)


def slices_of(folder, volumes):
    """(file, row, columns) of every slice in order."""
    paths = sorted(folder.glob("*.h5"))
    return [
        (path, row, width)
        for path, (slices, width) in zip(paths, volumes, strict=True)
        for row in range(slices)
    ]


@pytest.mark.parametrize("split, rows", [("validation", slice(0, 3)), ("test", slice(3, 4))])
def test_held_out_slices_are_those_of_the_files_under_the_fixed_mask(prepared, source, split, rows):
    wanted = slices_of(source / "singlecoil_val", HELD_OUT)[rows]
    (batch,) = fastmri.evaluation_batches(prepared, split, len(wanted))
    assert batch["weights"].tolist() == [1] * len(wanted)
    for number, (path, row, width) in enumerate(wanted):
        agree(batch, number, stated(path, row, evaluation_columns(width)))


def test_evaluated_training_slices_are_spread_and_masked_as_with_seed_0(prepared, source):
    slices = slices_of(source / "knee_singlecoil_train", TRAIN)
    batches = list(fastmri.evaluation_batches(prepared, "eval_train", 2))
    assert [batch["weights"].tolist() for batch in batches] == [[1, 1], [1, 1], [1, 0]]
    assert not batches[2]["inputs"][1].any()
    joined = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    for number, index in enumerate((0, 1, 2, 3, 4)):
        path, row, width = slices[index]
        agree(joined, number, stated(path, row, training_columns(mask_key(0), index, width)))


def test_evaluation_batches_cross_shards(prepared):
    """Of the five evaluated training slices three lie in one shard and two in the next."""
    (whole,) = fastmri.evaluation_batches(prepared, "eval_train", 5)
    pairs = list(fastmri.evaluation_batches(prepared, "eval_train", 2))
    for key, values in whole.items():
        np.testing.assert_array_equal(np.concatenate([pair[key] for pair in pairs])[:5], values)


def test_training_batches_are_the_files_slices_under_their_own_masks(prepared, source):
    slices = slices_of(source / "knee_singlecoil_train", TRAIN)
    order = Order(batch_size=3, seed=4)
    batches = list(itertools.islice(fastmri.training_batches(prepared, order), 4))
    assert {key: (values.shape, values.dtype.name) for key, values in batches[0].items()} == {
        "inputs": ((3, 320, 320), "float32"),
        "targets": ((3, 320, 320), "float32"),
        "mean": ((3,), "float32"),
        "std": ((3,), "float32"),
        "volume_max": ((3,), "float32"),
    }
    masked = [
        stated(path, row, training_columns(mask_key(4), index, width))
        for index, (path, row, width) in enumerate(slices)
    ]
    means = np.array([wanted["mean"] for wanted in masked])
    for epoch in (batches[:2], batches[2:]):
        seen = []
        for batch in epoch:
            for row, mean in enumerate(batch["mean"]):
                index = int(abs(means - mean).argmin())
                agree(batch, row, masked[index])
                seen.append(index)
        assert sorted(seen) == list(range(6))


def test_masks_differ_between_runs(prepared):
    means = [
        np.sort(
            np.concatenate(
                [
                    batch["mean"]
                    for batch in itertools.islice(
                        fastmri.training_batches(prepared, Order(batch_size=3, seed=s)), 2
                    )
                ]
            )
        )
        for s in (1, 2)
    ]
    assert (means[0] != means[1]).all()


def test_training_resumes_and_is_shared_out(prepared):
    straight = list(itertools.islice(fastmri.training_batches(prepared, Order(batch_size=2, seed=1)), 5))
    for rank in (0, 1):
        order = Order(batch_size=2, seed=1, first_batch=3, rank=rank, world_size=2)
        resumed = fastmri.training_batches(prepared, order)
        for whole, share in zip(straight[3:], resumed, strict=False):
            for key, values in share.items():
                np.testing.assert_array_equal(values, whole[key][rank : rank + 1])


def test_training_needs_nothing_of_the_evaluation_side(prepared):
    (prepared / "evaluation").rename(prepared / "denied")
    try:
        next(fastmri.training_batches(prepared, Order(batch_size=2, seed=1)))
    finally:
        (prepared / "denied").rename(prepared / "evaluation")


def test_what_is_prepared_needs_no_source(prepared):
    fastmri.prepare(prepared, None)


def test_without_a_source_the_needed_folders_are_named(tmp_path):
    with pytest.raises(DataError, match="knee_singlecoil_train and knee_singlecoil_val"):
        fastmri.prepare(tmp_path, None)


def test_archives_that_are_not_extracted_are_refused(tmp_path):
    (tmp_path / "knee_singlecoil_train.tar.xz").touch()
    with pytest.raises(DataError, match=r"extract knee_singlecoil_train\.tar\.xz"):
        fastmri.parts(tmp_path, SIZES)


def test_other_counts_than_the_datasets_are_refused(source):
    with pytest.raises(DataError, match=r"holds 3 volumes .* not 973"):
        fastmri.parts(source, fastmri.Sizes())
    with pytest.raises(DataError, match="hold 6 slices, not 7"):
        fastmri.parts(source, replace(SIZES, train=7))
    with pytest.raises(DataError, match=r"first 2 validation volumes .* hold 3 slices, not 2"):
        fastmri.parts(source, replace(SIZES, validation=2, test=2))


def rewrite(key, values):
    def change(file):
        del file[key]
        file[key] = values

    return change


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda file: file.pop("kspace"), "no dataset `kspace`"),
        (lambda file: file.pop("reconstruction_esc"), "no dataset `reconstruction_esc`"),
        (rewrite("kspace", np.zeros((2, 320, 324), np.complex64)), r"complex64 \(2, 320, 324\), not"),
        (rewrite("kspace", np.zeros((2, 640, 319), np.complex64)), r"complex64 \(2, 640, 319\), not"),
        (rewrite("kspace", np.zeros((2, 640, 324), np.complex128)), "complex128"),
        (rewrite("kspace", np.zeros((2, 15, 640, 324), np.complex64)), "not complex64"),
        (rewrite("kspace", np.zeros((2, 640, 324), np.complex64)), "slice 0 is empty"),
        (rewrite("reconstruction_esc", np.zeros((3, 320, 320), np.float32)), r"not float32 \(2, 320, 320\)"),
        (rewrite("reconstruction_esc", np.zeros((2, 320, 320))), "float64"),
        (rewrite("reconstruction_esc", np.full((2, 320, 320), np.nan, np.float32)), "not finite"),
    ],
)
def test_a_volume_of_another_format_is_refused_and_named(damaged, change, message):
    path = damaged / "knee_singlecoil_train/file1000000.h5"
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(DataError, match=message) as raised:
        read(damaged)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("keep", [0, 100, 1_000_000])
def test_a_truncated_volume_is_refused_and_named(damaged, keep):
    path = damaged / "knee_singlecoil_train/file1000001.h5"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"file1000001\.h5 is no HDF5 file or is damaged"):
        read(damaged)


def test_a_file_of_text_is_refused(damaged):
    (damaged / "knee_singlecoil_train/file1000002.h5").write_text("not found\n" * 1000)
    with pytest.raises(DataError, match=r"file1000002\.h5 is no HDF5 file"):
        read(damaged)


def test_a_held_out_volume_too_wide_for_the_fixed_masks_is_refused(source, tmp_path):
    for folder in ("knee_singlecoil_train", "singlecoil_val"):
        (tmp_path / folder).symlink_to(source / folder)
    (tmp_path / "knee_singlecoil_val").mkdir()
    for number, (slices, _) in enumerate(HELD_OUT):
        write_volume(tmp_path / f"knee_singlecoil_val/file{number}.h5", slices, 402, number)
    with pytest.raises(DataError, match=r"file0\.h5 has 402 columns"):
        fastmri.parts(tmp_path, SIZES)


def test_a_conversion_continues_after_the_shards_that_are_stored(source):
    (first, *_) = fastmri.parts(source, SIZES)
    assert [name for name, _ in first.convert(frozenset())] == ["train_000"]
    assert list(first.convert(frozenset({"train_000"}))) == []


def test_the_disk_need_covers_what_is_written():
    """Even where every volume has 388 columns."""
    written = 34_742 * (388 * 320 * 8 + 320 * 320 * 4) + 10_719 * 2 * 320 * 320 * 4
    assert written <= fastmri.disk_need(None) < 1.1 * written
