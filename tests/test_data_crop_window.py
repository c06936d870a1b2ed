"""Windows of random-resized crops and of the evaluation; the random numbers of an example."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from timetrial.data_loading.crop_window import (
    ASPECTS,
    ATTEMPTS,
    NUMBERS,
    evaluation_windows,
    random_windows,
)
from timetrial.data_loading.example_numbers import example_numbers

sides = st.integers(1, 5000)


def windows_of(height, width, count, seed=0):
    numbers = example_numbers(seed, 0, np.arange(count), NUMBERS)
    return random_windows(np.full((count, 2), (height, width), np.int32), numbers)


def assert_inside(windows, height, width):
    top, left, heights, widths = windows.T
    assert windows.dtype == np.int32
    assert (top >= 0).all() and (left >= 0).all() and (heights > 0).all() and (widths > 0).all()
    assert (top + heights <= height).all() and (left + widths <= width).all()


@given(sides, sides, st.integers(0, 2**32 - 1))
def test_random_windows_lie_within_the_image(height, width, seed):
    assert_inside(windows_of(height, width, 20, seed), height, width)


@given(sides, sides)
def test_evaluation_windows_are_central_squares(height, width):
    windows = evaluation_windows(np.array([[height, width]], np.int32))
    assert_inside(windows, height, width)
    top, left, side, other = windows[0]
    assert side == other == max(min(height, width) * 224 // 256, 1)
    assert abs(height - side - 2 * top) <= 1 and abs(width - side - 2 * left) <= 1


def test_areas_and_aspect_ratios_are_within_their_bounds():
    windows = windows_of(1500, 2000, 5_000)
    heights, widths = windows[:, 2].astype(float), windows[:, 3].astype(float)
    areas, aspects = heights * widths / (1500 * 2000), widths / heights
    # Sides are rounded to whole pixels, of which the smallest window has some 420.
    assert 0.0798 < areas.min() < 0.085 and 0.95 < areas.max() < 1.002
    assert 0.747 < aspects.min() < 0.76 and 1.32 < aspects.max() < 1.337


def test_areas_are_uniform_and_aspect_ratios_log_uniform():
    """In a square image every attempt fits whose area is below 3/4."""
    windows = windows_of(2000, 2000, 20_000)
    areas = windows[:, 2].astype(float) * windows[:, 3] / 2000**2
    small = areas < 0.75
    assert kstest(areas[small], "uniform", (0.08, 0.67)).pvalue > 0.01
    logs = np.log(windows[small, 3] / windows[small, 2])
    low, high = np.log(ASPECTS)
    assert kstest(logs, "uniform", (low, high - low)).pvalue > 0.01
    assert abs(np.corrcoef(areas[small], logs)[0, 1]) < 0.03


def test_places_are_uniform():
    windows = windows_of(400, 600, 20_000)
    room = np.array([400, 600]) - windows[:, 2:]
    roomy = (room > 100).all(axis=1)
    places = windows[roomy, :2] / room[roomy]
    np.testing.assert_allclose(places.mean(axis=0), 0.5, atol=0.01)
    np.testing.assert_allclose(places.std(axis=0), 12**-0.5, atol=0.01)


def one_by_one(size, numbers):
    """The law of the docstring, one attempt after another."""
    height, width = int(size[0]), int(size[1])
    for attempt in range(ATTEMPTS):
        area = (0.08 + 0.92 * numbers[attempt]) * height * width
        aspect = 0.75 * (16 / 9) ** numbers[ATTEMPTS + attempt]
        h, w = round((area / aspect) ** 0.5), round((area * aspect) ** 0.5)
        if 0 < h <= height and 0 < w <= width:
            return int(numbers[-2] * (height - h + 1)), int(numbers[-1] * (width - w + 1)), h, w
    h, w = min(height, round(width * 4 / 3)), min(width, round(height * 4 / 3))
    return (height - h) // 2, (width - w) // 2, h, w


@given(st.integers(1, 700), st.integers(1, 700), st.integers(0, 2**32 - 1))
def test_the_arrays_agree_with_one_attempt_after_another(height, width, seed):
    sizes = np.full((5, 2), (height, width), np.int32)
    numbers = example_numbers(seed, 0, np.arange(5), NUMBERS)
    wanted = [one_by_one(size, own) for size, own in zip(sizes, numbers, strict=True)]
    np.testing.assert_array_equal(random_windows(sizes, numbers), wanted)


def test_a_panorama_gets_its_largest_central_window():
    """An image that is 20 times as wide as high has no window of these areas and aspect ratios."""
    np.testing.assert_array_equal(windows_of(90, 1800, 4), [(0, 840, 90, 120)] * 4)
    np.testing.assert_array_equal(windows_of(1800, 90, 4), [(840, 0, 120, 90)] * 4)


def test_an_examples_numbers_depend_on_nothing_beside_it():
    whole = example_numbers(5, 2, np.arange(1000), 31)
    some = np.array([999, 0, 17, 17])
    np.testing.assert_array_equal(example_numbers(5, 2, some, 31), whole[some])
    np.testing.assert_array_equal(example_numbers(5, 2, some, 7), whole[some, :7])


@pytest.mark.parametrize("other", [(1, 0), (0, 1)])
def test_seeds_and_epochs_draw_anew(other):
    a, b = example_numbers(0, 0, np.arange(100), 8), example_numbers(*other, np.arange(100), 8)
    assert (a != b).all()


def test_numbers_are_uniform_and_independent():
    numbers = example_numbers(0, 0, np.arange(20_000), 8)
    assert kstest(numbers.ravel(), "uniform").pvalue > 0.01
    assert numbers.min() >= 0 and numbers.max() < 1
    neighbours = np.concatenate([numbers[:-1], numbers[1:]], axis=1)
    off_diagonal = np.corrcoef(neighbours, rowvar=False) - np.eye(16)
    assert abs(off_diagonal).max() < 0.04


def test_the_numbers_never_change_between_versions():
    np.testing.assert_allclose(
        example_numbers(7, 1, np.array([1_281_166]), 3)[0],
        [0.8193813324755982, 0.9978260386076281, 0.6270152624331394],
        rtol=0,
        atol=1e-15,
    )
