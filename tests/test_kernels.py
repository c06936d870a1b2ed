"""Every kernel under Triton's interpreter against its plain form, in every dtype and on every case, and through torch.

`kernels/exactness_torch.py` has the rule: truth is the plain form in float64.
"""

import ast
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

with mock.patch.dict(os.environ, TRITON_INTERPRET="1"):
    from timetrial.kernels import used
    from timetrial.kernels.all_triton import KERNELS, LAUNCHES
    from timetrial.kernels.exactness_torch import copies, exactness, made, results

CPU = torch.device("cpu")
KERNELS_FOLDER = Path(__file__).parents[1] / "kernels"
CASES = [
    pytest.param(name, case, dtype, id=f"{name}-{case.name}-{dtype}")
    for name, kernel in KERNELS.items()
    for case in kernel.cases
    if case.size == "small"
    for dtype in kernel.dtypes
]
FIRST = [
    (name, next(case for case in kernel.cases if case.size == "small")) for name, kernel in KERNELS.items()
]
DIFFERENTIABLE = [
    (name, case)
    for name, case in FIRST
    if any(isinstance(a, torch.Tensor) and a.requires_grad for a in made(case, "float32", CPU))
]
FORWARD_ONLY = [pair for pair in FIRST if pair not in DIFFERENTIABLE]


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    """Some of Triton is imported late, and asks again."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")


@pytest.mark.parametrize(("name", "case", "dtype"), CASES)
def test_a_kernel_is_as_exact_as_its_plain_form(name, case, dtype):
    kernel = KERNELS[name]
    bad = [found for found in exactness(kernel, made(case, dtype, CPU), dtype) if not found.is_good]
    assert not bad


@pytest.mark.parametrize(("name", "case"), DIFFERENTIABLE, ids=[name for name, _ in DIFFERENTIABLE])
def test_the_plain_form_has_the_gradient_of_finite_differences(name, case):
    assert torch.autograd.gradcheck(
        KERNELS[name].reference, copies(made(case, "float64", CPU), torch.float64)
    )


def of_squared_gradients(function, arguments):
    """Gradients of the sum of a form's squared gradients, which no gradient of a first order tells."""
    leaves = [a for a in arguments if isinstance(a, torch.Tensor) and a.requires_grad]
    value = function(*arguments)
    outputs = [output for output in (value if isinstance(value, tuple) else (value,)) if output.requires_grad]
    loss = sum(output.square().sum() for output in outputs)
    gradients = torch.autograd.grad(loss, leaves, create_graph=True)
    return torch.autograd.grad(sum(gradient.square().sum() for gradient in gradients), leaves)


@pytest.mark.parametrize(
    ("name", "case"),
    [*DIFFERENTIABLE, ("layer_norm", next(c for c in KERNELS["layer_norm"].cases if c.name == "residual"))],
    ids=[*(name for name, _ in DIFFERENTIABLE), "layer_norm with residual"],
)
def test_gradients_have_the_plain_form_s_gradients(name, case):
    kernel, arguments = KERNELS[name], made(case, "float32", CPU)
    ours = of_squared_gradients(kernel.fused, arguments)
    theirs = of_squared_gradients(kernel.reference, arguments)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))


@pytest.mark.parametrize(("name", "case"), DIFFERENTIABLE, ids=[name for name, _ in DIFFERENTIABLE])
def test_under_a_transform_of_torch_func_the_plain_form_runs(name, case):
    first, *others = made(case, "float32", CPU)

    def summed(x):
        value = KERNELS[name](x, *others)
        return sum(output.sum() for output in (value if isinstance(value, tuple) else (value,)))

    def summed_and_asked(x):
        assert "transform" in KERNELS[name].why_not(x, *others)
        return summed(x)

    (expected,) = torch.autograd.grad(summed(first), first)
    torch.testing.assert_close(torch.func.grad(summed_and_asked)(first.detach()), expected)


@pytest.mark.parametrize(("name", "case"), FORWARD_ONLY, ids=[name for name, _ in FORWARD_ONLY])
def test_what_has_no_gradient_is_left_to_the_plain_form_where_one_is_asked_for(name, case):
    first, *others = made(case, "float32", CPU)
    first.requires_grad_()
    assert "gradient" in KERNELS[name].why_not(first, *others)
    with torch.no_grad():
        assert "cpu" in KERNELS[name].why_not(first, *others)
    assert KERNELS[name](first, *others).requires_grad


@pytest.mark.parametrize(("name", "case"), FIRST, ids=list(KERNELS))
def test_compilation_traces_through_a_kernel(name, case):
    kernel, arguments = KERNELS[name], made(case, "float32", CPU)
    compiled = torch.compile(kernel.fused, fullgraph=True, backend="aot_eager")
    for ours, theirs in zip(
        results(compiled, copies(arguments)), results(kernel.fused, copies(arguments)), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_it_is_noted_once_in_which_form_compiled_code_runs_a_kernel():
    softmax, norm = (
        replace(KERNELS[name], name=f"traced {name}") for name in ("softmax_cross_entropy", "layer_norm")
    )
    arguments = made(softmax.cases[0], "float32", CPU)
    form = torch.compile(lambda *given: softmax(*given) + 1, fullgraph=True, backend="aot_eager")
    with mock.patch.dict(used._uses, clear=True):
        form(*arguments)
        (noted,) = used.uses()["traced softmax_cross_entropy"]
        assert noted.startswith("plain: ") and "cpu" in noted
        used._uses.clear()
        form(*arguments)
        assert not used.uses()

        @partial(torch.compile, fullgraph=True, backend="aot_eager", dynamic=True)
        def of_long_rows(x_RD):
            return norm(x_RD, None, torch.ones(x_RD.shape[1]), None, 1e-6, True)

        of_long_rows(torch.randn(3, 9_000))
        assert "at most 8192" in used.uses()["traced layer_norm"][0]


class Operators(TorchDispatchMode):
    """Notes each call of an operator of ours."""

    def __init__(self):
        super().__init__()
        self.calls = {}

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        if operator.namespace == "timetrial":
            self.calls[operator] = args
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize(("name", "case"), FIRST, ids=list(KERNELS))
def test_operators_are_registered_as_torch_wants_them(name, case):
    """Schema, fake and gradient of each, forward and backward; aliases and mutations among them."""
    with Operators() as operators:
        results(KERNELS[name].fused, made(case, "float32", CPU))
    assert operators.calls
    for operator, arguments in operators.calls.items():
        torch.library.opcheck(
            operator,
            arguments,
            test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
        )


@pytest.mark.parametrize(("name", "case"), FIRST, ids=list(KERNELS))
def test_without_a_gpu_the_plain_form_runs_and_it_is_said_why(name, case):
    kernel, arguments = KERNELS[name], made(case, "float32", CPU)
    assert "cpu" in kernel.why_not(*arguments)
    ours, theirs = results(kernel, copies(arguments)), results(kernel.reference, copies(arguments))
    assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(("name", "case"), FIRST, ids=list(KERNELS))
def test_tensors_that_a_kernel_would_misread_are_refused(name, case):
    kernel, arguments = KERNELS[name], made(case, "float32", CPU)
    assert "float64" in kernel.why_not(arguments[0].double(), *arguments[1:])
    for place, tensor in enumerate(arguments):
        if isinstance(tensor, torch.Tensor):
            strided = torch.stack([tensor, tensor], -1)[..., 0]
            changed = (*arguments[:place], strided, *arguments[place + 1 :])
            assert "side by side" in kernel.why_not(*changed)


def test_a_row_that_does_not_count_is_not_read_and_one_that_does_tells_of_nan():
    kernel = KERNELS["softmax_cross_entropy"]
    logits = torch.randn(3, 5)
    logits[1:, 2] = torch.nan
    for form in (kernel.reference, kernel.fused):
        leaf = logits.clone().requires_grad_()
        losses = form(leaf, torch.tensor([0, 1, 1]), torch.tensor([1.0, 0.0, 1.0]), 0.1)
        losses[:2].sum().backward()
        assert losses[0].isfinite() and losses[1] == 0 and losses[2].isnan()
        assert leaf.grad[0].isfinite().all() and (leaf.grad[1] == 0).all()


def jitted_functions():
    for path in sorted(KERNELS_FOLDER.glob("*_triton.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and any(
                "jit" in ast.unparse(d) for d in node.decorator_list
            ):
                yield pytest.param(node, id=f"{path.stem}-{node.name}")


def assignments(nodes):
    """Targets and values of all assignments under the nodes, each name of a tuple by itself."""
    for node in nodes:
        for each in ast.walk(node):
            if isinstance(each, ast.Assign):
                target, value = each.targets[0], each.value
                if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                    yield from zip(target.elts, value.elts, strict=True)
                else:
                    yield target, value


@pytest.mark.parametrize("function", list(jitted_functions()))
def test_no_two_variables_of_a_loop_begin_as_one_value(function):
    """Of x1 = x0 before a loop and x0 = x1 in it, Triton's compiler (3.6 and 3.7) takes x0 for unchanged.

    The interpreter does not, so that no other test here would fail.
    """
    loops = [node for node in ast.walk(function) if isinstance(node, ast.For | ast.While)]
    inside = {id(each) for loop in loops for each in ast.walk(loop)}
    changed = {target.id for target, _ in assignments(loops) if isinstance(target, ast.Name)}
    for target, value in assignments([function]):
        if id(target) not in inside and isinstance(target, ast.Name) and isinstance(value, ast.Name):
            assert not {target.id, value.id} <= changed, f"{target.id} = {value.id}"


@pytest.mark.parametrize(
    "arguments",
    [["--target", "sm_90"], pytest.param(["--options"], marks=pytest.mark.slow)],
    ids=["as launched, for sm_90", "in all options, for all targets"],
)
def test_every_kernel_compiles_ahead_of_time_into_code_without_faults(arguments):
    script = Path(__file__).parents[1] / "benchmarks" / "kernel_code.py"
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, script, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if "sm_90" in line]
    as_launched = sum(len(launches()) for launches in LAUNCHES.values())
    assert len(lines) > as_launched if "--options" in arguments else len(lines) == as_launched


def test_code_that_falls_short_is_told_from_code_that_does_not():
    from timetrial.kernels.ahead_of_time_triton import Report, faults

    launch = KERNELS["softmax_cross_entropy"].launches()[0]
    good = Report(
        target="sm_90",
        registers=32,
        spills=0,
        shared_bytes=0,
        wide_loads=4,
        loads=4,
        matrix_instructions=0,
        instructions=90,
    )
    assert faults(launch, good) == []
    bad = replace(good, spills=3, shared_bytes=232_449, wide_loads=0)
    assert len(faults(replace(launch, is_matrix=True), bad)) == 4
