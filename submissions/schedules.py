"""Learning rates as functions of the step, those of AlgoPerf's baselines; in optax: `schedules_jax.py`.

Both rise linearly from 0 at step 0 to `learning_rate` after `warmup_factor` of the step hint. Neither rises
again after the step hint.
"""

import math
from collections.abc import Callable
from typing import Any


def warmup_cosine(hyperparameters: Any, step_hint: int) -> Callable[[int], float]:
    """Half a cosine down to 0 at the step hint.

    Reads `learning_rate` and `warmup_factor`.
    """
    peak = hyperparameters.learning_rate
    warmup_steps = int(hyperparameters.warmup_factor * step_hint)
    decay_steps = max(step_hint - warmup_steps, 1)

    def learning_rate(step: int) -> float:
        if step < warmup_steps:
            return float(peak * step / warmup_steps)
        progress = min((step - warmup_steps) / decay_steps, 1.0)
        return float(peak * 0.5 * (1.0 + math.cos(math.pi * progress)))

    return learning_rate


def warmup_linear(hyperparameters: Any, step_hint: int) -> Callable[[int], float]:
    """A line to `end_factor` of the peak, over `decay_steps_factor` of the steps left after the warm-up.

    Reads `learning_rate`, `warmup_factor`, `decay_steps_factor` and `end_factor`.
    """
    peak, end_factor = hyperparameters.learning_rate, hyperparameters.end_factor
    warmup_steps = int(hyperparameters.warmup_factor * step_hint)
    decay_steps = max(int((step_hint - warmup_steps) * hyperparameters.decay_steps_factor), 1)

    def learning_rate(step: int) -> float:
        if step < warmup_steps:
            return float(peak * step / warmup_steps)
        progress = min((step - warmup_steps) / decay_steps, 1.0)
        return float(peak * (1.0 + progress * (end_factor - 1.0)))

    return learning_rate
