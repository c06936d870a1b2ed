"""Structural similarity against scikit-image, in both frameworks; padding, rounding, and no data range."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from skimage import metrics

from timetrial.workloads import ssim_jax, ssim_torch

SIZES = [(64, 64), (31, 16), (42, 53), (7, 7)]
FRAMEWORKS = ["torch", "jax"]


def similarity(framework, images, targets, data_range):
    """As NumPy, in the dtype of the arguments."""
    arguments = [np.asarray(argument) for argument in (images, targets, data_range)]
    if framework == "torch":
        return ssim_torch.structural_similarity(*map(torch.from_numpy, arguments)).numpy()
    with jax.enable_x64(True):
        return np.asarray(jax.jit(ssim_jax.structural_similarity)(*map(jnp.asarray, arguments)))


def score(framework, batch, logits):
    if framework == "torch":
        tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
        sums = ssim_torch.reconstruction_score(tensors, torch.from_numpy(logits))
    else:
        with jax.enable_x64(True):
            sums = jax.jit(ssim_jax.reconstruction_score)(
                jax.tree.map(jnp.asarray, batch), jnp.asarray(logits)
            )
    return {name: float(value) for name, value in sums.items()}


def scikit_image(images, targets, data_range):
    return [
        metrics.structural_similarity(x.astype(np.float64), y.astype(np.float64), data_range=float(value))
        for x, y, value in zip(images, targets, data_range, strict=True)
    ]


def blobs(size, num_images=3, seed=0):
    """(images, targets, data ranges): smooth targets on a dark ground, and noisy images of them."""
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.normal(size=(num_images, *size)), (0, 2, 2))
    targets = np.maximum(smooth, 0) / smooth.max()
    images = targets + 0.05 * rng.normal(size=targets.shape)
    return images, targets, rng.uniform(0.8, 2.0, num_images)


def padded_batch(size=(20, 24), num_padding=0, seed=0):
    """A batch of three slices, as a loader pads it, and logits."""
    images, targets, _ = blobs(size, seed=seed)
    rng = np.random.default_rng(seed)
    arrays = {
        "inputs": images,
        "targets": targets,
        "mean": rng.uniform(0.5, 1, 3),
        "std": rng.uniform(0.1, 2, 3),
        "volume_max": rng.uniform(1, 3, 3),
        "weights": np.ones(3),
    }
    padded = {name: np.concatenate((a, np.zeros((num_padding, *a.shape[1:])))) for name, a in arrays.items()}
    logits = np.concatenate(
        (images, rng.normal(size=(num_padding, *size)))
    )  # biases: padding is not mapped to 0
    return padded, logits


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("size", SIZES)
def test_float64_agrees_with_scikit_image(framework, size):
    images, targets, data_range = blobs(size)
    wanted = scikit_image(images, targets, data_range)
    np.testing.assert_allclose(similarity(framework, images, targets, data_range), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(("offset", "unit"), [(0, 1.0), (0, 1e-4), (0, 1e-12), (10, 1.0), (100, 1.0)])
def test_float32_is_within_a_millionth(framework, offset, unit):
    """Whatever is added to the images, and in whatever unit they are."""
    images, targets, _ = blobs((96, 96))
    images, targets = (((a + offset) * unit).astype(np.float32) for a in (images, targets))
    data_range = np.full(3, unit, np.float32)
    got = similarity(framework, images, targets, data_range)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, scikit_image(images, targets, data_range), rtol=0, atol=1e-6)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_an_image_is_wholly_similar_to_itself_and_unlike_its_negative(framework):
    images, _, data_range = blobs((31, 16))
    assert similarity(framework, images, images, data_range).tolist() == [1, 1, 1]
    noise = np.random.default_rng(0).normal(size=(3, 31, 16))
    assert (similarity(framework, 50 - noise, 50 + noise, np.ones(3)) < -0.95).all()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_what_rounding_leaves_outside_is_clipped(framework):
    """A step of 100,000 data ranges: float32 has no digit of the variance left, quotients reach thousands."""
    targets = np.zeros((6, 16, 16), np.float32)
    targets[:, :, 8:] = 1
    noise = 1e-4 * np.random.default_rng(0).normal(size=targets.shape)
    got = similarity(framework, (targets + noise).astype(np.float32), targets, np.full(6, 1e-5, np.float32))
    assert (np.abs(got) <= 1).all() and (np.abs(got) == 1).sum() >= 3


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_score_is_that_of_images_before_normalisation(framework):
    batch, logits = padded_batch()
    restore = [batch[name][:, None, None] for name in ("std", "mean")]
    images, targets = (a * restore[0] + restore[1] for a in (logits, batch["targets"]))
    batch["weights"] = np.array([1.0, 0.0, 1.0])
    wanted = scikit_image(images, targets, batch["volume_max"])
    got = score(framework, batch, logits)
    assert got["ssim"] == pytest.approx(wanted[0] + wanted[2], abs=1e-12)
    assert got["loss"] == pytest.approx(
        np.abs(logits - batch["targets"])[[0, 2]].mean((1, 2)).sum(), abs=1e-12
    )
    assert got["count"] == 2


@settings(deadline=None, max_examples=20)
@given(num_padding=st.integers(1, 4), seed=st.integers(0, 2**32 - 1), framework=st.sampled_from(FRAMEWORKS))
def test_padding_changes_no_sum(num_padding, seed, framework):
    """Padding rows are zero in every key, the volume's maximum and the weight with them; logits are not."""
    padded = score(framework, *padded_batch(num_padding=num_padding, seed=seed))
    batch, logits = padded_batch(seed=seed)
    plain = score(framework, {name: a for name, a in batch.items() if name != "weights"}, logits)
    assert padded == pytest.approx(plain, abs=1e-12)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_volume_without_a_maximum_has_data_range_1(framework):
    batch, logits = padded_batch()
    unknown = score(framework, batch | {"volume_max": np.array([0.0, 0.0, 2.0])}, logits)
    one = score(framework, batch | {"volume_max": np.array([1.0, 1.0, 2.0])}, logits)
    two = score(framework, batch | {"volume_max": np.array([1.0, 2.0, 2.0])}, logits)
    assert unknown == one and abs(one["ssim"] - two["ssim"]) > 1e-3


def test_the_torch_score_compiles_whole():
    batch, logits = padded_batch(num_padding=2)
    tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
    compiled = torch.compile(ssim_torch.reconstruction_score, fullgraph=True, backend="aot_eager")
    got, wanted = (f(tensors, torch.from_numpy(logits)) for f in (compiled, ssim_torch.reconstruction_score))
    torch.testing.assert_close(got, wanted)
    torch._dynamo.reset()
