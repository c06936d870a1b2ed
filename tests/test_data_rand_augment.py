"""RandAugment: its draws, and every operation of the DALI graph against Pillow or NumPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nvidia.dali import fn, types
from nvidia.dali.pipeline import pipeline_def
from PIL import Image, ImageEnhance, ImageOps

from timetrial.data_loading.example_numbers import example_numbers
from timetrial.data_loading.rand_augment import (
    LAST_AFFINE,
    NUMBERS,
    SIDE,
    Operation,
    affine_matrices,
    cutouts,
    rounds,
)
from timetrial.data_loading.rand_augment_dali import augmented

GREY = (128, 128, 128)
CENTRES = np.array([[100, 90], [0, 0], [223, 30], [20, 223]])


def photograph(seed):
    """Smooth colours with edges and noise, from 9 to 240 or so."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(30, 200, (8, 8, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)).astype(np.int64)
    pixels[40:150, 60:190] += rng.integers(-60, 60, 3)
    return np.clip(pixels + rng.integers(-8, 9, pixels.shape), 9, 240).astype(np.uint8)


IMAGES = np.stack([photograph(seed) for seed in range(4)])
IMAGES[1, :, :, 1] = 77  # a flat channel
IMAGES[2] = 255 - IMAGES[2] // 4  # a bright one


def by_dali(images, operations, signs, patches):
    """`augmented` of a whole batch."""
    inputs = (operations.astype(np.int32), affine_matrices(operations, signs), patches)

    @pipeline_def(batch_size=len(images), num_threads=1, device_id=None, enable_conditionals=True)
    def graph():
        image = fn.external_source(source=[images], layout="HWC", dtype=types.UINT8, ndim=3)
        operation, matrix, cutout = fn.external_source(
            source=[inputs], num_outputs=3, dtype=[types.INT32, types.FLOAT, types.FLOAT], ndim=[0, 2, 1]
        )
        return augmented(image, operation, matrix, cutout, "cpu")

    (result,) = graph(prefetch_queue_depth=1).run()
    return np.stack([np.array(result[i]) for i in range(len(images))])


@pytest.fixture(scope="module")
def results():
    """Every image by every operation with both signs, all in one shuffled batch: by (operation, sign, image)."""
    cases = [(op, sign, i) for op in Operation for sign in (-1, 1) for i in range(len(IMAGES))]
    cases = [cases[i] for i in np.random.default_rng(0).permutation(len(cases))]
    operations, signs, images = (np.array(column) for column in zip(*cases, strict=True))
    outputs = by_dali(IMAGES[images], operations, signs, cutouts(CENTRES[images]))
    assert outputs.shape == (len(cases), SIDE, SIDE, 3)
    return dict(zip(cases, outputs, strict=True))


def assert_close(results, operation, statement, tolerance):
    for sign in (-1, 1):
        for i, image in enumerate(IMAGES):
            wanted = np.asarray(statement(image)).astype(int)
            difference = np.abs(results[operation, sign, i].astype(int) - wanted)
            assert difference.max() <= tolerance, (operation.name, sign, i, difference.max())


def enhanced(enhancer):
    return lambda image: enhancer(Image.fromarray(image)).enhance(1.9)


def equalized(image):
    """255 * (pixels below the value) / (pixels below the greatest value), of every channel."""
    result = np.empty(image.shape)
    for channel in range(3):
        values = image[:, :, channel]
        below = np.concatenate([[0], np.cumsum(np.bincount(values.ravel(), minlength=256))[:-1]])
        whole = below[values.max()]
        result[:, :, channel] = np.rint(255 * below[values] / whole) if whole else values
    return result


def solarize_added(image):
    return np.where(image < 128, np.minimum(image.astype(int) + 110, 255), image)


@pytest.mark.parametrize(
    ("operation", "statement", "tolerance"),
    [
        (Operation.AUTO_CONTRAST, lambda image: ImageOps.autocontrast(Image.fromarray(image)), 1),
        (Operation.EQUALIZE, equalized, 1),
        (Operation.INVERT, lambda image: ImageOps.invert(Image.fromarray(image)), 0),
        (Operation.POSTERIZE, lambda image: ImageOps.posterize(Image.fromarray(image), 4), 0),
        (Operation.SOLARIZE, lambda image: ImageOps.solarize(Image.fromarray(image), 256), 0),
        (Operation.SOLARIZE_ADD, solarize_added, 0),
        (Operation.COLOR, enhanced(ImageEnhance.Color), 1),
        (Operation.CONTRAST, enhanced(ImageEnhance.Contrast), 1),
        (Operation.BRIGHTNESS, enhanced(ImageEnhance.Brightness), 0),
        (Operation.SHARPNESS, enhanced(ImageEnhance.Sharpness), 1),
    ],
)
def test_operations_on_values(results, operation, statement, tolerance):
    assert_close(results, operation, statement, tolerance)


def test_values_are_cut_off_as_pillow_does_and_not_rounded_up(results):
    """What tolerances hide: on average there is no difference."""
    for operation, enhancer in (
        (Operation.COLOR, ImageEnhance.Color),
        (Operation.CONTRAST, ImageEnhance.Contrast),
    ):
        wanted = np.stack([np.asarray(enhanced(enhancer)(image)) for image in IMAGES]).astype(int)
        got = np.stack([results[operation, 1, i] for i in range(len(IMAGES))]).astype(int)
        assert abs((got - wanted).mean()) < 0.02


def test_equalizing_is_within_a_few_levels_of_pillow(results):
    """Which divides by a whole number of pixels a level."""
    for i in (0, 3):
        wanted = np.asarray(ImageOps.equalize(Image.fromarray(IMAGES[i]))).astype(int)
        difference = np.abs(results[Operation.EQUALIZE, 1, i] - wanted)
        assert difference.max() <= 3 and difference.mean() < 1


def test_sharpness_leaves_the_outermost_pixels(results):
    inner = np.zeros((SIDE, SIDE, 3), bool)
    inner[1:-1, 1:-1] = True
    got = results[Operation.SHARPNESS, 1, 0]
    np.testing.assert_array_equal(got[~inner], IMAGES[0][~inner])
    assert (got[inner] != IMAGES[0][inner]).mean() > 0.5


@pytest.mark.parametrize("sign", [-1, 1])
def test_translation_moves_by_100_pixels(results, sign):
    for operation, axis in ((Operation.TRANSLATE_X, 1), (Operation.TRANSLATE_Y, 0)):
        wanted = np.roll(IMAGES[0], -sign * 100, axis)
        outside = [slice(None), slice(None)]
        outside[axis] = slice(-100, None) if sign > 0 else slice(100)
        wanted[tuple(outside)] = 128
        np.testing.assert_array_equal(results[operation, sign, 0], wanted)


@pytest.mark.parametrize("sign", [-1, 1])
def test_shears_are_those_of_pillow_about_the_corner(results, sign):
    image = Image.fromarray(IMAGES[0])
    for operation, matrix in (
        (Operation.SHEAR_X, (1, 0.3 * sign, 0, 0, 1, 0)),
        (Operation.SHEAR_Y, (1, 0, 0, 0.3 * sign, 1, 0)),
    ):
        wanted = image.transform(
            image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=GREY
        )
        differing = (results[operation, sign, 0] != np.asarray(wanted)).any(axis=2)
        assert differing.mean() < 0.001


@pytest.mark.parametrize("sign", [-1, 1])
def test_rotations_are_those_of_pillow_about_the_centre(results, sign):
    wanted = Image.fromarray(IMAGES[0]).rotate(30 * sign, Image.Resampling.NEAREST, fillcolor=GREY)
    differing = (results[Operation.ROTATE, sign, 0] != np.asarray(wanted)).any(axis=2)
    assert differing.mean() < 0.001  # where a pixel's centre falls onto the border of two


def test_cutouts_are_grey_squares_cut_off_at_the_borders(results):
    for i, (row, column) in enumerate(CENTRES):
        wanted = IMAGES[i].copy()
        wanted[max(row - 40, 0) : row + 40, max(column - 40, 0) : column + 40] = 128
        np.testing.assert_array_equal(results[Operation.CUTOUT, 1, i], wanted)


def drawn(count=40_000):
    return rounds(example_numbers(3, 1, np.arange(count), NUMBERS))


def test_operations_are_drawn_uniformly_and_with_replacement():
    first, second = drawn()
    pairs = np.bincount(16 * first.operations + second.operations, minlength=256)
    # 156 of each pair are expected, with a standard deviation of 12; a pure function, so this cannot flicker.
    assert len(pairs) == 256 and abs(pairs - 40_000 / 256).max() < 5 * 12.5
    for one in (first, second):
        counts = np.bincount(one.operations, minlength=16)
        assert abs(counts - 2_500).max() < 5 * 48.4


def test_signs_are_fair_coins_and_belong_to_affine_operations_alone():
    first, _ = drawn()
    for operation in Operation:
        matrices = first.matrices[first.operations == operation]
        kinds, counts = np.unique(matrices, axis=0, return_counts=True)
        if operation > LAST_AFFINE:
            np.testing.assert_array_equal(kinds, np.eye(2, 3)[None])
        else:
            assert len(kinds) == 2 and abs(counts - counts.sum() / 2).max() < 150


def test_centres_of_cutouts_are_uniform():
    first, _ = drawn()
    inside = (first.cutouts[:, 2:] == 80).all(axis=1)
    assert abs(inside.mean() - (145 / 224) ** 2) < 0.01  # centres 40 to 184
    assert abs(first.cutouts[inside, :2].mean() - 72) < 1


@given(st.integers(0, SIDE - 1), st.integers(0, SIDE - 1))
def test_cutouts_lie_within_the_image(row, column):
    top, left, height, width = cutouts(np.array([[row, column]]))[0]
    assert 0 <= top <= row < top + height <= SIDE
    assert 0 <= left <= column < left + width <= SIDE
    assert 40 <= height <= 80 and 40 <= width <= 80
