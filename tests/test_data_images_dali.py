"""The image pipeline on the CPU: against Pillow, step by step, and as an iterator."""

import io

import numpy as np
import pytest
from PIL import Image

from timetrial.data_loading.images_dali import MEAN, STD, Steps, pixels
from timetrial.data_loading.rand_augment import Operation, affine_matrices, cutouts

HEIGHT, WIDTH = 260, 330
WINDOWS = [
    (40, 30, 180, 250),
    (0, 0, HEIGHT, WIDTH),
    (200, 10, 60, 50),
    (17, 105, 224, 224),
    (5, 300, 100, 30),
]


def photograph(seed):
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 15, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)).astype(float)
    return Image.fromarray(np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8))


def encoded(image, file_format="JPEG", **options):
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return np.frombuffer(file.getvalue(), np.uint8)


FILES = [encoded(photograph(seed), quality=92) for seed in range(len(WINDOWS))]
MIRRORED = np.array([1, 0, 1, 1, 0], np.int32)


def feed(files=FILES, windows=WINDOWS, **more):
    windows = np.array(windows, np.int32)
    corners, extents = (np.ascontiguousarray(part) for part in np.split(windows, 2, axis=1))
    return {"encoded": list(files), "corners": corners, "extents": extents, **more}


def augmentation(*operations):
    """The inputs of two rounds, the same for every image."""
    inputs = {}
    for number, operation in enumerate(operations):
        of_all = np.full(len(FILES), operation, np.int32)
        inputs[f"operations_{number}"] = of_all
        inputs[f"matrices_{number}"] = affine_matrices(of_all, np.ones(len(FILES)))
        inputs[f"cutouts_{number}"] = cutouts(np.full((len(FILES), 2), 60))
    return inputs


def run(steps, *feeds):
    return list(pixels(iter(feeds), steps, len(feeds[0]["encoded"]), None))


def levels(normalised):
    """What normalisation did, undone: values 0 to 255, float."""
    return (normalised.astype(np.float64) * STD + MEAN) * 255


def by_pillow(file, window, mirrored=False):
    top, left, height, width = window
    image = Image.open(io.BytesIO(file.tobytes())).convert("RGB")
    image = image.crop((left, top, left + width, top + height))
    image = np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR)).astype(float)
    return image[:, ::-1] if mirrored else image


@pytest.fixture(scope="module")
def plain():
    """Decoded, resized and normalised."""
    (batch,) = run(Steps(), feed())
    return batch


def assert_like_pillow(got, wanted):
    """Both round to whole levels, Pillow also between its two passes."""
    difference = np.abs(levels(got) - wanted)
    assert difference.mean() < 0.3 and difference.max() < 2.5


def test_windows_are_decoded_and_resized_as_pillow_does(plain):
    assert plain.shape == (5, 224, 224, 3) and plain.dtype == np.float32
    assert plain.flags.c_contiguous and plain.flags.writeable
    for got, file, window in zip(plain, FILES, WINDOWS, strict=True):
        assert_like_pillow(got, by_pillow(file, window))


def test_resized_values_are_whole_levels(plain):
    values = levels(plain)
    np.testing.assert_allclose(values, np.rint(values), rtol=0, atol=1e-4)


def test_a_window_of_the_final_size_is_not_changed(plain):
    assert np.abs(levels(plain[3]) - by_pillow(FILES[3], WINDOWS[3])).max() < 1.01  # two decoders


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(encoded(photograph(9), quality=92, subsampling=0), id="444"),
        pytest.param(encoded(photograph(9), quality=92, progressive=True), id="progressive"),
        pytest.param(encoded(photograph(9).convert("L"), quality=92), id="grey"),
        pytest.param(encoded(photograph(9).convert("CMYK"), quality=92), id="CMYK"),
        pytest.param(encoded(photograph(9), "PNG"), id="PNG"),
        pytest.param(encoded(photograph(9).convert("RGBA"), "PNG"), id="PNG with alpha"),
    ],
)
def test_what_imagenet_holds_beside_ordinary_jpegs(file):
    windows = WINDOWS[:2]
    (batch,) = run(Steps(), feed([file, file], windows))
    for got, window in zip(batch, windows, strict=True):
        assert_like_pillow(got, by_pillow(file, window))


def test_orientation_in_metadata_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    (batch,) = run(Steps(), feed([encoded(photograph(0), quality=92, exif=exif)], WINDOWS[1:2]))
    (plain,) = run(Steps(), feed(FILES[:1], WINDOWS[1:2]))
    np.testing.assert_array_equal(batch, plain)


def test_mirroring_is_exact(plain):
    (batch,) = run(Steps(mirror=True), feed(mirrored=MIRRORED))
    for got, original, mirrored in zip(batch, plain, MIRRORED, strict=True):
        np.testing.assert_array_equal(got, original[:, ::-1] if mirrored else original)


def test_padding_is_zero_and_changes_nothing_else(plain):
    weights = np.array([1, 1, 0, 1, 0], np.float32)
    (batch,) = run(Steps(padding=True), feed(weights=weights))
    np.testing.assert_array_equal(batch, plain * weights[:, None, None, None])
    assert not batch[2].any() and not batch[4].any()


def test_augmentations_come_after_mirroring_one_after_the_other(plain):
    steps = Steps(mirror=True, rand_augment=True)
    inverted_last = feed(mirrored=MIRRORED, **augmentation(Operation.TRANSLATE_X, Operation.INVERT))
    inverted_first = feed(mirrored=MIRRORED, **augmentation(Operation.INVERT, Operation.TRANSLATE_X))
    last, first = run(steps, inverted_last, inverted_first)
    for i, original in enumerate(levels(plain)):
        mirrored = original[:, ::-1] if MIRRORED[i] else original
        moved = 255 - mirrored[:, 100:]
        for got, outside in ((last, 127), (first, 128)):
            np.testing.assert_allclose(levels(got[i])[:, :124], moved, rtol=0, atol=1e-3)
            np.testing.assert_allclose(levels(got[i])[:, 124:], outside, rtol=0, atol=1e-3)


def test_mixup_takes_the_row_before_and_for_the_first_the_last(plain):
    weights = np.full(5, 0.3, np.float32)
    (batch,) = run(Steps(mixup=True), feed(weights=weights))
    wanted = 0.3 * plain + 0.7 * np.roll(plain, 1, axis=0)
    np.testing.assert_allclose(batch, wanted, rtol=0, atol=1e-5)


def test_a_share_of_a_batch_is_given_the_row_before_its_first(plain):
    share = slice(2, 5)
    previous = {
        f"previous_{name}": rows * 3 if isinstance(rows, list) else np.repeat(rows, 3, axis=0)
        for name, rows in feed(FILES[1:2], WINDOWS[1:2]).items()
    }
    weights = np.full(3, 0.3, np.float32)
    is_first = np.array([True, False, False])
    (batch,) = run(
        Steps(mixup=True, joined=True),
        feed(FILES[share], WINDOWS[share], weights=weights, is_first=is_first, **previous),
    )
    wanted = 0.3 * plain[share] + 0.7 * plain[1:4]
    np.testing.assert_allclose(batch, wanted, rtol=0, atol=1e-5)


def test_an_image_looks_the_same_in_any_batch(plain):
    for i in range(5):
        (alone,) = run(Steps(), feed(FILES[i : i + 1], WINDOWS[i : i + 1]))
        np.testing.assert_array_equal(alone[0], plain[i])


@pytest.mark.parametrize("count", [0, 1, 2, 3, 6])
def test_every_feed_gives_its_batch_in_order_and_batches_stay_valid(plain, count):
    feeds = [feed(FILES[i % 5 : i % 5 + 1], WINDOWS[i % 5 : i % 5 + 1]) for i in range(count)]
    batches = list(pixels(iter(feeds), Steps(), 1, None))
    assert len(batches) == count
    for i, batch in enumerate(batches):
        np.testing.assert_array_equal(batch[0], plain[i % 5])


def test_it_reads_one_batch_ahead_and_may_be_left_there():
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield feed(FILES[:1], WINDOWS[:1])

    batches = pixels(endless(), Steps(), 1, None)
    assert taken == 0
    for count in range(1, 5):
        next(batches)
        assert taken == count + 1
    batches.close()
    assert taken == 5


def test_what_goes_wrong_in_a_feed_is_raised():
    def broken():
        yield feed(FILES[:1], WINDOWS[:1])
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(pixels(broken(), Steps(), 1, None))


@pytest.mark.gpu
@pytest.mark.parametrize("operation", Operation)
def test_a_gpu_makes_what_the_cpu_makes(operation):
    """Decoders, filters and rounding differ by a level here and there; equalizing and sharpening enlarge that."""
    steps = Steps(mirror=True, rand_augment=True, mixup=True, joined=True)
    image = feed(mirrored=MIRRORED, **augmentation(operation, Operation.SOLARIZE))
    previous = {f"previous_{name}": rows for name, rows in image.items()}
    weights = np.full(5, 0.7, np.float32)
    fed = image | previous | {"weights": weights, "is_first": np.arange(5) == 0}
    (wanted,) = run(steps, fed)
    (got,) = pixels(iter([fed]), steps, 5, 0)
    difference = np.abs(levels(np.asarray(got.as_cpu())) - levels(wanted))
    assert difference.mean() < 1.5
