"""Augmentation: against slicing one image at a time, and as a function of (seed, epoch, example) alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from timetrial.data_loading.crop_flip import crop_and_flip, draws

IMAGES = np.random.default_rng(0).integers(1, 256, size=(40, 6, 5, 3), dtype=np.uint8)


@given(seed=st.integers(0, 2**32 - 1), epoch=st.integers(0, 1000), padding=st.integers(0, 4))
def test_it_agrees_with_slicing_one_image_at_a_time(seed, epoch, padding):
    indices = np.random.default_rng(seed).permutation(len(IMAGES))[:7]
    drawn = draws(len(IMAGES), padding, seed, epoch)
    got = crop_and_flip(IMAGES, indices, drawn, padding)
    assert got.dtype == np.uint8 and got.flags.c_contiguous
    for image, index in zip(got, indices, strict=True):
        padded = np.pad(IMAGES[index], ((padding, padding), (padding, padding), (0, 0)))
        top, left = drawn.top[index], drawn.left[index]
        wanted = padded[top : top + 6, left : left + 5]
        np.testing.assert_array_equal(image, wanted[:, ::-1] if drawn.mirrored[index] else wanted)


def test_an_image_looks_the_same_in_any_batch():
    drawn = draws(len(IMAGES), 2, 3, 4)
    whole = crop_and_flip(IMAGES, np.arange(len(IMAGES)), drawn, 2)
    np.testing.assert_array_equal(crop_and_flip(IMAGES, np.array([9, 31]), drawn, 2), whole[[9, 31]])


@pytest.mark.parametrize("other", [(1, 0), (0, 1)])
def test_seeds_and_epochs_draw_anew(other):
    a, b = draws(1000, 4, 0, 0), draws(1000, 4, *other)
    assert not np.array_equal(a.top, b.top) and not np.array_equal(a.mirrored, b.mirrored)


def test_draws_are_uniform():
    drawn = draws(90_000, 4, 0, 0)
    for offsets in (drawn.top, drawn.left):
        counts = np.bincount(offsets, minlength=9)
        # 10,000 expected with a standard deviation of 94; a pure function, so this cannot flicker.
        assert len(counts) == 9 and abs(counts - 10_000).max() < 400
    assert abs(drawn.mirrored.mean() - 0.5) < 0.01
    assert abs(np.corrcoef(drawn.top, drawn.left)[0, 1]) < 0.02
