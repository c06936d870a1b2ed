"""Against the network that has it: what its top perceptron is given, and the gradients of what that came from."""

import os
from unittest import mock

import pytest
import torch

with mock.patch.dict(os.environ, TRITON_INTERPRET="1"):
    from timetrial.kernels.embedding_interaction_triton import fused, reference

from timetrial.workloads.models.dlrm import DLRM
from timetrial.workloads.models.dlrm_torch import Network


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    """Some of Triton is imported late, and asks again."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")


@pytest.mark.parametrize("form", [reference, fused])
def test_it_is_what_the_network_gives_to_its_top_perceptron(form):
    torch.manual_seed(0)
    config = DLRM(
        num_dense=3,
        num_categorical=5,
        table_rows=11,
        embedding_width=8,
        embedding_scale=1.0,
        bottom_widths=(8,),
        top_widths=(4,),
    )
    network, given = Network(config), []
    network.top_mlp.register_forward_pre_hook(lambda _, arguments: given.append(arguments[0]))
    ids = torch.randint(10_000, (6, 5))
    inputs = torch.cat((torch.randn(6, 3), ids.float()), 1)
    network(inputs)
    bottom, table = network.bot_mlp(inputs[:, :3]), network.embedding_table
    ours = form(bottom, ids.int() % len(table), table)
    torch.testing.assert_close(ours, given[0])
    leaves, above = [table, *network.bot_mlp.parameters()], torch.randn_like(ours)
    for one, other in zip(
        torch.autograd.grad(ours, leaves, above), torch.autograd.grad(given[0], leaves, above), strict=True
    ):
        torch.testing.assert_close(one, other)
