"""The kernels' plain forms on a CPU, forward and backward: eager beside compiled; and optimizer steps.

pytest-benchmark prints a table for each operation, with the ratio to the faster form in brackets. The case is the
operation's moderate one, which a core does in a fraction of a second.
"""

from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from timetrial.kernels.all_triton import KERNELS
from timetrial.kernels.exactness_torch import made
from timetrial.kernels.kernel import Arguments, Function
from timetrial.kernels.multi_tensor_optimizers_torch import AdamW
from timetrial.workloads import WORKLOADS

CPU = torch.device("cpu")

Step = Callable[[], object]


def forward_and_backward(function: Function, arguments: Arguments) -> Step:
    leaves = [a for a in arguments if isinstance(a, torch.Tensor) and a.requires_grad]

    def call() -> object:
        value = function(*arguments)
        outputs = [o for o in (value if isinstance(value, tuple) else (value,)) if o.requires_grad]
        return (
            torch.autograd.grad(outputs, leaves, [torch.ones_like(o) for o in outputs]) if leaves else value
        )

    return call


@pytest.mark.parametrize("form", ["eager", "compiled"])
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.filterwarnings("ignore")  # of Inductor's own
def test_plain_form(benchmark: BenchmarkFixture, name: str, form: str) -> None:
    kernel = KERNELS[name]
    case = next(case for case in kernel.cases if case.size == "moderate")
    function = kernel.reference
    if form == "compiled":
        torch._dynamo.reset()
        function = torch.compile(function, fullgraph=True, dynamic=False)
    benchmark.group = name
    benchmark.pedantic(forward_and_backward(function, made(case, "float32", CPU)), rounds=7, warmup_rounds=2)


def one_at_a_time(parameters: list[torch.Tensor]) -> Step:
    """A loop over tensors, several operations each."""
    return torch.optim.AdamW(parameters, lr=1e-3, foreach=False, fused=False).step


def all_at_once(parameters: list[torch.Tensor]) -> Step:
    """Ours: one operation for all tensors."""
    return AdamW(parameters, lr=1e-3).step


@pytest.mark.parametrize("step", [one_at_a_time, all_at_once])
@pytest.mark.parametrize("workload", ["wmt", "imagenet_resnet"])
def test_optimizer_step(
    benchmark: BenchmarkFixture, workload: str, step: Callable[[list[torch.Tensor]], Step]
) -> None:
    """AdamW over parameters of a workload's shapes."""
    facts = WORKLOADS[workload]
    with torch.device("meta"):
        shapes = [p.shape for p in facts.programs["torch"](facts.model).module().parameters()]
    generator = torch.Generator().manual_seed(0)
    parameters = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    benchmark.group = f"optimizer step, {workload}"
    benchmark.pedantic(step(parameters), rounds=7, warmup_rounds=1)
    benchmark.extra_info["parameters"] = sum(shape.numel() for shape in shapes)
    benchmark.extra_info["tensors"] = len(shapes)
