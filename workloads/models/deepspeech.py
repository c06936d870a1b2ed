"""The configuration of a Deep Speech network."""

from dataclasses import dataclass, field
from typing import Literal

from timetrial.workloads.models.speech_features import LogMel, SpecAugment

LAYER_NORM_EPSILON = 1e-6


@dataclass(frozen=True, kw_only=True)
class DeepSpeech:
    """A recurrent network that hears symbols in audio, after Deep Speech 2 (Amodei et al. 2016; AlgoPerf's
    `librispeech_deepspeech`).

    Log-mel features, under SpecAugment in training; two convolutions that make a quarter of the frames, a linear
    layer. Bidirectional LSTMs, then linear layers with an activation, each behind a normalisation and beside a
    shortcut. A layer norm and a linear layer give logits.

    Norms are batch norms of the frames that are no padding, or layer norms; either has gains of 1 + scale. Dropout,
    where a rate is given: before the LSTMs, and after each of the layers that follow them.
    """

    vocabulary: int = 1024  # symbols, the blank 0 included
    width: int = 512  # of a frame; even: half of it is each direction's
    num_lstms: int = 6
    num_feed_forward: int = 3
    subsampling_channels: int = 512
    activation: Literal["relu", "tanh"] = "relu"  # of convolutions and linear layers
    residual: bool = True  # whether there are shortcuts
    layer_norm: bool = False  # layer norms for batch norms, and none before the logits
    batch_norm_decay: float = 0.999  # of the running averages, each update
    features: LogMel = field(default_factory=LogMel)
    spec_augment: SpecAugment = field(default_factory=SpecAugment)

    def __post_init__(self) -> None:
        if self.width % 2:
            raise ValueError(f"width {self.width} must be even: half of it is each direction's")
