"""From trials to study and workload times, in both modes."""

import math
from dataclasses import replace

import numpy as np
import pytest
from field_maker import field_of, trial

from timetrial.engine.facts import Metric
from timetrial.scoring.evaluations import Evaluations
from timetrial.scoring.log_tree import TrialFolder
from timetrial.scoring.rules import POCKET, V06, Goal
from timetrial.scoring.time_to_target import study_times, workload_times
from timetrial.scoring.trial_log import MetaData, TrialLog
from timetrial.scoring.trial_row import trial_row

INF, NAN = math.inf, math.nan
LOW = Goal(metric=Metric(name="loss", better="lower"), target=0.5)
HIGH = Goal(metric=Metric(name="accuracy", better="higher"), target=0.5)
FOLDER = TrialFolder(path="t/trial_1", submission="s", study=0, workload="w", framework="jax", trial=1)


def row(values, goal=LOW, **log):
    count = len(values)
    evaluations = Evaluations(
        seconds=10.0 * np.arange(1, count + 1),
        values=np.array(values, dtype=float),
        steps=100.0 * np.arange(1, count + 1),
    )
    return trial_row(TrialLog(folder=FOLDER, evaluations=evaluations, **log), goal, POCKET)


@pytest.mark.parametrize(
    ("goal", "values", "at"),
    [
        (LOW, [0.9, 0.5, 0.1], 1),  # equality reaches
        (HIGH, [0.1, 0.5, 0.9], 1),
        (LOW, [0.9, 0.4, 0.9], 1),  # a later relapse does not matter
        (LOW, [NAN, 0.6, 0.50001], -1),
        (HIGH, [NAN, NAN, 0.7], 2),
        (HIGH, [0.7, NAN], 0),
        (HIGH, [-INF, INF], 1),
        (HIGH, [], -1),
    ],
)
def test_where_the_target_is_first_reached(goal, values, at):
    result = row(values, goal)
    assert result.row == at
    expected = (10.0 * (at + 1), 10.0 * at, 100.0 * (at + 1)) if at >= 0 else (INF, INF, INF)
    assert (result.seconds, result.before, result.step) == expected


def test_the_best_value_and_the_pace():
    result = row([0.9, NAN, 0.2, 0.7])
    assert (result.best, result.step_seconds, result.gap, result.end_seconds) == (0.2, 0.1, 10.0, 40.0)
    assert math.isnan(row([]).best)
    assert math.isnan(row([0.9]).step_seconds)


def test_limits_are_the_runs_own_or_the_rules_and_longer_for_self_tuning():
    def limits(folder, meta):
        log = TrialLog(folder=folder, evaluations=Evaluations(), meta=meta)
        found = trial_row(log, HIGH, V06)
        return found.tuning, found.budget, found.step_hint, found.eval_period

    first = TrialFolder(path="t", submission="s", study=0, workload="ogbg", framework="jax", trial=1)
    second = replace(first, workload="ogbg_gelu", tuning="external")
    assert limits(second, MetaData()) == ("external", 12_011.0, 52_000.0, 240.0)
    assert limits(first, MetaData()) == ("self", 1.5 * 12_011, 1.5 * 52_000, 240.0)
    assert limits(second, MetaData(budget=100, step_hint=7)) == ("external", 100.0, 7.0, 240.0)


def studies(*trials, mode="algoperf", rules=POCKET):
    """Seconds by study of trials given as (study, evaluation, seconds[, more])."""
    rows = []
    for number, (study, at, seconds, *more) in enumerate(trials, start=1):
        values = {"row": at, **(more[0] if more else {})}
        rows.append(trial("s", "w", study, number, seconds, **values))
    return study_times(field_of(rows).trials, mode, rules)


def test_modes_differ_where_the_earliest_evaluation_is_not_the_fastest():
    table = [(0, 5, 90.0), (0, 2, 100.0), (0, -1, INF)]
    assert studies(*table)["seconds"].tolist() == [100.0]
    assert studies(*table, mode="exact")["seconds"].tolist() == [90.0]


def test_a_tie_of_evaluation_numbers_goes_to_the_least_time_in_any_order():
    table = [(0, 2, 100.0), (0, 2, 80.0), (0, 3, 10.0)]
    assert studies(*table)["seconds"].tolist() == [80.0]
    assert studies(*table[::-1])["seconds"].tolist() == [80.0]


def test_exact_takes_the_fewest_steps_and_the_earliest_time_that_is_not_ruled_out():
    table = [(0, 3, 100.0, {"step": 50.0, "before": 20.0}), (0, 3, 90.0, {"step": 60.0, "before": 80.0})]
    exact = studies(*table, mode="exact").iloc[0]
    assert exact.to_dict() == {"seconds": 90.0, "before": 20.0, "step": 50.0, "number": 1}
    assert studies(*table).iloc[0].to_dict() == {"seconds": 90.0, "before": 80.0, "step": 60.0, "number": 1}


def test_studies_without_an_evaluation_are_absent_in_algoperf_mode_and_misses_in_exact_mode():
    table = [(0, -1, INF), (1, -1, INF, {"evaluations": 0}), (2, 0, 4.0)]
    assert studies(*table)["seconds"].droplevel([0, 1]).to_dict() == {0: INF, 2: 4.0}
    exact = studies(*table, mode="exact")
    assert exact["seconds"].droplevel([0, 1]).to_dict() == {0: INF, 1: INF, 2: 4.0}
    assert exact["number"].droplevel([0, 1]).to_dict() == {0: 0, 1: -1, 2: 2}


def test_a_study_that_is_not_there_is_a_miss_where_the_rules_or_other_workloads_ask_for_it():
    two = [trial("s", "v", study, seconds=1.0) for study in (0, 1)]
    one = [trial("s", "w", 0, seconds=1.0), trial("t", "w", 0, seconds=1.0)]
    trials = field_of(two + one).trials

    def times(rules, mode="exact"):
        return study_times(trials, mode, rules)["seconds"].groupby(level=[0, 1]).agg(list).to_dict()

    assert times(POCKET) == {("s", "v"): [1.0, 1.0], ("s", "w"): [1.0, INF], ("t", "w"): [1.0]}
    assert times(V06) == {
        ("s", "v"): [1.0, 1.0, INF],
        ("s", "w"): [1.0, INF, INF],
        ("t", "w"): [1.0, INF, INF],
    }
    assert times(V06, "algoperf") == {("s", "v"): [1.0, 1.0], ("s", "w"): [1.0], ("t", "w"): [1.0]}


@pytest.mark.parametrize("mode", ["exact", "algoperf"])
def test_a_void_trial_has_no_time(mode):
    table = [(0, 1, 5.0, {"status": "void"}), (0, 2, 7.0)]
    assert studies(*table, mode=mode)["seconds"].tolist() == [7.0]


def test_only_exact_mode_asks_whether_the_budget_was_used_up():
    table = [(0, 1, 50.0, {"budget": 50.0}), (1, 1, 49.0, {"budget": 50.0})]
    assert studies(*table)["seconds"].tolist() == [50.0, 49.0]
    assert studies(*table, mode="exact")["seconds"].tolist() == [INF, 49.0]


@pytest.mark.parametrize(
    ("times", "median"),
    [([1.0, 2.0, INF], 2.0), ([1.0, INF, INF], INF), ([1.0, 2.0], 1.5), ([1.0, INF], INF), ([INF, INF], INF)],
)
def test_median_over_the_studies_present(times, median):
    table = [
        (study, 1, seconds) if seconds < INF else (study, -1, INF) for study, seconds in enumerate(times)
    ]
    assert workload_times(studies(*table)).loc["s", "w"] == median
