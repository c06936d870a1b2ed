"""AlgoPerf's baseline: NAdamW under a warmed-up cosine, in torch."""

from timetrial.submissions.adapters_torch import submission_from
from timetrial.submissions.nadamw.nadamw_torch import NAdamW
from timetrial.submissions.nadamw.self_tuning import HYPERPARAMETERS
from timetrial.submissions.schedules import warmup_cosine

get_batch_size, init_optimizer_state, update_params, data_selection = submission_from(
    lambda parameters, h: NAdamW(
        parameters, lr=h.learning_rate, betas=(1.0 - h.one_minus_beta1, h.beta2), weight_decay=h.weight_decay
    ),
    schedule=warmup_cosine,
    self_tuning=HYPERPARAMETERS,
)
