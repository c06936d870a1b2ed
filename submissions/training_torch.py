"""One training step in torch: gradient of the mean loss, clipping, logging. `training_jax.py` is its twin."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from timetrial.engine.spec import ForwardPassMode, Workload

LOG_EVERY_STEPS = 100


def backward(
    workload: Workload, model: nn.Module, batch: Mapping[str, Any], rng: Any, hyperparameters: Any
) -> Tensor:
    """Leave the gradient of the mean loss over the global batch in `.grad`; update batch norm statistics.

    Read of the hyperparameters, where present: `dropout_rate` (else the workload's own) and `label_smoothing`
    (else 0). Returns this rank's share of the mean loss (scalar, detached); the shares add up to it.
    """
    for parameter in model.parameters():
        parameter.grad = None
    dropout = (
        {} if (rate := getattr(hyperparameters, "dropout_rate", None)) is None else {"dropout_rate": rate}
    )
    logits, _ = workload.model_fn(
        params=model,
        augmented_and_preprocessed_input_batch=dict(batch),
        model_state=None,
        mode=ForwardPassMode.TRAIN,
        rng=rng,
        update_batch_norm=True,
        **dropout,
    )
    losses = workload.loss_fn(
        label_batch=batch["targets"],
        logits_batch=logits,
        mask_batch=batch.get("weights"),
        label_smoothing=getattr(hyperparameters, "label_smoothing", 0.0),
    )
    summed, count = losses["summed"], losses["n_valid_examples"].detach()
    if not _several_ranks():
        loss: Tensor = summed / count
        loss.backward()
        return loss.detach()
    # DDP averages the ranks' gradients, so each rank's sum is scaled by their number over the global count.
    dist.all_reduce(count)
    loss = summed / count
    (loss * dist.get_world_size()).backward()
    return loss.detach()


def clip_gradient(model: nn.Module, hyperparameters: Any) -> Tensor | None:
    """Scale the gradient down to the norm `grad_clip`, if that hyperparameter is set; the norm before."""
    limit = getattr(hyperparameters, "grad_clip", None)
    return None if limit is None else nn.utils.clip_grad_norm_(model.parameters(), limit)


def log(workload: Workload, model: nn.Module, loss: Tensor, norm: Tensor | None, global_step: int) -> None:
    """Log the mean loss and the gradient's norm, every hundredth step; nothing waits for the device.

    `loss` as `backward` returns it, `norm` as `clip_gradient` does.
    """
    if global_step % LOG_EVERY_STEPS:
        return
    if _several_ranks():
        dist.all_reduce(loss)
    if workload.metrics_logger is None:
        return
    if norm is None:
        norm = nn.utils.get_total_norm(p.grad for p in model.parameters() if p.grad is not None)
    metrics: dict[str, Any] = {"loss": loss, "grad_norm": norm}
    workload.metrics_logger.append_scalar_metrics(metrics, global_step)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give every parameter group this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def _several_ranks() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
