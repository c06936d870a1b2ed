"""The plain forms of kernels against the code of the models that they stand for."""

import os
from unittest import mock

import torch

from timetrial.workloads.models import conformer_torch, speech_features_torch
from timetrial.workloads.models.conformer import Conformer
from timetrial.workloads.models.speech_features import (
    POWER_FLOOR,
    PRE_EMPHASIS,
    SAMPLE_SCALE,
    LogMel,
    SpecAugment,
)
from timetrial.workloads.ssim_torch import reconstruction_score

with mock.patch.dict(os.environ, TRITON_INTERPRET="1"):
    from timetrial.kernels import depthwise_conv_glu_triton, log_mel_triton, ssim_triton


def padding_of(lengths, places):
    return (torch.arange(places) >= torch.tensor(lengths)[:, None]).float()


def test_a_conformer_s_convolution_block():
    torch.manual_seed(0)
    block = conformer_torch.ConvolutionBlock(Conformer(width=16, num_heads=2))
    seen = {}
    for name in ("lin1", "lin2"):
        getattr(block, name).register_forward_hook(lambda *a, name=name: seen.update({name: a[2]}))
    block.bn.register_forward_pre_hook(lambda _, inputs: seen.update(convolved=inputs[0]))
    padding = padding_of([9, 4], 9)
    block(torch.randn(2, 9, 16), padding, 0.0)
    ours = depthwise_conv_glu_triton.reference(seen["lin1"], seen["lin2"], padding, block.conv1.weight[:, 0])
    torch.testing.assert_close(ours, seen["convolved"])


def test_speech_features_and_what_training_hides():
    config, augment = LogMel(), SpecAugment(time_fraction=0.3)
    audio, padding = 1_000 * torch.randn(2, 4_000), padding_of([4_000, 2_500], 4_000)
    features = speech_features_torch.LogMelFeatures(config)
    plain, frame_padding = features(audio, padding)
    torch.manual_seed(0)
    wanted = speech_features_torch.spec_augment(augment, plain, frame_padding)
    torch.manual_seed(0)
    hidden = speech_features_torch.spec_augment(augment, torch.ones_like(plain), frame_padding) == 0
    assert hidden.any() and not hidden.all()
    constants = (features.window * SAMPLE_SCALE, features.mel)
    ours = log_mel_triton.reference(
        audio,
        padding,
        *(x.float() for x in (*constants, features.means, features.deviations)),
        hidden.all(2),
        hidden.all(1),
        config.hop,
        PRE_EMPHASIS,
        POWER_FLOOR,
    )
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-4)


def test_the_similarity_of_reconstructed_images():
    targets = torch.randn(3, 12, 15).cumsum(2)
    logits = targets + 0.3 * torch.randn(3, 12, 15)
    mean, std, volume_max = (0.5 + torch.rand(3) for _ in range(3))
    batch = {"targets": targets, "mean": mean, "std": std, "volume_max": volume_max}
    ours = ssim_triton.reference(logits, targets, mean, std, volume_max)
    torch.testing.assert_close(ours.sum(), reconstruction_score(batch, logits)["ssim"])
