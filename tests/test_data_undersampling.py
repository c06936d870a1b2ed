"""Masks and zero-filled images, against AlgoPerf's fixed mask and a direct float64 statement of the law."""

import numpy as np
import pytest
import scipy.fft
from hypothesis import given, settings
from hypothesis import strategies as st

from timetrial.data_loading.undersampling import (
    MOST_EVALUATED_COLUMNS,
    Slice,
    batch_of,
    evaluation_columns,
    hybrid_columns,
    kept_columns,
    mask_key,
    training_columns,
)

SIDE = 20


def random_kspace(height, width, seed=0):
    generator = np.random.default_rng(seed)
    parts = generator.normal(size=(2, height, width))
    return (parts[0] + 1j * parts[1]).astype(np.complex64)


def stated(kspace, target, kept, side):
    """Mask on all of k-space, centred two-dimensional inverse transform, crop, magnitude, normalise; in float64."""
    height, width = kspace.shape
    mask = np.isin(np.arange(width), kept)
    shifted = np.fft.ifftshift(kspace.astype(np.complex128) * mask)
    image = np.fft.fftshift(np.fft.ifft2(shifted)) * np.sqrt(height * width)
    top, left = (height - side) // 2, (width - side) // 2
    zero_filled = np.abs(image[top : top + side, left : left + side])
    mean, std = zero_filled.mean(), zero_filled.std()
    inputs, targets = (
        np.clip((values - mean) / std, -6, 6) for values in (zero_filled, target.astype(np.float64))
    )
    return {"inputs": inputs, "targets": targets, "mean": mean, "std": std}


def test_the_evaluation_mask_is_algoperfs():
    """Numbers of columns, centre blocks and kept columns below 100 are what AlgoPerf's own code gave."""
    first = [10, 11, 19, 20, 25, 28, 30, 32, 38, 49, 53, 55, 63, 66, 69, 76, 82, 86, 91]
    for width, lines, centre in (
        (320, 80, range(148, 173)),
        (322, 82, range(149, 174)),
        (334, 87, range(154, 180)),
        (364, 97, range(168, 197)),
        (366, 96, range(169, 198)),
        (368, 97, range(170, 199)),
        (372, 97, range(172, 201)),
        (388, 102, range(179, 210)),
        (400, 108, range(184, 216)),
    ):
        kept = evaluation_columns(width)
        assert len(kept) == lines
        assert set(centre) <= set(kept.tolist())
        assert kept[kept < 100].tolist() == first
    # Draw 273 is 0.187061, between these widths' probabilities, 0.186688 and 0.187097.
    assert 273 not in evaluation_columns(334) and 273 in evaluation_columns(336)


def test_an_evaluation_mask_of_too_many_columns_is_refused():
    evaluation_columns(MOST_EVALUATED_COLUMNS)
    with pytest.raises(ValueError, match="400 columns, not for 401"):
        evaluation_columns(MOST_EVALUATED_COLUMNS + 1)


@given(width=st.integers(20, 400), seed=st.integers(0, 2**32 - 1))
def test_a_mask_follows_its_law(width, seed):
    draws = np.random.default_rng(seed).random(width, dtype=np.float32)
    kept = set(kept_columns(draws).tolist())
    num_central = width * 8 // 100
    probability = np.float32((width / 4 - num_central) / (width - num_central))
    first = (width - num_central + 1) // 2
    for column in range(width):
        central = first <= column < first + num_central
        assert (column in kept) == (central or draws[column] < probability)


def test_training_masks_keep_a_quarter_and_differ_between_slices_and_runs():
    key, other = mask_key(7), mask_key(8)
    masks = [training_columns(key, index, 368) for index in range(2000)]
    # A mask has 29 central columns and 339 others kept with probability 0.1858: 92 in the mean, standard
    # deviation 7.2, so the mean over 2,000 masks is within 0.16 of it but for one case in a thousand or so.
    assert np.mean([len(mask) for mask in masks]) == pytest.approx(92, abs=0.6)
    assert len({mask.tobytes() for mask in masks}) == len(masks)
    assert all((training_columns(mask_key(7), i, 368) == masks[i]).all() for i in (0, 1, 1999))
    assert not any(np.array_equal(training_columns(other, i, 368), masks[i]) for i in range(100))
    counts = np.bincount(np.concatenate(masks), minlength=368)
    assert (counts[170:199] == 2000).all()
    outside = np.delete(counts, np.arange(170, 199)) / 2000
    assert abs(outside - 0.1858).max() < 0.05


@settings(deadline=None, max_examples=40)
@given(
    height=st.integers(SIDE, 40),
    width=st.integers(SIDE, 60),
    seed=st.integers(0, 99),
)
def test_a_batch_is_what_the_law_states(height, width, seed):
    kspace = random_kspace(height, width, seed)
    target = np.random.default_rng(seed).random((SIDE, SIDE), np.float32) * 3
    kept = training_columns(mask_key(seed), 5, width)
    one = Slice(columns=hybrid_columns(kspace, SIDE), target=target, volume_max=2.5)
    batch = batch_of([one], [kept])
    for key, wanted in stated(kspace, target, kept, SIDE).items():
        np.testing.assert_allclose(batch[key][0], wanted, rtol=0, atol=2e-5, err_msg=key)
    assert batch["volume_max"].tolist() == [2.5]


def test_slices_of_different_widths_share_a_batch():
    widths = (30, 45, 24)
    slices = [
        Slice(
            columns=hybrid_columns(random_kspace(40, width, width), SIDE),
            target=np.full((SIDE, SIDE), width, np.float32),
            volume_max=width,
        )
        for width in widths
    ]
    kept = [training_columns(mask_key(0), index, width) for index, width in enumerate(widths)]
    batch = batch_of(slices, kept)
    alone = [batch_of([one], [columns]) for one, columns in zip(slices, kept, strict=True)]
    assert {key: (values.shape, values.dtype.name) for key, values in batch.items()} == {
        "inputs": ((3, SIDE, SIDE), "float32"),
        "targets": ((3, SIDE, SIDE), "float32"),
        "mean": ((3,), "float32"),
        "std": ((3,), "float32"),
        "volume_max": ((3,), "float32"),
    }
    for key, values in batch.items():
        np.testing.assert_array_equal(values, np.concatenate([single[key] for single in alone]))


def test_bright_pixels_are_clipped_at_six_standard_deviations():
    kspace = random_kspace(40, 40)
    target = np.zeros((SIDE, SIDE), np.float32)
    target[3, 4] = 1e6
    one = Slice(columns=hybrid_columns(kspace, SIDE), target=target, volume_max=1)
    (targets,) = batch_of([one], [np.arange(40)])["targets"]
    assert targets.max() == targets[3, 4] == 6
    assert targets.min() > -6


def test_all_columns_give_back_the_image():
    """An image that fills the middle of its field of view, through its own transform and back."""
    image = np.random.default_rng(1).random((SIDE, SIDE))
    field = np.zeros((40, 30))
    field[10:30, 5:25] = image
    kspace = np.fft.fftshift(scipy.fft.fft2(np.fft.ifftshift(field), norm="ortho")).astype(np.complex64)
    one = Slice(columns=hybrid_columns(kspace, SIDE), target=image.astype(np.float32), volume_max=1)
    batch = batch_of([one], [np.arange(30)])
    np.testing.assert_allclose(batch["inputs"], batch["targets"], rtol=0, atol=5e-6)
    assert batch["mean"][0] == pytest.approx(image.mean(), rel=1e-5)
