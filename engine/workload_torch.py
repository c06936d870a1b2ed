"""The workload object of a torch submission: a program (model file) behind AlgoPerf's workload interface."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from timetrial.engine.errors import SnapshotError
from timetrial.engine.facts import TorchDecoder, TorchProgram, WorkloadFacts
from timetrial.engine.spec import ForwardPassMode, LossType, ShapeTuple
from timetrial.engine.workload import FactsWorkload


class TorchWorkload(FactsWorkload):
    """Parameters are an nn.Module on `device`; with several ranks, one wrapped for distributed training."""

    def __init__(self, facts: WorkloadFacts, *, device: torch.device, ranks: int = 1, **limits: Any) -> None:
        super().__init__(facts, **limits)
        self._program: TorchProgram = facts.programs["torch"](facts.model)
        self._device = device
        self._ranks = ranks
        self._batch_norms: list[tuple[_BatchNorm, float | None]] = []

    def init_model_fn(self, rng: Any) -> tuple[nn.Module, None]:
        torch.manual_seed(int(rng[0]))
        module: nn.Module = self._program.module().to(self._device)
        parameters = dict(module.named_parameters())
        self._shapes = {name: ShapeTuple(tuple(value.shape)) for name, value in parameters.items()}
        self._types = {name: self._program.parameter_types[name] for name in parameters}
        self._batch_norms = [(m, m.momentum) for m in module.modules() if isinstance(m, _BatchNorm)]
        if self._ranks > 1:
            devices = [self._device] if self._device.type == "cuda" else None
            module = DistributedDataParallel(module, device_ids=devices)
        return module, None

    def model_fn(
        self,
        params: nn.Module,
        augmented_and_preprocessed_input_batch: Mapping[str, Any],
        model_state: None,
        mode: ForwardPassMode,
        rng: Any,
        update_batch_norm: bool,
        dropout_rate: float | None = None,
    ) -> tuple[Any, None]:
        """With `update_batch_norm` False in TRAIN mode, batch statistics normalise but are not remembered."""
        del rng, model_state
        rate = self.facts.default_dropout_rate if dropout_rate is None else dropout_rate
        if mode is ForwardPassMode.EVAL:
            if update_batch_norm:
                raise ValueError("batch statistics cannot be updated in EVAL mode")
            params.eval()
            with torch.no_grad():
                return self._program.logits(
                    params, augmented_and_preprocessed_input_batch, dropout_rate=0.0
                ), None
        params.train()
        for layer, momentum in self._batch_norms:
            layer.momentum = momentum if update_batch_norm else 0.0
        return self._program.logits(params, augmented_and_preprocessed_input_batch, dropout_rate=rate), None

    def loss_fn(
        self,
        label_batch: Any,
        logits_batch: Any,
        mask_batch: Any | None = None,
        label_smoothing: float = 0.0,
    ) -> dict[str, Any]:
        return self._program.loss(label_batch, logits_batch, mask_batch, label_smoothing)

    def output_activation_fn(self, logits_batch: Any) -> Any:
        if self.loss_type is LossType.CTC_LOSS:
            logits_batch, _ = logits_batch  # beside them is which frames are padding
        if self.loss_type in (LossType.SOFTMAX_CROSS_ENTROPY, LossType.CTC_LOSS):
            return torch.softmax(logits_batch, dim=-1)
        if self.loss_type is LossType.SIGMOID_CROSS_ENTROPY:
            return torch.sigmoid(logits_batch)
        return logits_batch

    def is_output_params(self, param_key: str) -> bool:
        return param_key in self._program.output_parameters

    def score(self, params: nn.Module, model_state: None, batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The sufficient statistics of one evaluation batch."""
        logits, _ = self.model_fn(params, batch, model_state, ForwardPassMode.EVAL, None, False)
        with torch.no_grad():
            statistics = self._program.score(batch, logits)
            if isinstance(self._program, TorchDecoder):
                statistics = statistics | self._program.decode(unwrapped(params), batch)
        return {name: value.cpu().numpy() for name, value in statistics.items()}


def unwrapped(params: nn.Module) -> nn.Module:
    """The model itself, without the wrappers of distributed training and compilation."""
    while True:
        inner = params.module if isinstance(params, DistributedDataParallel) else params
        inner = getattr(inner, "_orig_mod", inner)  # of torch.compile
        if inner is params:
            return params
        params = inner


def named_tensors(params: nn.Module, model_state: None) -> dict[str, np.ndarray]:
    """Parameters and buffers as NumPy arrays; SnapshotError for anything that is no plain tensor."""
    del model_state
    if not isinstance(params, nn.Module):
        raise SnapshotError(
            f"update_params returned a {type(params).__name__} for the parameters, not a module"
        )
    tensors = {}
    for name, value in unwrapped(params).state_dict(keep_vars=True).items():
        if type(value) not in (torch.Tensor, nn.Parameter):
            raise SnapshotError(f"{name!r} is a {type(value).__qualname__}; it must be a plain tensor")
        tensors[name] = value.detach().contiguous().cpu().numpy()
    return tensors


def load_tensors(
    params: nn.Module, model_state: None, tensors: Mapping[str, np.ndarray]
) -> tuple[nn.Module, None]:
    """Copy named tensors into a module of the same names and shapes."""
    del model_state
    # from_numpy of a read-only or empty array warns; a copy is needed in any case.
    state = {name: torch.tensor(value) for name, value in tensors.items()}
    unwrapped(params).load_state_dict(state)
    return params, None
