"""What scores hang on, where the modes differ, and the other scores, on fields small enough to count by hand."""

import math

import pytest
from field_maker import field_of, field_of_times, trial
from trial_writer import write_trial

from timetrial.engine.errors import UsageError
from timetrial.scoring.anytime import best_so_far, targets_by_budget
from timetrial.scoring.field import read_field
from timetrial.scoring.leaderboard import score_field
from timetrial.scoring.mode_differences import mode_differences
from timetrial.scoring.other_scores import (
    penalised_times,
    speedup_reference,
    speedups,
    steps_to_target,
    study_counts,
)
from timetrial.scoring.rules import POCKET
from timetrial.scoring.sensitivity import (
    leave_one_submission_out,
    leave_one_workload_out,
    reversals,
    tau_sensitivity,
)

INF = math.inf

# a and b share the workloads; c is the best of one of them alone.
FIELD = {
    "a": {"u": [10.0], "v": [10.0], "w": [30.0]},
    "b": {"u": [20.0], "v": [20.0], "w": [20.0]},
    "c": {"u": [INF], "v": [INF], "w": [5.0]},
}


@pytest.fixture
def board():
    return score_field(field_of_times(FIELD), "exact")


def test_leaving_a_workload_out(board):
    table = leave_one_workload_out(board)
    assert table.loc["a"].to_dict() == pytest.approx({"u": 0.5, "v": 0.5, "w": 1.0})
    assert table.loc["c"].to_dict() == pytest.approx({"u": 0.5, "v": 0.5, "w": 0.0})


def test_leaving_a_submission_out_and_the_reversal_it_brings(board):
    table = leave_one_submission_out(board)
    assert table.at["a", "c"] == pytest.approx((1 + 1 + (4 - 1.5) / 3) / 3)
    assert math.isnan(table.at["c", "c"])
    assert board.scores["score"].to_dict() == pytest.approx({"a": 2 / 3, "b": 4 / 9, "c": 1 / 3})
    assert reversals(table, board.scores["score"]).to_dict() == {"a": "", "b": "", "c": ""}
    assert reversals(leave_one_workload_out(board), board.scores["score"])["u"] == "c over b"


def test_another_upper_end_of_the_profile(board):
    table = tau_sensitivity(board, (2.0, 7.0))
    assert list(table.columns) == [2.0, 4.0, 7.0]
    assert table[4.0].to_dict() == pytest.approx(board.scores["score"].to_dict())
    assert table.at["a", 7.0] == pytest.approx((2 + 1 / 6) / 3)
    assert table.at["b", 2.0] == 0.0


def test_a_field_of_one_has_nothing_to_leave_out():
    board = score_field(field_of_times({"a": {"w": [1.0]}}), "exact")
    assert leave_one_workload_out(board).empty
    assert leave_one_submission_out(board).isna().all().all()


def test_differences_between_the_modes_are_explained():
    rows = [
        trial("a", "w", 0, 1, seconds=100.0, row=2),
        trial("a", "w", 0, 2, seconds=90.0, row=5),
        trial("a", "v", 0, 1, seconds=5.0),
        trial("a", "v", 1, 1, seconds=7.0),
        trial("a", "w", 1, 1, seconds=90.0),
        trial("b", "w", 0, 1, seconds=50.0, budget=50.0),
        trial("b", "v", 0, 1, seconds=50.0),
        trial("c", "w", 0, 1, seconds=60.0),
        trial("c", "w", 1, 1, evaluations=0),
    ]
    scores, cells = mode_differences(score_field(field_of(rows), "algoperf"))
    found = {(row["submission"], row["workload"]): row for row in cells.to_dict("records")}
    assert set(found) == {("a", "w"), ("b", "w"), ("c", "w")}
    assert (found["a", "w"]["algoperf"], found["a", "w"]["exact"]) == (95.0, 90.0)
    assert "trial 2 (90.0 s, evaluation 6) is faster than trial 1 (100.0 s" in found["a", "w"]["why"]
    assert found["b", "w"]["exact"] == INF and "used up its budget" in found["b", "w"]["why"]
    assert found["c", "w"]["why"] == "study 1 is missing, which counts as a miss"
    assert list(scores.columns) == ["algoperf", "exact", "rank_algoperf", "rank_exact"]


def budgeted(times, budget=100.0):
    rows = [
        trial(name, workload, study, seconds=seconds, budget=budget)
        for name, cells in times.items()
        for workload, studies in cells.items()
        for study, seconds in enumerate(studies)
    ]
    return score_field(field_of(rows), "exact")


def test_speedups_are_reference_over_own_time():
    table = speedups(budgeted(FIELD), "b")
    assert table.loc["a"].to_dict() == pytest.approx(
        {"u": 2.0, "v": 2.0, "w": 2 / 3, "geometric_mean": (8 / 3) ** (1 / 3)}
    )
    assert table.at["c", "u"] == pytest.approx(20 / 100)  # a miss counts as the budget
    both_missed = speedups(budgeted({"a": {"w": [INF], "v": [1.0]}, "b": {"w": [INF], "v": [2.0]}}), "b")
    assert math.isnan(both_missed.at["a", "w"])
    assert both_missed.at["a", "geometric_mean"] == pytest.approx(2.0)


def test_the_reference_of_speedups():
    assert speedup_reference(budgeted(FIELD)) == "b"
    assert speedup_reference(budgeted(FIELD | {"baseline": {"u": [INF]}})) == "baseline"
    with pytest.raises(UsageError, match="no submission 'nobody'"):
        speedups(budgeted(FIELD), "nobody")


def test_penalised_times_are_shares_of_the_budget():
    table = penalised_times(budgeted(FIELD), k=10)
    assert table.loc["a"].to_dict() == pytest.approx({"u": 0.1, "v": 0.1, "w": 0.3, "mean": 0.5 / 3})
    assert table.at["c", "mean"] == pytest.approx((10 + 10 + 0.05) / 3)
    unknown = penalised_times(budgeted({"a": {"w": [5.0]}}, budget=math.nan))
    assert unknown.isna().all().all()


def test_steps_to_target_can_order_otherwise_than_seconds():
    rows = [
        trial("slow steps", "w", seconds=20.0, step=100.0),
        trial("fast steps", "w", seconds=10.0, step=250.0),
    ]
    board = score_field(field_of(rows), "exact")
    scores, steps = steps_to_target(board)
    assert scores["rank"].to_dict() == {"slow steps": 1, "fast steps": 2}
    assert scores["score"].to_dict() == pytest.approx({"slow steps": 1.0, "fast steps": 0.5})
    assert steps["w"].to_dict() == {"slow steps": 100.0, "fast steps": 250.0}
    assert board.scores["rank"].to_dict() == {"fast steps": 1, "slow steps": 2}


def test_without_steps_in_the_logs_there_is_no_score_of_steps():
    board = score_field(field_of([trial("a", "w", seconds=20.0, step=math.nan)]), "exact")
    assert steps_to_target(board)[0].empty


def test_share_of_targets_by_share_of_the_budget():
    board = budgeted({"a": {"u": [10.0, 40.0], "v": [INF, INF]}, "b": {"u": [95.0, INF]}})
    curves = targets_by_budget(board, points=11)
    assert curves["a"].round(6).tolist() == [0.0] + [0.25] * 3 + [0.5] * 7
    assert curves["b"].tolist() == [0.0] * 10 + [0.25]


def test_best_so_far_is_the_median_over_studies_of_the_best_trial(tmp_path):
    goal = (0.9, "higher")
    for study, trial_number, curve in [
        (0, 1, [(1.0, 0.1), (2.0, 0.5), (4.0, 0.3)]),
        (0, 2, [(1.0, 0.2), (3.0, 0.4)]),
        (1, 1, [(2.0, 0.1), (4.0, 0.7)]),
    ]:
        write_trial(
            tmp_path, workload="w", study=study, trial=trial_number, metric="accuracy", curve=curve, goal=goal
        )
    curve = best_so_far(score_field(read_field([tmp_path])), "w", points=5)["adamw"]
    assert math.isnan(curve[0.0]) and math.isnan(curve[1.0])  # the second study is not evaluated yet
    assert curve.loc[2.0:].round(6).tolist() == [0.3, 0.3, 0.6]


def test_how_many_studies_reached():
    board = score_field(field_of_times({"a": {"w": [1.0, INF, 2.0]}, "b": {"v": [INF]}}), "algoperf")
    assert study_counts(board).loc["a", "w"] == "2/3"
    assert study_counts(board).loc["a", "v"] == "-"
    assert board.rules is POCKET
