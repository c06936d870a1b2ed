"""Gradients that can be differentiated again: the plain form's, in place of a backward kernel's."""

from typing import Any

import torch
from torch import Tensor

from timetrial.kernels.kernel import Function


def plain_gradients(function: Function, inputs: tuple[Any, ...], above: Tensor) -> tuple[Tensor | None, ...]:
    """Of one tensor that `function` makes of the inputs, with `above` for gradient; None for what needs none.

    For a backward pass that runs with gradients enabled (`create_graph=True`): those of an operator's kernel have no
    derivative, as a Hessian times a vector would need.
    """
    # Views: an input may be what the operator itself put out, and its node, at work, would wait for itself.
    viewed = [
        value.view_as(value) if isinstance(value, Tensor) and value.requires_grad else value
        for value in inputs
    ]
    leaves = [value for value in viewed if isinstance(value, Tensor) and value.requires_grad]
    found = iter(torch.autograd.grad(function(*viewed), leaves, above, create_graph=True))
    return tuple(
        next(found) if isinstance(value, Tensor) and value.requires_grad else None for value in viewed
    )
