"""The NAdamW baseline's values, which suit AdamW too: AlgoPerf has no self-tuning AdamW of its own."""

from timetrial.submissions.nadamw.self_tuning import HYPERPARAMETERS

__all__ = ["HYPERPARAMETERS"]
