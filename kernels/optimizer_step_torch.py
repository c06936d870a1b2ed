"""The step of an optimizer over a list of tensors, in place, by what torch has.

Of a parameter w with gradient g, moments m and v (from 0), learning rate r, weight decay d and step t from 1:

    adamw      m <- b1 m + (1 - b1) g,  v <- b2 v + (1 - b2) g^2
               w <- w - r [m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + d w]
    nadamw     as adamw, with b1 m + (1 - b1) g of the new m in place of m in the second line
    sgd        g <- g + d w,  m <- b1 m + g,  w <- w - r m
    nesterov   as sgd, with g + b1 m in place of m in the last
    lion       w <- w - r [sign(b1 m + (1 - b1) g) + d w],  m <- b2 m + (1 - b2) g

Sources: Loshchilov and Hutter 2019 (arXiv 1711.05101); Choi et al. 2019, table 1 (arXiv 1910.05446), with bias
correction; `torch.optim.SGD`; Chen et al. 2023 (arXiv 2302.06675). `optimizer_step_triton.py` is the same in one launch
on a GPU.

Moments are float32; parameters and gradients of another dtype are stepped in float32 and rounded, unless all are of
float64.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["adamw", "nadamw", "sgd", "nesterov", "lion"]
NUM_MOMENTS: dict[Kind, int] = {"adamw": 2, "nadamw": 2, "sgd": 1, "nesterov": 1, "lion": 1}


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A formula of the above and its numbers."""

    kind: Kind
    beta1: float
    beta2: float = 0.0
    eps: float = 0.0
    weight_decay: float = 0.0


def step(
    rule: Rule,
    parameters: list[Tensor],
    gradients: list[Tensor],
    moments: list[list[Tensor]],
    t: Tensor,
    learning_rate: float | Tensor,
) -> None:
    """One step of all parameters, which are of one dtype and laid out as their gradients and moments are.

    moments: lists as long as `parameters`, as many as NUM_MOMENTS says. t: the number () of this step, from 1.
    """
    if not parameters:
        return
    if parameters[0].dtype in (torch.float32, torch.float64):
        _step(rule, parameters, gradients, moments, t, learning_rate)
        return
    wide = [parameter.float() for parameter in parameters]
    _step(rule, wide, [gradient.float() for gradient in gradients], moments, t, learning_rate)
    torch._foreach_copy_(parameters, wide)


def _step(
    rule: Rule,
    parameters: list[Tensor],
    gradients: list[Tensor],
    moments: list[list[Tensor]],
    t: Tensor,
    learning_rate: float | Tensor,
) -> None:
    first = moments[0]
    if rule.kind in ("sgd", "nesterov"):
        torch._fused_sgd_(
            parameters, gradients, first, weight_decay=rule.weight_decay, momentum=rule.beta1, lr=learning_rate,
            dampening=0.0, nesterov=rule.kind == "nesterov", maximize=False, is_first_step=False,
        )  # fmt: skip
        return
    if rule.kind == "lion":
        direction = torch._foreach_lerp(first, gradients, 1 - rule.beta1)
        torch._foreach_sign_(direction)
        torch._foreach_lerp_(first, gradients, 1 - rule.beta2)
        if rule.weight_decay:
            torch._foreach_mul_(parameters, 1 - learning_rate * rule.weight_decay)
        torch._foreach_mul_(direction, -learning_rate)
        torch._foreach_add_(parameters, direction)
        return
    if rule.kind == "nadamw":
        # A step of AdamW that begins at m ends at the moment that looks ahead. It overwrites what it is given.
        torch._foreach_lerp_(first, gradients, 1 - rule.beta1)
        first = list(torch._foreach_mul(first, 1.0))
    torch._fused_adamw_(
        parameters, gradients, first, moments[1], [], [t.float()] * len(parameters), lr=learning_rate,
        beta1=rule.beta1, beta2=rule.beta2, weight_decay=rule.weight_decay, eps=rule.eps,
        amsgrad=False, maximize=False,
    )  # fmt: skip
