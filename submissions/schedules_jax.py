"""The schedules of `schedules.py`, in optax."""

from typing import Any

import optax


def warmup_cosine(hyperparameters: Any, step_hint: int) -> optax.Schedule:
    """As `schedules.warmup_cosine`."""
    warmup_steps = int(hyperparameters.warmup_factor * step_hint)
    decay = optax.cosine_decay_schedule(hyperparameters.learning_rate, max(step_hint - warmup_steps, 1))
    return _after_warmup(hyperparameters.learning_rate, warmup_steps, decay)


def warmup_linear(hyperparameters: Any, step_hint: int) -> optax.Schedule:
    """As `schedules.warmup_linear`."""
    peak = hyperparameters.learning_rate
    warmup_steps = int(hyperparameters.warmup_factor * step_hint)
    decay_steps = max(int((step_hint - warmup_steps) * hyperparameters.decay_steps_factor), 1)
    decay = optax.linear_schedule(peak, peak * hyperparameters.end_factor, decay_steps)
    return _after_warmup(peak, warmup_steps, decay)


def _after_warmup(peak: float, warmup_steps: int, decay: optax.Schedule) -> optax.Schedule:
    if warmup_steps == 0:
        return decay
    warmup = optax.linear_schedule(0.0, peak, warmup_steps)
    return optax.join_schedules([warmup, decay], [warmup_steps])
