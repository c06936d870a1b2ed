"""Optimizers that step all tensors in one launch on a CUDA device, and by torch's fastest means elsewhere.

    optimizer = NAdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1, max_norm=1.0)
    loss.backward()
    optimizer.step()               # clips by the global norm, then steps; nothing waits for the device
    optimizer.gradient_norm        # before clipping, on the device

They are `torch.optim.Optimizer`s, with groups of parameters, schedulers and `state_dict`. `lr` may be a tensor on the
device. Parameters of a group have one dtype, float32 or bfloat16, and moments are float32. A group counts its steps,
also for a parameter that has no gradient yet. Formulas: `optimizer_step_torch.py`.
"""

import importlib.util
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from timetrial.kernels import optimizer_step_torch
from timetrial.kernels.optimizer_step_torch import NUM_MOMENTS, Kind, Rule

DTYPES = (torch.float32, torch.bfloat16)
MOMENTS = ("first", "second")


class MultiTensorOptimizer(torch.optim.Optimizer):
    """What the optimizers below share. max_norm: the global norm that gradients are scaled down to, as
    `torch.nn.utils.clip_grad_norm_` does; after a step, `.grad` may be as it was or scaled."""

    kind: ClassVar[Kind]

    def __init__(self, params: ParamsT, *, max_norm: float | None, **defaults: Any) -> None:
        super().__init__(params, defaults)
        self.max_norm = max_norm
        self._squares: Tensor | None = None
        self._batches: dict[tuple[int, ...], Any] = {}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        parameters = [p for each in self.param_groups for p in each["params"]]
        if len(devices := {str(p.device) for p in parameters}) > 1:
            raise ValueError(f"parameters are on {', '.join(sorted(devices))}: they should be on one device")
        dtypes = {p.dtype for p in group["params"]}
        if len(dtypes) > 1 or not dtypes <= set(DTYPES):
            raise ValueError(
                f"parameters of a group are of {', '.join(sorted(map(str, dtypes)))}: "
                f"they should be of one dtype, {' or '.join(map(str, DTYPES))}"
            )
        for place, p in enumerate(group["params"]):
            if torch.empty_like(p, device="meta").stride() != p.stride():
                raise ValueError(f"parameter {place} of a group has gaps in memory: it should have none")
        group["t"] = torch.zeros((), dtype=torch.int64, device=parameters[0].device)

    def __getstate__(self) -> dict[str, Any]:
        """For a copy, which finds the addresses of its own tensors anew."""
        return {**super().__getstate__(), "max_norm": self.max_norm, "_squares": None, "_batches": {}}

    @property
    def gradient_norm(self) -> Tensor | None:
        """Of all gradients of the last step before clipping, () float32; None without `max_norm`."""
        return None if self._squares is None else self._squares.sqrt()

    def why_not(self) -> str | None:
        """Why a step is not one launch, or None."""
        if importlib.util.find_spec("triton") is None:
            return "Triton is not installed"
        device = self.param_groups[0]["params"][0].device
        return (
            None
            if device.type == "cuda"
            else f"parameters are on {device}, and the kernels run on CUDA devices"
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient; `closure` is not supported."""
        if closure is not None:
            raise ValueError("gradients are taken from .grad: step calls no closure")
        lists = [(group, *self._tensors(group)) for group in self.param_groups]
        lists = [each for each in lists if each[1]]
        if not lists:
            return
        if self.why_not() is None:
            self._fused_step(lists)
        else:
            self._plain_step(lists)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As `Optimizer` does, but that moments stay float32 and the count of steps goes to the device."""
        super().load_state_dict(state_dict)
        for group, saved in zip(self.param_groups, state_dict["param_groups"], strict=True):
            for p, number in zip(group["params"], saved["params"], strict=True):
                for name, moment in state_dict["state"].get(number, {}).items():
                    self.state[p][name] = torch.empty_like(p, dtype=torch.float32).copy_(moment)
            group["t"] = group["t"].to(group["params"][0].device, copy=True)

    def _tensors(self, group: dict[str, Any]) -> tuple[list[Tensor], list[Tensor], list[list[Tensor]]]:
        """Parameters that have gradients, these, and lists of moments; all of a parameter's laid out as it is."""
        parameters = [p for p in group["params"] if p.grad is not None]
        gradients = [
            p.grad if p.grad.stride() == p.stride() else torch.empty_like(p).copy_(p.grad) for p in parameters
        ]
        names = MOMENTS[: NUM_MOMENTS[self.kind]]
        for p in parameters:
            if not self.state[p]:
                self.state[p] = {name: torch.zeros_like(p, dtype=torch.float32) for name in names}
        return parameters, gradients, [[self.state[p][name] for p in parameters] for name in names]

    def _rule(self, group: dict[str, Any]) -> Rule:
        beta1, beta2 = group["betas"] if "betas" in group else (group["momentum"], 0.0)
        kind: Kind = "nesterov" if group.get("nesterov") else self.kind
        return Rule(
            kind=kind, beta1=beta1, beta2=beta2, eps=group.get("eps", 0.0), weight_decay=group["weight_decay"]
        )

    def _plain_step(self, lists: list[Any]) -> None:
        if self.max_norm is not None:
            gradients = [gradient for _, _, gradients, _ in lists for gradient in gradients]
            norm = torch.nn.utils.get_total_norm(gradients)
            self._squares = norm.square()
            torch._foreach_mul_(gradients, (self.max_norm / (norm + 1e-6)).clamp(max=1.0))
        for group, parameters, gradients, moments in lists:
            group["t"] += 1
            rule = self._rule(group)
            optimizer_step_torch.step(rule, parameters, gradients, moments, group["t"], group["lr"])

    def _fused_step(self, lists: list[Any]) -> None:
        from timetrial.kernels import optimizer_step_triton

        batches = []
        for _, parameters, gradients, moments in lists:
            key = tuple(map(id, parameters))  # one entry for each set of parameters that had gradients
            if key not in self._batches:
                self._batches[key] = optimizer_step_triton.Batch(parameters)
            batches.append(self._batches[key])
            batches[-1].locate(parameters, gradients, *moments)
        if self.max_norm is not None:
            self._squares = torch.cat([batch.square_sums() for batch in batches]).sum()
        for (group, parameters, _, _), batch in zip(lists, batches, strict=True):
            batch.step(self._rule(group), group["t"], group["lr"], self._squares, self.max_norm or 0.0)
            torch.autograd.graph.increment_version(parameters)


class AdamW(MultiTensorOptimizer):
    """`torch.optim.AdamW`."""

    kind: ClassVar[Kind] = "adamw"

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        max_norm: float | None = None,
    ) -> None:
        super().__init__(params, max_norm=max_norm, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)


class NAdamW(AdamW):
    """AdamW that looks ahead, as AlgoPerf's baseline does; torch's NAdam has another bias correction."""

    kind: ClassVar[Kind] = "nadamw"


class SGD(MultiTensorOptimizer):
    """`torch.optim.SGD` with momentum: weight decay is added to the gradient."""

    kind: ClassVar[Kind] = "sgd"

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        *,
        nesterov: bool = False,
        max_norm: float | None = None,
    ) -> None:
        super().__init__(
            params, max_norm=max_norm, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov
        )


class Lion(MultiTensorOptimizer):
    """Steps of the sign of a moment that looks ahead; decoupled weight decay."""

    kind: ClassVar[Kind] = "lion"

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        max_norm: float | None = None,
    ) -> None:
        super().__init__(params, max_norm=max_norm, lr=lr, betas=betas, weight_decay=weight_decay)
