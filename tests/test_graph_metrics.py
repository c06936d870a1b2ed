"""Mean average precision against scikit-learn's, and what it does where labels are missing."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from timetrial.workloads.metrics_graph import average_precision, mean_average_precision

NO_DATA = Path("no-folder")


def statistics(logits, targets, weights):
    logits, targets, weights = (np.asarray(rows, np.float32) for rows in (logits, targets, weights))
    correct = ((logits > 0) == (targets > 0)) * weights
    return {
        "loss": 6.0,
        "correct": float(correct.sum()),
        "count": float(weights.sum()),
        "logits": logits,
        "targets": targets * weights,
        "weights": weights,
    }


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.booleans())
def test_it_is_scikit_learns_with_ties_and_without(seed, count, tied):
    rng = np.random.default_rng(seed)
    scores = rng.integers(-3, 4, count).astype(np.float32) if tied else rng.normal(size=count)
    positive = rng.random(count) < 0.4
    positive[rng.integers(count)] = True
    assert average_precision(positive, scores) == pytest.approx(
        average_precision_score(positive, scores), rel=1e-12
    )


@given(st.integers(0, 2**32 - 1))
def test_it_is_the_mean_over_tasks_of_their_known_labels(seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(80, 7))
    targets = rng.random((80, 7)) < rng.random(7)
    weights = rng.random((80, 7)) < 0.3
    by_task = [
        average_precision_score(targets[known, task], logits[known, task])
        for task, known in enumerate(weights.T)
        if targets[known, task].any()
    ]
    metrics = mean_average_precision(statistics(logits, targets, weights), NO_DATA)
    assert metrics["mean_average_precision"] == pytest.approx(np.mean(by_task), rel=1e-6)
    assert metrics["loss"] == pytest.approx(6 / weights.sum())
    assert metrics["accuracy"] == pytest.approx(np.mean(((logits > 0) == targets)[weights]))


def test_by_hand():
    """Ranked 1 0 1: precisions 1 and 2/3, each adds half of the recall."""
    assert average_precision(np.array([True, False, True]), np.array([3.0, 2.0, 1.0])) == pytest.approx(5 / 6)
    assert average_precision(np.array([True, False, True]), np.array([1.0, 1.0, 1.0])) == pytest.approx(2 / 3)


def test_unknown_labels_and_padding_change_nothing():
    logits, targets = [[3.0], [2.0], [1.0]], [[1], [0], [1]]
    exact = mean_average_precision(statistics(logits, targets, [[1], [1], [1]]), NO_DATA)
    more = statistics([*logits, [9.0], [-9.0]], [*targets, [0], [0]], [[1], [1], [1], [0], [0]])
    assert mean_average_precision(more, NO_DATA) == exact


def test_which_tasks_count():
    """No known 1: none; no known 0: the task counts, and its precision is 1, as in AlgoPerf."""
    logits = [[1.0, 1.0, 2.0], [2.0, 2.0, 1.0], [0.0, 3.0, 0.0]]
    targets = [[0, 1, 1], [0, 1, 0], [0, 1, 0]]
    weights = [[1, 0, 1], [1, 1, 1], [1, 0, 1]]
    metrics = mean_average_precision(statistics(logits, targets, weights), NO_DATA)
    assert metrics["mean_average_precision"] == 1.0
    targets[2][2] = 1  # ranked 1 0 1
    metrics = mean_average_precision(statistics(logits, targets, weights), NO_DATA)
    assert metrics["mean_average_precision"] == pytest.approx((1 + 5 / 6) / 2)


def test_no_task_and_no_number_are_nan():
    metrics = mean_average_precision(statistics([[1.0], [2.0]], [[0], [0]], [[1], [1]]), NO_DATA)
    assert math.isnan(metrics["mean_average_precision"]) and metrics["loss"] == 3.0
    for value in (math.nan, math.inf):
        broken = statistics([[value], [2.0]], [[1], [0]], [[1], [1]])
        assert math.isnan(mean_average_precision(broken, NO_DATA)["mean_average_precision"])
