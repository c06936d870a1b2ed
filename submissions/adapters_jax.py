"""A submission from a factory of optax transformations."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from timetrial.engine.algoperf_jax import get_replicate_sharding
from timetrial.engine.spec import LossType, UpdateReturn, Workload
from timetrial.submissions import batches, training_jax

TransformationFactory = Callable[[Any, int], optax.GradientTransformation]


def submission_from(
    transformation: TransformationFactory, *, self_tuning: Any = None
) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """`get_batch_size`, `init_optimizer_state`, `update_params` and `data_selection` around a transformation.

    transformation: (hyperparameters, step hint) -> transformation, its schedule included.
    self_tuning: what takes the place of the hyperparameters when there are none.

    The optimizer state is (the transformation's state, the jitted training step). A whole submission:

        import optax
        from timetrial.submissions.adapters_jax import submission_from

        get_batch_size, init_optimizer_state, update_params, data_selection = submission_from(
            lambda hyperparameters, step_hint: optax.rmsprop(1e-3)
        )
    """

    def init_optimizer_state(
        workload: Workload, model_params: Any, model_state: Any, hyperparameters: Any, rng: Any
    ) -> tuple[Any, training_jax.TrainStep]:
        del model_state, rng
        chosen = self_tuning if hyperparameters is None else hyperparameters
        made = transformation(chosen, workload.step_hint)
        state = jax.jit(made.init, out_shardings=get_replicate_sharding())(model_params)
        return state, training_jax.make_train_step(workload, made, chosen)

    def update_params(
        workload: Workload,
        current_param_container: Any,
        current_params_types: Any,
        model_state: Any,
        hyperparameters: Any,
        batch: dict[str, Any],
        loss_type: LossType,
        optimizer_state: tuple[Any, training_jax.TrainStep],
        eval_results: Any,
        global_step: int,
        rng: Any,
    ) -> UpdateReturn:
        del current_params_types, hyperparameters, loss_type, eval_results
        state, step = optimizer_state
        state, params, model_state, loss, norm = step(state, current_param_container, model_state, batch, rng)
        training_jax.log(workload, loss, norm, global_step)
        return (state, step), params, model_state

    return batches.get_batch_size, init_optimizer_state, update_params, batches.data_selection
