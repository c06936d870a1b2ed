"""Optimizer steps over many tensors, which are in place and so no kernels: checked and timed as those of `kernels.py`.

Parameters have the shapes of a workload's model; gradients are clipped by their global norm.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from device_rates import Timer
from kernel_times import Rates, Row, going_on
from torch import Tensor

from timetrial.kernels import multi_tensor_optimizers_torch as ours
from timetrial.kernels import optimizer_step_torch
from timetrial.kernels.kernel import Cost, size_in_bytes
from timetrial.kernels.optimizer_step_torch import NUM_MOMENTS, Kind, Rule
from timetrial.workloads import WORKLOADS

CASES: tuple[tuple[Kind, str], ...] = (
    ("adamw", "wmt"),
    ("nadamw", "wmt"),
    ("nesterov", "wmt"),
    ("lion", "wmt"),
    ("adamw", "imagenet_resnet"),
)
NORM, RATE, BETAS, DECAY, EPSILON = 1.0, 1e-3, (0.9, 0.98), 0.1, 1e-8
CHECKED_STEPS = 3
SLACK = 2.0**-22  # of the largest weight: each step rounds it
# Of Lion's weights: where the sum that it takes the sign of is all but 0, rounding turns it.
SIGNS_SHARE = 1e-6

OURS: dict[Kind, Callable[[list[Tensor]], ours.MultiTensorOptimizer]] = {
    "adamw": partial(ours.AdamW, lr=RATE, betas=BETAS, eps=EPSILON, weight_decay=DECAY, max_norm=NORM),
    "nadamw": partial(ours.NAdamW, lr=RATE, betas=BETAS, eps=EPSILON, weight_decay=DECAY, max_norm=NORM),
    "nesterov": partial(
        ours.SGD, lr=RATE, momentum=BETAS[0], weight_decay=DECAY, nesterov=True, max_norm=NORM
    ),
    "lion": partial(ours.Lion, lr=RATE, betas=BETAS, weight_decay=DECAY, max_norm=NORM),
}
TORCHS: dict[Kind, Callable[..., torch.optim.Optimizer]] = {
    "adamw": partial(torch.optim.AdamW, lr=RATE, betas=BETAS, eps=EPSILON, weight_decay=DECAY),
    "nesterov": partial(torch.optim.SGD, lr=RATE, momentum=BETAS[0], weight_decay=DECAY, nesterov=True),
}


def check(device: torch.device) -> tuple[int, list[str]]:
    """How many rules were checked, and a line for each that is off."""
    lines = []
    for kind in OURS:
        truth = _plain_steps(kind, [p.double() for p in _parameters("imagenet_resnet", device)])
        plain = _plain_steps(kind, _parameters("imagenet_resnet", device))
        fused = _parameters("imagenet_resnet", device)
        optimizer = OURS[kind](fused)
        for step in range(CHECKED_STEPS):
            for p, g in zip(fused, _gradients(fused, step), strict=True):
                p.grad = g
            optimizer.step()
        off = number = 0
        for exact, theirs, our in zip(truth, plain, fused, strict=True):
            slack = SLACK * exact.abs().max().clamp_min(0.1)
            allowed = (theirs - exact).abs().max() + slack
            off += int(((our.detach() - exact).abs() > allowed).sum())
            number += exact.numel()
        if off > (SIGNS_SHARE * number if kind == "lion" else 0):
            lines.append(
                f"  {kind}: {off} of {number} weights are further from float64's than plain float32's are"
            )
    return len(OURS), lines


def timed(rates: Rates, timer: Timer, device: torch.device) -> Iterator[Row]:
    """Ours, plain, torch's fused optimizer, each with clipping; nothing compiled."""
    for kind, workload in CASES:
        parameters = _with_gradients(workload, device)
        # Parameters and moments are read and written, gradients read once for the norm and once for the step.
        moved = (2 + 2 * NUM_MOMENTS[kind] + 2) * size_in_bytes(*parameters)
        row = Row("optimizer_step", f"{kind} {workload}", "float32", {})
        row.floor["step"] = rates.floor(Cost(bytes_moved=moved), "float32")
        for form, step in _forms(kind, parameters):
            _time_form(row, form, step, timer)
        yield row


def time_compiled(row: Row, timer: Timer, device: torch.device) -> None:
    """Add torch's optimizer under `torch.compile` to a row, where there is one."""
    kind, workload = next(case for case in CASES if row.case == " ".join(case))
    if kind in TORCHS:
        torch._dynamo.reset()
        parameters = _with_gradients(workload, device)
        step = _torchs_step(parameters, TORCHS[kind](parameters, foreach=True))
        _time_form(row, "compiled", torch.compile(step), timer)


def _forms(kind: Kind, parameters: list[Tensor]) -> Iterator[tuple[str, Callable[[], Any]]]:
    yield "fused", OURS[kind](parameters).step
    detached, gradients = [p.detach() for p in parameters], [p.grad for p in parameters if p.grad is not None]
    state = _state(kind, parameters)
    yield "plain", lambda: _plain_step(kind, detached, gradients, state)
    if kind in TORCHS:
        yield "torch", _torchs_step(parameters, TORCHS[kind](parameters, fused=True))


def _time_form(row: Row, form: str, step: Callable[[], Any], timer: Timer) -> None:
    with going_on(row, form):
        row.seconds[form] = {"step": timer(step)}


def _torchs_step(parameters: list[Tensor], optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    def step() -> None:
        torch.nn.utils.clip_grad_norm_(parameters, NORM)
        optimizer.step()

    return step


def _parameters(workload: str, device: torch.device) -> list[Tensor]:
    facts = WORKLOADS[workload]
    with torch.device("meta"):
        shapes = [p.shape for p in facts.programs["torch"](facts.model).module().parameters()]
    generator = torch.Generator(device).manual_seed(0)
    return [torch.randn(shape, generator=generator, device=device).requires_grad_() for shape in shapes]


def _with_gradients(workload: str, device: torch.device) -> list[Tensor]:
    parameters = _parameters(workload, device)
    for parameter, gradient in zip(parameters, _gradients(parameters, 0), strict=True):
        parameter.grad = gradient
    return parameters


def _gradients(parameters: list[Tensor], step: int) -> list[Tensor]:
    """The same for parameters of any dtype."""
    generator = torch.Generator(parameters[0].device).manual_seed(1 + step)
    return [torch.randn(p.shape, generator=generator, device=p.device).to(p.dtype) for p in parameters]


def _state(kind: Kind, parameters: list[Tensor]) -> list[list[Tensor]]:
    return [[torch.zeros_like(p) for p in parameters] for _ in range(NUM_MOMENTS[kind])]


def _plain_steps(kind: Kind, parameters: list[Tensor]) -> list[Tensor]:
    parameters = [p.detach() for p in parameters]
    state = _state(kind, parameters)
    for step in range(CHECKED_STEPS):
        _plain_step(kind, parameters, _gradients(parameters, step), state, step + 1)
    return parameters


def _plain_step(
    kind: Kind, parameters: list[Tensor], gradients: list[Tensor], state: list[list[Tensor]], t: int = 1
) -> None:
    norm = torch.nn.utils.get_total_norm(gradients)
    torch._foreach_mul_(gradients, (NORM / (norm + 1e-6)).clamp(max=1.0))
    rule = Rule(kind=kind, beta1=BETAS[0], beta2=BETAS[1], eps=EPSILON, weight_decay=DECAY)
    optimizer_step_torch.step(
        rule, parameters, gradients, state, torch.tensor(t, device=parameters[0].device), RATE
    )
