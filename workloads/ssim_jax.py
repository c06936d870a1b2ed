"""Structural similarity (SSIM) of images in JAX, and the score of reconstructed images."""

from collections.abc import Mapping

import jax.numpy as jnp
from jax import Array, lax

from timetrial.workloads.losses_jax import mean_absolute_error

WINDOW = 7  # pixels on a side, all of one weight
K1, K2 = 0.01, 0.03  # of the data range: constants against division by 0 (Wang et al. 2004)


def structural_similarity(images: Array, targets: Array, data_range: Array) -> Array:
    """The mean over all whole windows of an image of

        (2 a b + c1) (2 cov + c2) / ((a^2 + b^2 + c1) (var_a + var_b + c2)),    c = (K data_range)^2,

    a and b: the means of both images in the window; variances and covariance there divided by 49 - 1. Clipped
    to [-1, 1], which only rounding leaves.

    images and targets: (batch, H, W), H and W at least 7; data_range: (batch,), above 0. Returns (batch,).

    The moments are those of images in units of the data range less the mean of the target: E[x^2] - E[x]^2
    then cancels little, and nothing underflows. float32 comes within 1e-6 of float64, also where 100 data ranges
    are added to both images (tests/test_ssim.py).
    """
    scale = data_range[:, None, None]
    targets = targets / scale
    shift = targets.mean((1, 2), keepdims=True)
    x, y = images / scale - shift, targets - shift
    moments = jnp.stack((x, y, x * x, y * y, x * y))
    # Two sums of 7 are one of 7 x 7. Sums rather than a convolution, which GPUs may round to TF32.
    for window in ((1, 1, WINDOW, 1), (1, 1, 1, WINDOW)):
        moments = lax.reduce_window(moments, 0.0, lax.add, window, (1, 1, 1, 1), "VALID")
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = moments / WINDOW**2
    a, b = mean_x + shift, mean_y + shift
    sample = WINDOW**2 / (WINDOW**2 - 1)
    variances = sample * (mean_xx - mean_x * mean_x + mean_yy - mean_y * mean_y)
    covariance = sample * (mean_xy - mean_x * mean_y)
    c1, c2 = K1**2, K2**2
    similarity = (2 * a * b + c1) * (2 * covariance + c2) / ((a * a + b * b + c1) * (variances + c2))
    per_image: Array = similarity.mean((1, 2))
    return per_image.clip(-1, 1)


def reconstruction_score(batch: Mapping[str, Array], logits: Array) -> dict[str, Array]:
    """Sums over the images that count: `ssim`, `loss` (mean absolute error) and `count`.

    logits and `targets` of the batch: (batch, H, W), normalised by `mean` and `std`, (batch,). The similarity
    is that of the images before it, with `volume_max`, (batch,), for data range; 0, as in padding, stands for 1.
    """
    targets, volume_max, weights = batch["targets"], batch["volume_max"], batch.get("weights")
    mean, std = batch["mean"][:, None, None], batch["std"][:, None, None]
    data_range = jnp.where(volume_max == 0, 1.0, volume_max)
    ssim = structural_similarity(logits * std + mean, targets * std + mean, data_range)
    loss = mean_absolute_error(targets, logits, weights, 0.0)
    if weights is not None:
        ssim = ssim * weights.astype(ssim.dtype)
    return {"ssim": ssim.sum(), "loss": loss["summed"], "count": loss["n_valid_examples"]}
