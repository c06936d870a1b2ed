"""Where Newton-Schulz iterations bring singular values."""

import os
from unittest import mock

import pytest
import torch

with mock.patch.dict(os.environ, TRITON_INTERPRET="1"):
    from timetrial.kernels import newton_schulz_triton as subject

LOWEST, HIGHEST = 0.6818, 1.1344  # of the quintic, iterated five times from 0.01 to 1
ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 0.06}


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("form", [subject.reference, subject.fused])
def test_singular_values_land_in_the_band_and_singular_vectors_stay(form, dtype):
    torch.manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(2, 30, 20, dtype=torch.float64)).Q for _ in range(2))
    spectrum = torch.logspace(0, -1.6, 20, dtype=torch.float64)  # the least is 0.012 of the norm
    given = (1e3 * left * spectrum) @ right.mT
    result = form(given.to(dtype), 5).double()
    inner = left.mT @ result @ right
    values = inner.diagonal(dim1=1, dim2=2)
    assert values.min() >= LOWEST - ROUNDING[dtype]
    assert values.max() <= HIGHEST + ROUNDING[dtype]
    assert (inner - torch.diag_embed(values)).abs().max() <= ROUNDING[dtype]


def test_a_matrix_is_one_of_its_own_however_large_another_is():
    torch.manual_seed(0)
    one, other = torch.randn(1, 6, 9), 1e4 * torch.randn(1, 6, 9)
    together = subject.fused(torch.cat([one, other]), 5)
    torch.testing.assert_close(together[:1], subject.fused(one, 5), rtol=0, atol=1e-5)


def test_a_gradient_that_is_needed_is_left_to_the_plain_form():
    assert "no gradient" in subject.why_not(torch.zeros(1, 2, 3, requires_grad=True), 5)
