"""What a four times faster scan would have measured of a slice, and the image that zeros for the rest give.

An MRI scanner measures a slice's Fourier transform, its k-space, column by column. A mask keeps a quarter of the
columns; the inverse transform of what is kept, with zeros elsewhere, is the model's input, and the image of all
columns its target. Masks act on columns only, so the transform along the other axis is done once, when a dataset
is prepared, and cropped to the rows that the image shows: `hybrid_columns`. What is left for each batch is one
transform along each of these rows.

The mask's law (fastMRI, arXiv 1811.08839, as AlgoPerf has it): of W columns the central trunc(0.08 W) are kept,
every other one independently with the probability that makes W / 4 columns in the mean. In AlgoPerf an evaluated
slice's mask depends on its width alone, by fixed draws that are stored here; a training slice's mask is drawn
once and kept for the whole run. Evaluation's masks are AlgoPerf's bit for bit; training's follow its law with
other numbers, for AlgoPerf's come from TensorFlow's generator.

Transforms are NumPy's and SciPy's on the host: NVIDIA DALI has no inverse Fourier transform and no complex type.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from timetrial.engine.facts import NumpyBatch

ACCELERATION = 4
CENTRE_FRACTION = 0.08  # of the columns, always kept
CLIP = 6.0  # standard deviations
MASK_STREAM = 3  # beside those of `batches.py`
EVALUATION_DRAWS = Path(__file__).with_name("fastmri_eval_draws.json")  # float32, uniform in [0, 1)
MOST_EVALUATED_COLUMNS = 400  # draws in that file


@dataclass(frozen=True, kw_only=True)
class Slice:
    """One slice as it is prepared: `side` by `side` pixels, `width` columns of k-space."""

    columns: np.ndarray  # (width, side) complex64: `hybrid_columns`
    target: np.ndarray  # (side, side) float32, at least 0
    volume_max: float  # the largest value of the volume's images: SSIM's data range


def kept_columns(draws: np.ndarray) -> np.ndarray:
    """The columns, ascending, that a mask keeps, from one uniform number in [0, 1) per column: (width,)."""
    width = len(draws)
    num_central = int(CENTRE_FRACTION * width)  # AlgoPerf truncates, fastMRI's own code rounds
    first = (width - num_central + 1) // 2
    kept = draws < np.float32((width / ACCELERATION - num_central) / (width - num_central))
    kept[first : first + num_central] = True
    return np.flatnonzero(kept)


@cache
def _evaluation_draws() -> np.ndarray:
    return np.array(json.loads(EVALUATION_DRAWS.read_text()), np.float32)


def evaluation_columns(width: int) -> np.ndarray:
    """The columns that every validation and test slice of this width, at most 400, keeps."""
    if width > MOST_EVALUATED_COLUMNS:
        raise ValueError(f"evaluation masks are known for {MOST_EVALUATED_COLUMNS} columns, not for {width}")
    return kept_columns(_evaluation_draws()[:width])


def mask_key(seed: int) -> np.ndarray:
    """What distinguishes the training masks of one run from those of others."""
    return np.random.SeedSequence((seed, 0, MASK_STREAM)).generate_state(2, np.uint64)


def training_columns(key: np.ndarray, index: int, width: int) -> np.ndarray:
    """The columns that training slice `index` keeps in the run of this `mask_key`."""
    # The highest word of the counter tells the slices apart: their streams cannot meet.
    generator = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, index]))
    return kept_columns(generator.random(width, dtype=np.float32))


def hybrid_columns(kspace: np.ndarray, side: int) -> np.ndarray:
    """k-space (height, width) complex to (width, side) complex64: column by column, its central `side` rows.

    The inverse transform along the height, orthonormal, zero frequency and image centre in the middle; computed
    in complex128 and rounded once.
    """
    height = kspace.shape[0]
    shifted = np.fft.ifftshift(kspace.astype(np.complex128), axes=0)
    rows = np.fft.fftshift(np.fft.ifft(shifted, axis=0, norm="ortho"), axes=0)
    first = (height - side) // 2
    return np.ascontiguousarray(rows[first : first + side].T, np.complex64)


def zero_filled(columns: np.ndarray, kept: np.ndarray, scratch: np.ndarray, image: np.ndarray) -> None:
    """Fill `image` (side, side) float32 from the kept columns of a slice (width, side), with zeros for the others.

    The magnitude of the orthonormal inverse transform along the width, cropped to its central `side` pixels.
    scratch: at least width * side complex64, overwritten.
    """
    from scipy.fft import ifft  # takes most of a second to import, which naming the workloads shall not

    width, side = columns.shape
    rows = scratch[: side * width].reshape(side, width)
    rows.fill(0)
    # Zero frequency first, as the transform wants it; pixel 0, the centre, comes first in its output.
    rows[:, (kept - width // 2) % width] = columns.take(kept, axis=0).T
    rows = ifft(rows, axis=1, norm="ortho", overwrite_x=True, workers=1)
    left = side // 2
    np.abs(rows[:, width - left :], out=image[:, :left])
    np.abs(rows[:, : side - left], out=image[:, left:])


def batch_of(slices: Sequence[Slice], kept: Sequence[np.ndarray]) -> NumpyBatch:
    """The model's batch: each slice undersampled to the columns that are kept of it.

    `inputs` and `targets` (batch, side, side): zero-filled image and target, less the mean of the zero-filled
    image, over its (population) standard deviation, clipped to 6; `mean` and `std`, which undo it, and
    `volume_max`, each (batch,). All float32. Sums are float64.
    """
    shape = (len(slices), *slices[0].target.shape)
    inputs, targets = np.empty(shape, np.float32), np.empty(shape, np.float32)
    mean, std = np.empty(len(slices), np.float32), np.empty(len(slices), np.float32)
    # Slice by slice, since one fits into a core's cache; and without an array of its own, since fresh memory
    # costs as much as the transform.
    scratch = np.empty(max(one.columns.size for one in slices), np.complex64)
    for row, (one, columns) in enumerate(zip(slices, kept, strict=True)):
        image, target = inputs[row], targets[row]
        zero_filled(one.columns, columns, scratch, image)
        mean[row] = image.mean(dtype=np.float64)
        image -= mean[row]
        squares = np.square(image, out=target)  # in memory that the target is yet to fill
        std[row] = np.sqrt(squares.mean(dtype=np.float64))
        np.subtract(one.target, mean[row], out=target)
        for values in (image, target):
            values /= std[row]
            np.clip(values, -CLIP, CLIP, out=values)
    volume_max = np.array([one.volume_max for one in slices], np.float32)
    return {"inputs": inputs, "targets": targets, "mean": mean, "std": std, "volume_max": volume_max}
