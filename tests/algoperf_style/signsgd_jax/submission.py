"""Momentum of signs with a cosine schedule, as an AlgoPerf v0.6 author writes it in JAX."""

# ruff: noqa: UP006, UP035, UP045
from typing import Any, Dict, Iterator, List, Optional, Tuple

import jax
import jax.numpy as jnp
import optax
from absl import logging
from algoperf import jax_sharding_utils, spec

HPARAMS = {"learning_rate": 3e-3, "beta": 0.9, "weight_decay": 0.01, "warmup_factor": 0.05}


def init_optimizer_state(
    workload: spec.Workload,
    model_params: spec.ParameterContainer,
    model_state: spec.ModelAuxiliaryState,
    hyperparameters: spec.Hyperparameters,
    rng: spec.RandomState,
) -> spec.OptimizerState:
    del model_params, model_state, hyperparameters, rng
    warmup_steps = int(HPARAMS["warmup_factor"] * workload.step_hint)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, HPARAMS["learning_rate"], warmup_steps, workload.step_hint
    )
    init, update = optax.lion(schedule, b1=HPARAMS["beta"], b2=0.99, weight_decay=HPARAMS["weight_decay"])
    zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape_tuple), workload.param_shapes)
    return jax_sharding_utils.replicate(init(zeros)), update


def train_step(workload, update, model_state, optimizer_state, params, batch, rng, label_smoothing):
    def loss_of(params):
        logits, new_model_state = workload.model_fn(
            params,
            batch,
            model_state,
            spec.ForwardPassMode.TRAIN,
            rng,
            update_batch_norm=True,
        )
        losses = workload.loss_fn(
            label_batch=batch["targets"],
            logits_batch=logits,
            mask_batch=batch.get("weights"),
            label_smoothing=label_smoothing,
        )
        return losses["summed"], (losses["n_valid_examples"], new_model_state)

    (total, (count, new_model_state)), grad = jax.value_and_grad(loss_of, has_aux=True)(params)
    grad = jax.tree.map(lambda g: g / count, grad)
    updates, new_optimizer_state = update(grad, optimizer_state, params)
    return new_optimizer_state, optax.apply_updates(params, updates), new_model_state, total / count


def update_params(
    workload: spec.Workload,
    current_param_container: spec.ParameterContainer,
    current_params_types: spec.ParameterTypeTree,
    model_state: spec.ModelAuxiliaryState,
    hyperparameters: spec.Hyperparameters,
    batch: Dict[str, spec.Tensor],
    loss_type: spec.LossType,
    optimizer_state: spec.OptimizerState,
    eval_results: List[Tuple[int, float]],
    global_step: int,
    rng: spec.RandomState,
    train_state: Optional[Dict[str, Any]] = None,
) -> spec.UpdateReturn:
    del current_params_types, loss_type, eval_results, train_state, hyperparameters
    optimizer_state, update = optimizer_state
    replicated = jax_sharding_utils.get_replicate_sharding()
    sharded = jax_sharding_utils.get_batch_dim_sharding()
    jitted_train_step = jax.jit(
        train_step,
        static_argnums=(0, 1),
        donate_argnums=(2, 3, 4),
        in_shardings=(replicated, replicated, replicated, sharded, replicated, replicated),
        out_shardings=(replicated, replicated, replicated, replicated),
    )
    new_optimizer_state, new_params, new_model_state, loss = jitted_train_step(
        workload, update, model_state, optimizer_state, current_param_container, batch, rng, 0.1
    )
    if global_step % 100 == 0:
        logging.info("%d) loss = %0.3f", global_step, loss)
        if workload.metrics_logger is not None:
            workload.metrics_logger.append_scalar_metrics({"loss": loss}, global_step)
    return (new_optimizer_state, update), new_params, new_model_state


def get_batch_size(workload_name):
    if workload_name == "criteo1tb":
        return 262_144
    elif workload_name in ("imagenet_resnet", "imagenet_vit"):
        return 1024
    elif workload_name in ("librispeech_conformer", "librispeech_deepspeech"):
        return 256
    elif workload_name == "ogbg":
        return 512
    raise ValueError(f"Unsupported workload name: {workload_name}.")


def data_selection(
    workload: spec.Workload,
    input_queue: Iterator[Dict[str, spec.Tensor]],
    optimizer_state: spec.OptimizerState,
    current_param_container: spec.ParameterContainer,
    model_state: spec.ModelAuxiliaryState,
    hyperparameters: spec.Hyperparameters,
    global_step: int,
    rng: spec.RandomState,
) -> Dict[str, spec.Tensor]:
    del workload, optimizer_state, current_param_container, model_state, hyperparameters, global_step, rng
    return next(input_queue)
