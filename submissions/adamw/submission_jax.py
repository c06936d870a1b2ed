"""AdamW under a warmed-up cosine, in JAX."""

import optax

from timetrial.submissions.adamw.self_tuning import HYPERPARAMETERS
from timetrial.submissions.adapters_jax import submission_from
from timetrial.submissions.schedules_jax import warmup_cosine

get_batch_size, init_optimizer_state, update_params, data_selection = submission_from(
    lambda h, step_hint: optax.adamw(
        warmup_cosine(h, step_hint),
        b1=1.0 - h.one_minus_beta1,
        b2=h.beta2,
        weight_decay=h.weight_decay,
    ),
    self_tuning=HYPERPARAMETERS,
)
