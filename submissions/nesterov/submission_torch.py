"""SGD with Nesterov momentum under a warmed-up linear decay, in torch."""

import torch

from timetrial.submissions.adapters_torch import submission_from
from timetrial.submissions.nesterov.self_tuning import HYPERPARAMETERS
from timetrial.submissions.schedules import warmup_linear

get_batch_size, init_optimizer_state, update_params, data_selection = submission_from(
    lambda parameters, h: torch.optim.SGD(
        parameters,
        lr=h.learning_rate,
        momentum=1.0 - h.one_minus_beta1,
        nesterov=True,
        weight_decay=h.weight_decay,  # added to the gradient, before the momentum
        fused=True,
    ),
    schedule=warmup_linear,
    self_tuning=HYPERPARAMETERS,
)
