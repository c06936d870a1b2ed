"""From evaluations to study and workload times."""

import math

import pandas as pd
import pytest

from timetrial.engine.facts import Metric
from timetrial.scoring.rules import Goal
from timetrial.scoring.time_to_target import first_crossing, median_times, study_times

INF, NAN = math.inf, math.nan
LOW = Goal(metric=Metric(name="loss", better="lower"), target=0.5)
HIGH = Goal(metric=Metric(name="accuracy", better="higher"), target=0.5)


@pytest.mark.parametrize(
    ("goal", "values", "row"),
    [
        (LOW, [0.9, 0.5, 0.1], 1),  # equality reaches
        (HIGH, [0.1, 0.5, 0.9], 1),
        (LOW, [0.9, 0.4, 0.9], 1),  # a later relapse does not matter
        (LOW, [NAN, 0.6, 0.50001], -1),
        (HIGH, [NAN, NAN, 0.7], 2),
        (HIGH, [-INF, INF], 1),
        (HIGH, [], -1),
    ],
)
def test_first_crossing(goal, values, row):
    seconds = [10.0 * (n + 1) for n in range(len(values))]
    crossing = first_crossing(seconds, values, goal)
    assert crossing == (row, seconds[row] if row >= 0 else INF)


def trials(*rows):
    """(study, evaluation number or -1, seconds[, counts])"""
    names = ["study", "row", "seconds", "counts"]
    table = pd.DataFrame([(*row, True)[:4] for row in rows], columns=names)
    return table.assign(submission="s", workload="w")


def test_modes_differ_where_the_earliest_evaluation_is_not_the_fastest():
    table = trials((0, 5, 90.0), (0, 2, 100.0), (0, -1, INF))
    assert study_times(table, "algoperf").tolist() == [100.0]
    assert study_times(table, "exact").tolist() == [90.0]


def test_a_tie_of_evaluation_numbers_goes_to_the_least_time_in_any_order():
    table = trials((0, 2, 100.0), (0, 2, 80.0), (0, 3, 10.0))
    assert study_times(table, "algoperf").tolist() == [80.0]
    assert study_times(table.iloc[::-1], "algoperf").tolist() == [80.0]


@pytest.mark.parametrize("mode", ["exact", "algoperf"])
def test_trials_that_do_not_count_are_absent_and_misses_are_infinite(mode):
    table = trials((0, -1, INF), (1, -1, INF, False), (2, 0, 4.0))
    assert study_times(table, mode).to_dict() == {("s", "w", 0): INF, ("s", "w", 2): 4.0}


@pytest.mark.parametrize(
    ("times", "median"),
    [([1.0, 2.0, INF], 2.0), ([1.0, INF, INF], INF), ([1.0, 2.0], 1.5), ([1.0, INF], INF), ([INF, INF], INF)],
)
def test_median_over_the_studies_present(times, median):
    index = pd.MultiIndex.from_product(
        [["s"], ["w"], range(len(times))], names=["submission", "workload", "study"]
    )
    assert median_times(pd.Series(times, index=index)).loc["s", "w"] == median
