"""The part of a photograph that becomes the network's input: random when training, central when evaluating.

Training draws a window by area and aspect ratio (Szegedy et al. 2015, "Going deeper with convolutions"), evaluation
takes the middle. Windows are whole pixels, (top, left, height, width) int32; an image decoder reads them alone.
"""

import numpy as np

AREAS = (0.08, 1.0)  # of the window over the image's
ASPECTS = (3 / 4, 4 / 3)  # width over height
ATTEMPTS = 10
NUMBERS = 2 * ATTEMPTS + 2  # random numbers an image: areas, aspects, place
EVALUATED = 224 / 256  # side of the evaluated square over the image's short side


def random_windows(sizes: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Windows (n, 4) in images of `sizes` (n, 2), heights and widths, from `numbers` (n, 22) in [0, 1).

    The area is uniform and the aspect ratio log-uniform; the first of ten attempts that fits into the image counts,
    at a uniform place. If none fits, the window is the largest central one whose aspect ratio is allowed.
    """
    areas = AREAS[0] + (AREAS[1] - AREAS[0]) * numbers[:, :ATTEMPTS]
    low, high = np.log(ASPECTS)
    aspects = np.exp(low + (high - low) * numbers[:, ATTEMPTS : 2 * ATTEMPTS])
    pixels = areas * np.prod(sizes, axis=1, dtype=np.float64)[:, None]
    attempts = np.rint(np.sqrt(np.stack([pixels / aspects, pixels * aspects], axis=2))).astype(np.int32)
    fits = ((attempts > 0) & (attempts <= sizes[:, None])).all(axis=2)
    extents = attempts[np.arange(len(sizes)), fits.argmax(axis=1)]
    # Of `room` + 1 first rows and columns each is as likely as the others.
    corners = (numbers[:, 2 * ATTEMPTS :] * (sizes - extents + 1)).astype(np.int32)
    windows = np.concatenate([corners, extents], axis=1)
    return np.where(fits.any(axis=1)[:, None], windows, _largest_central(sizes))


def evaluation_windows(sizes: np.ndarray) -> np.ndarray:
    """The central squares (n, 4) of 224/256 of the short side, rounded down."""
    side = np.maximum(sizes.min(axis=1) * EVALUATED, 1).astype(np.int32)
    return _central(sizes, np.stack([side, side], axis=1))


def _largest_central(sizes: np.ndarray) -> np.ndarray:
    heights, widths = sizes[:, 0], sizes[:, 1]
    extents = np.stack(
        [
            np.minimum(heights, np.rint(widths / ASPECTS[0])),
            np.minimum(widths, np.rint(heights * ASPECTS[1])),
        ],
        axis=1,
    )
    return _central(sizes, extents.astype(np.int32))


def _central(sizes: np.ndarray, extents: np.ndarray) -> np.ndarray:
    return np.concatenate([(sizes - extents) // 2, extents], axis=1).astype(np.int32)
