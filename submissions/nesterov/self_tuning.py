"""Values near the middle of the search space; AlgoPerf has no self-tuning Nesterov momentum."""

from types import SimpleNamespace

HYPERPARAMETERS = SimpleNamespace(
    dropout_rate=0.1,
    label_smoothing=0.0,
    learning_rate=0.1,
    one_minus_beta1=0.1,
    weight_decay=5e-5,
    warmup_factor=0.05,
    decay_steps_factor=0.9,
    end_factor=1e-3,
)
