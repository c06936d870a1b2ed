"""Metrics of graphs with many binary tasks, some of them unlabelled, from the statistics of a split."""

import math
from pathlib import Path

import numpy as np

from timetrial.engine.facts import Statistics


def mean_average_precision(statistics: Statistics, data: Path) -> dict[str, float]:
    """`mean_average_precision` over the tasks, `loss` (nats) and `accuracy`, means over all known labels.

    From `loss`, `correct`, `count` and the rows `logits`, `targets` and `weights`. A task counts if a known label is
    1, even if none is 0, which makes its precision 1: AlgoPerf asks for a 0 too, but takes unknown labels for 0. Tasks
    are ranked by logits; probabilities have the same order until float32 rounds them to 1. Without any such task, or
    where a logit is not finite, the metric is NaN.
    """
    del data
    known = statistics["weights"] > 0
    tasks = [
        average_precision(targets[which] > 0, logits[which])
        for targets, logits, which in zip(
            statistics["targets"].T, statistics["logits"].T, known.T, strict=True
        )
        if (targets[which] > 0).any()
    ]
    count = statistics["count"]
    return {
        "mean_average_precision": float(np.mean(tasks)) if tasks else math.nan,
        "loss": statistics["loss"] / count,
        "accuracy": statistics["correct"] / count,
    }


def average_precision(positive: np.ndarray, scores: np.ndarray) -> float:
    """The sum over thresholds of precision times the recall that it adds; NaN where a score is not finite.

    positive: (examples,) bool with at least one True; scores: (examples,), of which equal ones share a threshold.
    """
    if not np.isfinite(scores).all():
        return math.nan
    order = np.argsort(-scores)
    ranked = scores[order]
    found = np.cumsum(positive[order])
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # of each threshold's examples
    hits = found[last]
    return float(np.sum(np.diff(hits, prepend=0) * hits / (last + 1)) / found[-1])
