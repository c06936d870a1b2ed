"""SGD with Nesterov momentum under a warmed-up linear decay, in JAX."""

import optax

from timetrial.submissions.adapters_jax import submission_from
from timetrial.submissions.nesterov.self_tuning import HYPERPARAMETERS
from timetrial.submissions.schedules_jax import warmup_linear

get_batch_size, init_optimizer_state, update_params, data_selection = submission_from(
    lambda h, step_hint: optax.chain(
        optax.add_decayed_weights(h.weight_decay),  # added to the gradient, before the momentum
        optax.sgd(warmup_linear(h, step_hint), momentum=1.0 - h.one_minus_beta1, nesterov=True),
    ),
    self_tuning=HYPERPARAMETERS,
)
