"""AlgoPerf's self-tuning NAdamW baseline: point 5 of its external list, without label smoothing."""

from types import SimpleNamespace

HYPERPARAMETERS = SimpleNamespace(
    dropout_rate=0.1,
    label_smoothing=0.0,
    learning_rate=0.0017486387539278373,
    one_minus_beta1=0.06733926164,
    beta2=0.9955159689799007,
    weight_decay=0.08121616522670176,
    warmup_factor=0.02,
)
