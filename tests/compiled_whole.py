"""Whether a model's loss and its gradient compile without a graph break."""

import copy

import torch
from workload_batches import random_batch

from timetrial.engine.device_torch import placed_batch
from timetrial.workloads import WORKLOADS

BATCH_SIZE = 4


def torch_case(name, model, device):
    """A module in training, and its loss on a batch of random data."""
    program = WORKLOADS[name].programs["torch"](model)
    batch = placed_batch(random_batch(model, BATCH_SIZE), torch.device(device))

    def loss(module):
        logits = program.logits(module, batch, dropout_rate=0.0)
        # Weights, since in what is padding layer norms of all but equal features enlarge a gradient without bound.
        return program.loss(batch["targets"], logits, batch.get("weights"), 0.0)["summed"]

    return program.module().train().to(device), loss


def assert_compiles_whole(name, model, backend, device="cpu"):
    """`fullgraph` refuses graph breaks; the results are the eager ones; a second step traces nothing."""
    eager, loss = torch_case(name, model, device)
    module = copy.deepcopy(eager)
    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    try:
        expected, found = loss(eager), compiled(module)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        expected.backward()
        found.backward()
        for (path, ours), theirs in zip(eager.named_parameters(), module.parameters(), strict=True):
            torch.testing.assert_close(
                theirs.grad, ours.grad, rtol=1e-3, atol=1e-4 * float(ours.grad.abs().max() + 1), msg=path
            )
        for ours, theirs in zip(eager.buffers(), module.buffers(), strict=True):
            torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)
        torch.optim.SGD(module.parameters(), lr=1e-6).step()
        with torch._dynamo.config.patch(error_on_recompile=True):
            compiled(module).backward()
    finally:
        torch._dynamo.reset()
