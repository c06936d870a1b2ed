"""One training step in JAX: gradient of the mean loss, clipping, update. `training_torch.py` is its twin."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from timetrial.engine.algoperf_jax import get_batch_dim_sharding, get_replicate_sharding
from timetrial.engine.spec import ForwardPassMode, Workload

LOG_EVERY_STEPS = 100

# (optimizer state, parameters, model state, batch, rng) -> (the first three anew, mean loss, gradient norm)
TrainStep = Callable[[Any, Any, Any, Any, Any], tuple[Any, Any, Any, jax.Array, jax.Array]]


def make_train_step(
    workload: Workload, transformation: optax.GradientTransformation, hyperparameters: Any
) -> TrainStep:
    """The jitted step, to be made once per trial; its first three arguments are donated.

    Read of the hyperparameters, where present: `dropout_rate` (else the workload's own), `label_smoothing`
    (else 0) and `grad_clip` (a norm; else no clipping). Parameters, optimizer state and model state are
    replicated, the batch is split along its first axis; losses are global sums.
    """
    rate = getattr(hyperparameters, "dropout_rate", None)
    dropout = {} if rate is None else {"dropout_rate": rate}
    label_smoothing = getattr(hyperparameters, "label_smoothing", 0.0)
    limit = getattr(hyperparameters, "grad_clip", None)

    def summed_loss(params: Any, model_state: Any, batch: Any, rng: Any) -> tuple[Any, tuple[Any, Any]]:
        logits, new_model_state = workload.model_fn(
            params, batch, model_state, ForwardPassMode.TRAIN, rng, update_batch_norm=True, **dropout
        )
        losses = workload.loss_fn(
            label_batch=batch["targets"],
            logits_batch=logits,
            mask_batch=batch.get("weights"),
            label_smoothing=label_smoothing,
        )
        return losses["summed"], (losses["n_valid_examples"], new_model_state)

    def step(
        optimizer_state: Any, params: Any, model_state: Any, batch: Any, rng: Any
    ) -> tuple[Any, Any, Any, jax.Array, jax.Array]:
        (summed, (count, new_model_state)), gradient = jax.value_and_grad(summed_loss, has_aux=True)(
            params, model_state, batch, rng
        )
        gradient = jax.tree.map(lambda g: g / count, gradient)
        norm = optax.tree.norm(gradient)
        if limit is not None:
            factor = jnp.minimum(limit / (norm + 1e-6), 1.0)  # torch's clip_grad_norm_
            gradient = jax.tree.map(lambda g: g * factor, gradient)
        updates, new_optimizer_state = transformation.update(gradient, optimizer_state, params)
        new_params = optax.apply_updates(params, updates)
        return new_optimizer_state, new_params, new_model_state, summed / count, norm

    replicated, split = get_replicate_sharding(), get_batch_dim_sharding()
    return jax.jit(
        step,
        donate_argnums=(0, 1, 2),
        in_shardings=(replicated, replicated, replicated, split, replicated),
        out_shardings=replicated,
    )


def log(workload: Workload, loss: jax.Array, norm: jax.Array, global_step: int) -> None:
    """Log the mean loss and the gradient's norm, every hundredth step; nothing waits for the device."""
    if global_step % LOG_EVERY_STEPS == 0 and workload.metrics_logger is not None:
        metrics: dict[str, Any] = {"loss": loss, "grad_norm": norm}
        workload.metrics_logger.append_scalar_metrics(metrics, global_step)
