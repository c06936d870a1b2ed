"""NAdamW in torch; `nadamw_jax.py` is the same rule in optax."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class NAdamW(torch.optim.Optimizer):
    """Adam with a look-ahead first moment and decoupled weight decay, as AlgoPerf's baseline defines it.

    With gradient g, step t from 1 and betas b1, b2:

        m <- b1 m + (1 - b1) g        v <- b2 v + (1 - b2) g^2
        w <- w - lr [ (b1 m + (1 - b1) g) / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + weight_decay w ]

    `torch.optim.NAdam` and `optax.nadamw` divide b1 m by 1 - b1^(t+1) instead, so their first steps are
    shorter.
    Source: arXiv 1910.05446, table 1, with bias correction.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        betas: tuple[float, float],
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "t": 0})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient; `closure` is not supported."""
        if closure is not None:
            raise ValueError("NAdamW takes its gradients from .grad; it calls no closure")
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            for p in params:
                if not self.state[p]:
                    self.state[p] = {"m": torch.zeros_like(p), "v": torch.zeros_like(p)}
            group["t"] += 1
            ms, vs = ([self.state[p][name] for p in params] for name in ("m", "v"))
            _update(params, [p.grad for p in params], ms, vs, group)


def _update(
    params: list[Tensor], grads: list[Tensor], ms: list[Tensor], vs: list[Tensor], group: dict[str, Any]
) -> None:
    (b1, b2), lr = group["betas"], group["lr"]
    torch._foreach_lerp_(ms, grads, 1.0 - b1)
    torch._foreach_mul_(vs, b2)
    torch._foreach_addcmul_(vs, grads, grads, 1.0 - b2)
    # Both corrections are moved into two numbers: with c = sqrt(1 - b2^t), sqrt(v) / c + eps is
    # (sqrt(v) + c eps) / c.
    correction = (1.0 - b2 ** group["t"]) ** 0.5
    denominators = torch._foreach_sqrt(vs)
    torch._foreach_add_(denominators, correction * group["eps"])
    ahead = torch._foreach_lerp(ms, grads, 1.0 - b1)
    torch._foreach_mul_(params, 1.0 - lr * group["weight_decay"])
    torch._foreach_addcdiv_(params, ahead, denominators, -lr * correction / (1.0 - b1 ** group["t"]))
