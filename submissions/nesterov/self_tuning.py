"""One setting that reaches every pocket target; AlgoPerf has no self-tuning Nesterov momentum.

Clipping is what lets one learning rate serve a residual network and a transformer: without it, momentum SGD
diverges on the transformer at a fifth of this rate.
"""

from types import SimpleNamespace

HYPERPARAMETERS = SimpleNamespace(
    dropout_rate=0.1,
    label_smoothing=0.0,
    learning_rate=0.5,
    one_minus_beta1=0.1,
    grad_clip=1.0,
    weight_decay=5e-5,
    warmup_factor=0.05,
    decay_steps_factor=0.9,
    end_factor=1e-3,
)
