"""What torch's models compute by kernels on a GPU, here under Triton's interpreter, is what they compute without."""

import os
from dataclasses import replace
from unittest import mock

import pytest
import torch

with mock.patch.dict(os.environ, TRITON_INTERPRET="1"):
    from timetrial.kernels import (
        embedding_interaction_triton,
        masked_batch_norm_triton,
        softmax_cross_entropy_triton,
    )

from timetrial.workloads import losses_torch
from timetrial.workloads.models import dlrm_torch
from timetrial.workloads.models.masked_batch_norm_torch import MaskedBatchNorm

FILES = (embedding_interaction_triton, masked_batch_norm_triton, softmax_cross_entropy_triton)


@pytest.fixture(autouse=True)
def applied(monkeypatch):
    """Kernels apply wherever the tensors are."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    calls = []
    for file in FILES:

        def fused(*arguments, form=file.KERNEL.fused):
            calls.append(form)
            return form(*arguments)

        kernel = replace(file.KERNEL, fused=fused, why_not=lambda *_: None)
        monkeypatch.setattr(file, "KERNEL", kernel)
    yield
    assert calls


@pytest.mark.parametrize("has_mask", [True, False])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_softmax_cross_entropy(has_mask, smoothing):
    torch.manual_seed(0)
    logits = torch.randn(3, 5, 11, requires_grad=True)
    labels = torch.randint(11, (3, 5), dtype=torch.int32)
    mask = (torch.rand(3, 5) < 0.6).float() if has_mask else None
    ours = losses_torch._softmax_cross_entropy_in_one_pass(labels, logits, mask, smoothing)
    plain = losses_torch.softmax_cross_entropy(labels, logits, mask, smoothing)
    torch.testing.assert_close(ours, plain)
    gradients = [torch.autograd.grad(loss["summed"], logits)[0] for loss in (ours, plain)]
    torch.testing.assert_close(*gradients)


def test_masked_batch_norm():
    torch.manual_seed(0)
    one, other = MaskedBatchNorm(12, decay=0.9), MaskedBatchNorm(12, decay=0.9)
    torch.nn.init.normal_(one.weight)
    other.load_state_dict(one.state_dict())
    x = torch.randn(4, 12, 9).mT.requires_grad_()  # as a convolution over time leaves it
    padding = (torch.arange(9) >= torch.tensor([[9], [3], [0], [5]])).float()
    found, expected = one._in_few_passes(x, padding), other(x, padding)
    torch.testing.assert_close(found, expected)
    above = torch.randn_like(expected)
    gradients = [
        torch.autograd.grad(y, [x, module.weight, module.bias], above)
        for y, module in ((found, one), (expected, other))
    ]
    torch.testing.assert_close(*gradients)
    torch.testing.assert_close(one.state_dict(), other.state_dict())


def test_the_interaction_of_embeddings():
    torch.manual_seed(0)
    network = dlrm_torch.Network(
        dlrm_torch.DLRM(
            table_rows=40,
            embedding_width=8,
            num_dense=4,
            num_categorical=5,
            bottom_widths=(6, 8),
            top_widths=(7,),
        )
    )
    bottom = torch.randn(6, 8, requires_grad=True)
    numbers = torch.randint(40, (6, 5), dtype=torch.int32)
    table = network.embedding_table
    found = dlrm_torch._interaction_on_chip(bottom, numbers, table)
    expected = network._interaction(bottom, numbers)
    torch.testing.assert_close(found, expected)
    above = torch.randn_like(expected)
    gradients = [torch.autograd.grad(joined, [bottom, table], above) for joined in (found, expected)]
    torch.testing.assert_close(*gradients)
