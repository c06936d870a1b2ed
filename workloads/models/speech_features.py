"""Log-mel features of speech, and SpecAugment (AlgoPerf's LibriSpeech workloads): what both frameworks share.

The features are those that Kaldi and HTK made common, computed within the model and never trained:

1. samples that are padding become 0; all are scaled by 2^-15, the range of 16-bit audio;
2. frames of `window + 1` samples, one every `hop` samples, none beyond the end;
3. pre-emphasis within each frame: 0.03 x[0], then x[t] - 0.97 x[t - 1], `window` values, so that the frame's last
   sample counts for nothing but padding;
4. a periodic Hann window, zeros up to `fft_size`, the power of each frequency;
5. triangles on the mel scale, without the constant component and not normalised by area;
6. natural logarithm of at least 1e-5, minus a fixed mean, over a fixed standard deviation, per mel bin.

A frame is padding where all its samples are.
"""

from dataclasses import dataclass

import numpy as np

SAMPLE_SCALE = 2.0**-15
PRE_EMPHASIS = 0.97
POWER_FLOOR = 1e-5

# Per mel bin, of LibriSpeech's training set (AlgoPerf's constants, rounded to three decimals).
LIBRISPEECH_MEANS = tuple(
    np.fromstring(
        """
    -7.605 -7.121 -6.886 -6.871 -6.967 -7.108 -6.953 -6.784 -6.620 -6.488
    -6.412 -6.394 -6.424 -6.399 -6.516 -6.714 -6.848 -6.989 -6.922 -7.146
    -7.204 -7.054 -7.314 -7.122 -7.303 -7.121 -7.243 -7.173 -7.098 -7.089
    -6.985 -6.879 -6.760 -6.630 -6.515 -6.425 -6.357 -6.318 -6.266 -6.247
    -6.282 -6.191 -6.248 -6.147 -6.092 -6.017 -5.925 -5.854 -5.821 -5.812
    -5.808 -5.771 -5.745 -5.771 -5.777 -5.783 -5.795 -5.799 -5.802 -5.805
    -5.817 -5.884 -5.973 -6.044 -6.128 -6.226 -6.316 -6.391 -6.493 -6.550
    -6.605 -6.651 -6.669 -6.673 -6.684 -6.697 -6.755 -6.795 -6.863 -6.942
    """,
        sep=" ",
    ).tolist()
)
LIBRISPEECH_DEVIATIONS = tuple(
    np.fromstring(
        """
    3.435 3.596 3.701 3.737 3.754 3.694 3.692 3.764 3.842 3.900
    3.929 3.932 3.914 3.903 3.869 3.816 3.764 3.710 3.697 3.600
    3.549 3.547 3.450 3.471 3.408 3.441 3.410 3.422 3.431 3.420
    3.431 3.438 3.458 3.482 3.496 3.504 3.505 3.499 3.493 3.482
    3.459 3.461 3.456 3.476 3.497 3.533 3.571 3.592 3.597 3.591
    3.587 3.583 3.584 3.590 3.582 3.584 3.586 3.589 3.592 3.594
    3.586 3.588 3.592 3.587 3.581 3.573 3.562 3.550 3.553 3.548
    3.539 3.526 3.503 3.492 3.488 3.473 3.456 3.435 3.428 3.430
    """,
        sep=" ",
    ).tolist()
)


@dataclass(frozen=True, kw_only=True)
class LogMel:
    """Which features; the defaults are AlgoPerf's for LibriSpeech: 80 of them a frame of 25 ms, 100 frames a second."""

    sample_rate: int = 16_000  # Hz
    window: int = 400  # samples; a frame has one more
    hop: int = 160  # samples from one frame's beginning to the next one's
    fft_size: int = 512
    lower_edge: float = 125.0  # Hz, where the first triangle begins
    upper_edge: float = 7600.0  # Hz, where the last one ends
    means: tuple[float, ...] = LIBRISPEECH_MEANS  # of the logarithms, one a mel bin
    deviations: tuple[float, ...] = LIBRISPEECH_DEVIATIONS  # likewise, standard deviations

    def __post_init__(self) -> None:
        if len(self.means) != len(self.deviations):
            raise ValueError(f"{len(self.means)} means need as many deviations, not {len(self.deviations)}")
        if self.fft_size < self.window:
            raise ValueError(f"fft_size {self.fft_size} must be at least the window of {self.window} samples")
        if not 0 <= self.lower_edge < self.upper_edge <= self.sample_rate / 2:
            raise ValueError(
                f"edges of {self.lower_edge} and {self.upper_edge} Hz must rise and end by half of the "
                f"{self.sample_rate} Hz"
            )

    @property
    def mel_bins(self) -> int:
        """Features of a frame."""
        return len(self.means)

    @property
    def frame_length(self) -> int:
        """Samples that a frame looks at."""
        return self.window + 1

    def num_frames(self, num_samples: int) -> int:
        """Frames of so many samples; ValueError where they are less than one frame."""
        if num_samples < self.frame_length:
            raise ValueError(f"audio of {num_samples} samples must have at least {self.frame_length}")
        return (num_samples - self.frame_length) // self.hop + 1


@dataclass(frozen=True, kw_only=True)
class SpecAugment:
    """Spans of frames, then spans of mel bins, that training sets to 0 (Park et al. 2019), anew for each example.

    Each of the `time_masks` is floor(u * time_fraction * n) frames wide, where n are the example's unpadded frames
    and u is uniform in [0, 1); each of the `frequency_masks` is floor(u * frequency_bins) mel bins wide. Every place
    where a span fits, within the unpadded frames or within all bins, is equally likely. Spans may overlap.
    """

    time_masks: int = 10
    time_fraction: float = 0.05
    frequency_masks: int = 2
    frequency_bins: int = 27  # no span is as wide; at most one more than there are bins


NO_MASKS = SpecAugment(time_masks=0, frequency_masks=0)


def hann_window(length: int) -> np.ndarray:
    """The periodic Hann window, (length,) float64."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)


def mel_matrix(config: LogMel) -> np.ndarray:
    """Triangles, (fft_size // 2 + 1, mel bins) float64: powers of frequencies times this are powers of mel bins.

    Straight lines in mel = 1127 ln(1 + Hz / 700), from one bin's centre to the next one's; the row of 0 Hz is 0.
    """

    def mel(hertz: np.ndarray) -> np.ndarray:
        return 1127 * np.log1p(hertz / 700)

    lowest, highest = mel(np.array([config.lower_edge, config.upper_edge]))
    edges = np.linspace(lowest, highest, config.mel_bins + 2)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    frequencies = mel(np.linspace(0, config.sample_rate / 2, config.fft_size // 2 + 1))[:, None]
    rising, falling = (frequencies - lower) / (centre - lower), (upper - frequencies) / (upper - centre)
    triangles: np.ndarray = np.maximum(0, np.minimum(rising, falling))
    triangles[0] = 0
    return triangles
