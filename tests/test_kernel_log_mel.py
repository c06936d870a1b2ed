"""Log-mel features where matrix units cut factors to TF32, which the interpreter does not; chunks, NaN, no audio."""

import os
from unittest import mock

import numpy as np
import pytest
import torch

with mock.patch.dict(os.environ, TRITON_INTERPRET="1"):
    from triton.runtime import interpreter

    from timetrial.kernels import log_mel_triton

CASE = next(case for case in log_mel_triton.KERNEL.cases if case.name == "loud")


def cut(values):
    return (values.view(np.int32) & np.int32(-8192)).view(np.float32)


@pytest.fixture
def matrix_units(monkeypatch):
    """Factors lose the lower 13 bits, as in TF32."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    product = interpreter.InterpreterBuilder.create_dot

    def create_dot(self, a, b, total, precision, *rest):
        a, b = (interpreter.TensorHandle(cut(x.data), x.dtype) for x in (a, b))
        return product(self, a, b, total, precision, *rest)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", create_dot)


def errors():
    """Of the kernel and of plain torch in float32, each the largest."""
    arguments = CASE.make(torch.Generator().manual_seed(0), torch.float32, torch.device("cpu"))
    wide = [a.double() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in arguments]
    truth = log_mel_triton.reference(*wide)
    return [
        float((form(*arguments) - truth).abs().max())
        for form in (log_mel_triton.fused, log_mel_triton.reference)
    ]


def test_three_products_of_tf32_are_as_good_as_float32(matrix_units):
    ours, plain = errors()
    assert ours < 4 * plain + 1e-6


def test_one_product_of_tf32_is_not(matrix_units, monkeypatch):
    """So that the test above says something: where the upper part is all there is, one product of three is not 0."""
    monkeypatch.setattr(log_mel_triton, "_high", lambda x: x)
    ours, plain = errors()
    assert ours > 100 * plain


def test_a_batch_in_chunks_is_as_the_whole(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    case = next(case for case in log_mel_triton.KERNEL.cases if case.name == "ragged")
    arguments = case.make(torch.Generator().manual_seed(0), torch.float32, torch.device("cpu"))
    whole = log_mel_triton.fused(*arguments)
    rows, *_ = log_mel_triton.MEL[4]
    assert whole[..., 0].numel() > 2 * rows
    monkeypatch.setattr(log_mel_triton, "CHUNK_FRAMES", rows)
    torch.testing.assert_close(log_mel_triton.fused(*arguments), whole, rtol=0, atol=1e-6)


def test_a_nan_spreads_over_its_frames_but_not_over_what_is_hidden(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    audio, *rest = CASE.make(torch.Generator().manual_seed(0), torch.float32, torch.device("cpu"))
    audio[1, 30] = torch.nan
    ours, plain = log_mel_triton.fused(audio, *rest), log_mel_triton.reference(audio, *rest)
    assert plain.isnan().any() and plain.isfinite().any()
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-3, equal_nan=True)


def test_no_audio_has_no_features():
    audio, padding, *constants, hidden_frames, hidden_bins, hop, pre_emphasis, floor = CASE.make(
        torch.Generator(), torch.float32, torch.device("cpu")
    )
    none = (x[:0] for x in (audio, padding)), (x[:0] for x in (hidden_frames, hidden_bins))
    features = log_mel_triton.fused(*none[0], *constants, *none[1], hop, pre_emphasis, floor)
    assert features.shape == (0, hidden_frames.shape[1], hidden_bins.shape[1])
