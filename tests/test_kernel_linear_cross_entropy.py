"""What the test of all kernels cannot say of the linear map with cross-entropy."""

import os
from unittest import mock

import pytest
import torch

with mock.patch.dict(os.environ, TRITON_INTERPRET="1"):
    from timetrial.kernels import linear_cross_entropy_triton as subject

CLASSES = 17


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")


def made(rows, width, dtype=torch.float32):
    torch.manual_seed(0)
    hidden = torch.randn(rows, width, dtype=dtype, requires_grad=True)
    weight = torch.randn(CLASSES, width, requires_grad=True)
    return hidden, weight, torch.arange(rows) % CLASSES, torch.ones(rows), 0.1


def test_a_float32_matrix_has_a_float32_gradient_of_bfloat16_rows():
    arguments = made(20, 2, torch.bfloat16)
    gradients = []
    for form in (subject.reference, subject.fused):
        summed, losses = form(*arguments)
        assert summed.dtype == losses.dtype == torch.float32
        gradients.append(torch.autograd.grad(summed, arguments[:2]))
    for theirs, ours in zip(*gradients, strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(
            ours.float(), theirs.float(), rtol=0, atol=2**-7 * float(theirs.abs().max())
        )


@pytest.mark.parametrize("rows", [1, 8, 9, 21])
def test_no_more_logits_are_held_than_a_chunk(rows, monkeypatch):
    arguments = made(rows, 2)
    most = subject._most_rows(arguments[0])
    held = []
    original = torch.mm

    def watched(left, right, *, out):
        held.append(max(left.numel(), out.numel()))
        return original(left, right, out=out)

    monkeypatch.setattr(torch, "mm", watched)
    summed, losses = subject.fused(*arguments)
    monkeypatch.undo()
    assert len(held) == 2 * -(-rows // most)  # logits, and the gradient of hidden
    assert max(held) <= most * subject.CLASSES * 2
    torch.testing.assert_close(losses.sum(), summed)
    torch.testing.assert_close(losses, subject.reference(*arguments)[1])


def test_without_a_gradient_none_is_made():
    hidden, weight, *rest = made(20, 2)
    for result in (
        subject.fused(hidden.detach(), weight.detach(), *rest),
        torch.no_grad()(subject.fused)(hidden, weight, *rest),
    ):
        assert not result[0].requires_grad and result[0].grad_fn is None
    assert [
        gradient.numel() for gradient in subject._fused(hidden.detach(), weight.detach(), *rest, False)[2:]
    ] == [
        0,
        0,
    ]


def test_rows_of_one_chunk_are_left_to_the_separate_operations():
    assert "one chunk" in subject.why_not(*made(8, 2))
    assert "cpu" in subject.why_not(*made(9, 2))
