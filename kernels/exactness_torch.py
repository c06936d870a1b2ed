"""How exact a kernel is: the one rule that its tests and its benchmark hold it to.

Truth is the plain form in float64. A kernel may be no less exact than the plain form in the same dtype is, but for a
stated slack (`Kernel.slack`).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from timetrial.kernels.kernel import Arguments, Case, Function, Kernel

LEAST_SCALE = 0.1  # of what the slack is a part of: what is exactly 0 may be rounded too


@dataclass(frozen=True, kw_only=True)
class Exactness:
    """One output, or the gradient of one argument, beside the truth."""

    what: str
    error: float  # the largest; infinite for a wrong shape, or infinities and NaN in other places than the truth's
    allowed: float

    @property
    def is_good(self) -> bool:
        """Whether the rule is kept."""
        return self.error <= self.allowed


def made(case: Case, dtype: str, device: torch.device) -> Arguments:
    """The case's arguments; the same on every call."""
    return case.make(torch.Generator(device).manual_seed(0), getattr(torch, dtype), device)


def copies(arguments: Arguments, dtype: torch.dtype | None = None) -> Arguments:
    """The arguments anew, leaves where they were; in another dtype of floating point if one is given."""

    def copy(argument: Any) -> Any:
        if not isinstance(argument, Tensor):
            return argument
        new = argument.detach().clone()
        if dtype is not None and new.is_floating_point():
            new = new.to(dtype)
        return new.requires_grad_(argument.requires_grad)

    return tuple(copy(argument) for argument in arguments)


def results(function: Function, arguments: Arguments) -> list[Tensor]:
    """Outputs, then gradients of the leaves for one random gradient of each output, all in float64."""
    return [value for _, value in _named_results(function, arguments)]


def exactness(kernel: Kernel, arguments: Arguments, dtype: str) -> Iterator[Exactness]:
    """Each output and each gradient of the fused form on arguments of `dtype`, a key of `kernel.slack`."""
    truth = results(kernel.reference, copies(arguments, torch.float64))
    plain = results(kernel.reference, copies(arguments))
    fused = _named_results(kernel.fused, copies(arguments))
    for exact, theirs, (what, ours) in zip(truth, plain, fused, strict=True):
        if ours.shape != exact.shape or not _equal(ours, exact, where=~exact.isfinite()):
            yield Exactness(what=what, error=math.inf, allowed=0.0)
            continue
        finite = exact.isfinite()
        exact, theirs, ours = exact[finite], theirs[finite], ours[finite]
        error = allowed = 0.0
        if exact.numel():
            scale = exact.abs().max().clamp_min(LEAST_SCALE)
            error = float((ours - exact).abs().max())
            allowed = float((theirs - exact).abs().max() + kernel.slack[dtype] * scale)
        yield Exactness(what=what, error=error, allowed=allowed)


def is_repeatable(kernel: Kernel, arguments: Arguments) -> bool:
    """Whether the fused form gives the same bits twice."""
    one, other = (results(kernel.fused, copies(arguments)) for _ in range(2))
    return all(
        _equal(a, b, where=torch.ones_like(a, dtype=torch.bool)) for a, b in zip(one, other, strict=True)
    )


def _equal(one: Tensor, other: Tensor, *, where: Tensor) -> bool:
    return torch.allclose(one[where], other[where], rtol=0, atol=0, equal_nan=True)


def _named_results(function: Function, arguments: Arguments) -> list[tuple[str, Tensor]]:
    outputs = function(*arguments)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    places = [n for n, a in enumerate(arguments) if isinstance(a, Tensor) and a.requires_grad]
    differentiable = [output for output in outputs if output.requires_grad]
    above = [
        torch.randn(o.shape, generator=torch.Generator(o.device).manual_seed(n), device=o.device).to(o.dtype)
        for n, o in enumerate(differentiable, 1)
    ]
    gradients = torch.autograd.grad(differentiable, [arguments[n] for n in places], above) if places else ()
    named = [(f"output {n}", value) for n, value in enumerate(outputs, 1)]
    named += [(f"gradient of argument {n + 1}", value) for n, value in zip(places, gradients, strict=True)]
    return [(what, value.detach().double()) for what, value in named]
