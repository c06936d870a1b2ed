"""A submission from a factory of torch optimizers."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from timetrial.engine.spec import LossType, UpdateReturn, Workload
from timetrial.submissions import batches, training_torch

OptimizerFactory = Callable[[Iterable[nn.Parameter], Any], torch.optim.Optimizer]
ScheduleFactory = Callable[[Any, int], Callable[[int], float]]


def submission_from(
    optimizer: OptimizerFactory,
    *,
    schedule: ScheduleFactory | None = None,
    self_tuning: Any = None,
) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """`get_batch_size`, `init_optimizer_state`, `update_params` and `data_selection` around an optimizer.

    optimizer: (parameters, hyperparameters) -> optimizer.
    schedule: (hyperparameters, step hint) -> function from the step to the learning rate; the optimizer's own
        learning rate stays where there is none.
    self_tuning: what takes the place of the hyperparameters when there are none.

    A whole submission:

        import torch
        from timetrial.submissions.adapters_torch import submission_from

        get_batch_size, init_optimizer_state, update_params, data_selection = submission_from(
            lambda parameters, hyperparameters: torch.optim.RMSprop(parameters, lr=1e-3)
        )
    """

    def init_optimizer_state(
        workload: Workload, model_params: nn.Module, model_state: None, hyperparameters: Any, rng: Any
    ) -> dict[str, Any]:
        del workload, model_state, rng
        chosen = self_tuning if hyperparameters is None else hyperparameters
        return {"optimizer": optimizer(model_params.parameters(), chosen)}

    def update_params(
        workload: Workload,
        current_param_container: nn.Module,
        current_params_types: Any,
        model_state: None,
        hyperparameters: Any,
        batch: dict[str, Any],
        loss_type: LossType,
        optimizer_state: dict[str, Any],
        eval_results: Any,
        global_step: int,
        rng: Any,
    ) -> UpdateReturn:
        del current_params_types, model_state, loss_type, eval_results
        chosen = self_tuning if hyperparameters is None else hyperparameters
        model = current_param_container
        loss = training_torch.backward(workload, model, batch, rng, chosen)
        norm = training_torch.clip_gradient(model, chosen)
        if schedule is not None:
            learning_rate = schedule(chosen, workload.step_hint)(global_step)
            training_torch.set_learning_rate(optimizer_state["optimizer"], learning_rate)
        optimizer_state["optimizer"].step()
        training_torch.log(workload, model, loss, norm, global_step)
        return optimizer_state, model, None

    return batches.get_batch_size, init_optimizer_state, update_params, batches.data_selection
