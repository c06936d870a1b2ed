"""Speech models made tiny, and audio for them."""

import numpy as np

from timetrial.workloads.models.conformer import Conformer
from timetrial.workloads.models.speech_features import NO_MASKS, LogMel

HOP = 10
FEATURES = LogMel(
    sample_rate=1000,
    window=30,
    hop=HOP,
    fft_size=32,
    lower_edge=40.0,
    upper_edge=480.0,
    means=(-2.0,) * 6,
    deviations=(3.0,) * 6,
)
TINY = Conformer(
    vocabulary=7,
    width=12,
    depth=2,
    num_heads=3,
    mlp_width=10,
    kernel=3,
    subsampling_channels=4,
    features=FEATURES,
    spec_augment=NO_MASKS,
)


def batch(frames, lengths, seed=0, garbage=0.0):
    """Audio of so many frames, of which the first `lengths` are not padded; float64. Padded samples are `garbage`."""
    samples = (frames - 1) * HOP + FEATURES.frame_length
    rng = np.random.default_rng(seed)
    audio = np.round(rng.normal(0, 5000, (len(lengths), samples)))
    # A frame is padding where all of it is: the last one that is not begins one hop before.
    ends = [(length - 1) * HOP + 1 if length else 0 for length in lengths]
    padding = (np.arange(samples) >= np.array(ends)[:, None]).astype(np.float64)
    return {"inputs": (np.where(padding == 1, garbage, audio), padding)}
