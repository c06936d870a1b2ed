"""Against the module that models have, over many tiles and programs, and with anything at all in the padding."""

import os
from unittest import mock

import pytest
import torch

with mock.patch.dict(os.environ, TRITON_INTERPRET="1"):
    from timetrial.kernels import masked_batch_norm_triton as kernel
    from timetrial.kernels import masked_moments_triton as moments

from timetrial.workloads.models.masked_batch_norm_torch import MaskedBatchNorm

FORMS = [kernel.reference, kernel.fused]


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    """Some of Triton is imported late, and asks again."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")


def made(batch, frames, width):
    """A module, an input, and padding that begins at another frame of each."""
    torch.manual_seed(0)
    module = MaskedBatchNorm(width, decay=0.9)
    torch.nn.init.normal_(module.weight)
    torch.nn.init.normal_(module.bias)
    lengths = torch.randint(frames + 1, (batch, 1))
    return module, 2 + torch.randn(batch, frames, width), (torch.arange(frames) >= lengths).float()


def applied(form, module, x_BTD, padding_BT):
    y, mean, var = form(x_BTD.flatten(0, 1), 1 - padding_BT.flatten(), module.weight, module.bias, module.eps)
    return y.view_as(x_BTD), mean, var


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("multiprocessors", [1, 132])
def test_it_is_the_module_in_training(form, multiprocessors, monkeypatch):
    # Programs with several tiles, and more than are joined at a time.
    monkeypatch.setattr(moments, "MULTIPROCESSORS", multiprocessors)
    monkeypatch.setattr(moments, "PARTS", 2)
    module, x, padding = made(5, 43, 20)
    leaves = [x.requires_grad_(), module.weight, module.bias]
    y, mean, var = applied(form, module, x, padding)
    expected = module(x, padding)
    above = torch.randn_like(y)
    torch.testing.assert_close(y, expected)
    for ours, theirs in zip(
        torch.autograd.grad(y, leaves, above), torch.autograd.grad(expected, leaves, above), strict=True
    ):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.zeros(20).lerp(mean, module.momentum), module.running_mean)
    torch.testing.assert_close(torch.ones(20).lerp(var, module.momentum), module.running_var)


@pytest.mark.parametrize("form", FORMS)
def test_what_stands_in_the_padding_changes_nothing(form):
    module, x, padding = made(3, 7, 4)
    padding[0, 0] = 1
    results = []
    for value in (0.0, torch.nan):
        leaf = torch.where(padding[..., None] == 1, value, x).requires_grad_()
        y, *statistics = applied(form, module, leaf, padding)
        results.append([y, *statistics, *torch.autograd.grad(y.square().sum(), [leaf, module.weight])])
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)
    assert (results[1][0][padding == 1] == 0).all()
