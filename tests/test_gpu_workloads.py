"""Workloads on a GPU, where kernels take the place of some code: `python -m pytest -m gpu tests/test_gpu_workloads.py`.

Which ones do is in `workloads/`, by `is_cuda`; what they compute is tested without a GPU, in test_kernel_paths.py.
"""

import copy

import pytest
import torch
from compiled_whole import assert_compiles_whole, torch_case
from small_models import small

from timetrial.engine import provenance
from timetrial.workloads import SUITES, WORKLOADS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not provenance.gpu_names(), reason="no NVIDIA GPU and driver on this machine"),
    pytest.mark.filterwarnings("ignore"),  # of Inductor's own
]
# Of the largest entry, in float32: sums in another order, enlarged by batch norms over four examples.
TOLERANCE = 2e-3


@pytest.fixture(autouse=True)
def exact_products(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_gpu_computes_what_a_cpu_does(name):
    model = small(WORKLOADS[name].model)
    module, loss = torch_case(name, model, "cpu")
    on_gpu = copy.deepcopy(module).cuda()
    _, loss_on_gpu = torch_case(name, model, "cuda")
    expected, found = loss(module), loss_on_gpu(on_gpu)
    torch.testing.assert_close(found.cpu(), expected, rtol=TOLERANCE, atol=TOLERANCE)
    expected.backward()
    found.backward()
    largest = max(float(parameter.grad.abs().max()) for parameter in module.parameters())
    for (path, ours), theirs in zip(module.named_parameters(), on_gpu.parameters(), strict=True):
        torch.testing.assert_close(theirs.grad.cpu(), ours.grad, rtol=0, atol=TOLERANCE * largest, msg=path)
    for ours, theirs in zip(module.buffers(), on_gpu.buffers(), strict=True):
        torch.testing.assert_close(theirs.cpu(), ours, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("name", SUITES["pocket"])
def test_a_model_compiles_whole_on_a_gpu(name):
    assert_compiles_whole(name, small(WORKLOADS[name].model), "inductor", "cuda")
