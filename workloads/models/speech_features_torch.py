"""Log-mel features and SpecAugment in torch; see `speech_features.py`. B batch, N samples, T frames, F mel bins."""

import torch
from torch import Tensor, nn

from timetrial.workloads.models.speech_features import (
    POWER_FLOOR,
    PRE_EMPHASIS,
    SAMPLE_SCALE,
    LogMel,
    SpecAugment,
    hann_window,
    mel_matrix,
)


class LogMelFeatures(nn.Module):
    """`LogMelFeatures(config)(audio, padding)` are the features and the frames' padding. It has no parameters.

    Its constants are float64 buffers outside the state dict, used in the precision of the audio.
    """

    window: Tensor
    mel: Tensor
    means: Tensor
    deviations: Tensor

    def __init__(self, config: LogMel) -> None:
        super().__init__()
        self.config = config
        constants = {
            "window": hann_window(config.window),
            "mel": mel_matrix(config),
            "means": config.means,
            "deviations": config.deviations,
        }
        for name, values in constants.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float64), persistent=False)

    def forward(self, audio_BN: Tensor, padding_BN: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, T, F) and padding (B, T); padding is 1.0 where there is nothing, else 0.0.

        audio: 16-bit samples as floats. ValueError where there are fewer samples than a frame has.
        """
        config, dtype = self.config, audio_BN.dtype
        config.num_frames(audio_BN.shape[1])
        samples = audio_BN * (1 - padding_BN) * SAMPLE_SCALE
        frames_BTN = samples.unfold(1, config.frame_length, config.hop)
        first = (1 - PRE_EMPHASIS) * frames_BTN[..., :1]
        emphasised = torch.cat((first, frames_BTN[..., 1:-1] - PRE_EMPHASIS * frames_BTN[..., :-2]), -1)
        with torch.autocast(audio_BN.device.type, enabled=False):
            spectrum = torch.fft.rfft(emphasised * self.window.to(dtype), config.fft_size)
            mel_BTF = torch.view_as_real(spectrum).square().sum(-1) @ self.mel.to(dtype)
        logarithms = mel_BTF.clamp_min(POWER_FLOOR).log()
        features_BTF = (logarithms - self.means.to(dtype)) / self.deviations.to(dtype)
        padding_BT = padding_BN.unfold(1, config.frame_length, config.hop).amin(-1)
        return features_BTF, padding_BT


def spec_augment(config: SpecAugment, features_BTF: Tensor, padding_BT: Tensor) -> Tensor:
    """The features with spans set to 0, drawn from torch's global generator; for training only."""
    frames, bins = features_BTF.shape[1:]
    unpadded_B1 = (1 - padding_BT).sum(1, keepdim=True)
    widest_B1 = config.time_fraction * unpadded_B1
    hidden_BT = _spans(_uniform(config.time_masks, padding_BT), widest_B1, unpadded_B1, frames)
    features_BTF = features_BTF.masked_fill(hidden_BT[:, :, None], 0.0)
    ones_B1 = torch.ones_like(unpadded_B1)
    uniform = _uniform(config.frequency_masks, padding_BT)
    hidden_BF = _spans(uniform, config.frequency_bins * ones_B1, bins * ones_B1, bins)
    return features_BTF.masked_fill(hidden_BF[:, None, :], 0.0)


def _uniform(masks: int, like_BT: Tensor) -> Tensor:
    """(2, B, masks) uniform in [0, 1)."""
    return torch.rand(2, len(like_BT), masks, dtype=like_BT.dtype, device=like_BT.device)


def _spans(uniform_2BM: Tensor, widest_B1: Tensor, extent_B1: Tensor, places: int) -> Tensor:
    """(B, places): whether a place lies in one of M spans within the first `extent` places."""
    width_BM = (uniform_2BM[0] * widest_B1).floor()
    start_BM = (uniform_2BM[1] * (extent_B1 - width_BM + 1)).floor()
    place_P = torch.arange(places, device=uniform_2BM.device)
    after, before = place_P >= start_BM[..., None], place_P < (start_BM + width_BM)[..., None]
    return (after & before).any(1)
