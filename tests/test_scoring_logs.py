"""Scoring of hand-made log trees: what AlgoPerf's scorer tolerates, and what it trips over."""

import math
import random

import pandas as pd
import pytest
from trial_writer import NAN, write_pocket_run, write_trial

from timetrial.engine.errors import UsageError
from timetrial.engine.outcome import Status
from timetrial.engine.records import LedgerEntry, append_ledger
from timetrial.scoring.leaderboard import NO_EVALUATIONS, NOT_RUN, TOO_LATE, UNFINISHED, score_directories

INF = math.inf
HIT = [(10.0, 1.0), (20.0, 31.0)]
MISS = [(10.0, 1.0), (20.0, 2.0)]


def messages(board):
    return " | ".join(problem.message for problem in board.problems)


def test_pocket_runs_tell_their_own_goals(tmp_path):
    write_pocket_run(tmp_path)
    board = score_directories([tmp_path])
    assert board.rules.name == "pocket"
    assert board.times.to_dict("index") == {
        "adamw": {"digits": 10.5, "forest": 10.5},
        "nesterov": {"digits": 20.5, "forest": 20.5},
    }
    assert board.scores["score"].to_dict() == pytest.approx({"adamw": 1.0, "nesterov": (4 - 20.5 / 10.5) / 3})
    assert board.scores[["rank", "reached", "trials"]].to_numpy().tolist() == [[1, 4, 4], [2, 4, 4]]
    assert board.problems == []


def test_results_do_not_depend_on_the_order_of_the_paths(tmp_path):
    write_pocket_run(tmp_path, submissions=("a", "b", "c"))
    boards = []
    for seed in range(3):
        paths = [tmp_path / name for name in "abc"]
        random.Random(seed).shuffle(paths)
        boards.append(score_directories(paths))
    for board in boards[1:]:
        pd.testing.assert_frame_equal(board.scores, boards[0].scores)
        pd.testing.assert_frame_equal(board.trials, boards[0].trials)


def test_strays_are_passed_over_and_levels_above_are_found(tmp_path):
    write_trial(tmp_path / "external_tuning", curve=HIT)
    study = tmp_path / "external_tuning/adamw/study_0"
    (study / "trial_1").mkdir()
    (study / "wmt_jax/notes").mkdir()
    (study / "wmt_tensorflow/trial_1").mkdir(parents=True)
    (tmp_path / "external_tuning/README.md").write_text("not a folder")
    board = score_directories([tmp_path], "v0.6")
    assert len(board.trials) == 1
    assert board.times.loc["adamw", "wmt"] == 20.0


def test_a_prefix_is_another_submission_and_a_time_stamp_is_not(tmp_path):
    write_trial(tmp_path, "sinv6", curve=HIT)
    write_trial(tmp_path, "sinv6_75", curve=MISS)
    write_trial(tmp_path, "sinv6-2024-03-01-10-11-12", study=1, curve=[(30.0, 31.0)])
    board = score_directories([tmp_path], "v0.6")
    assert board.times["wmt"].to_dict() == {"sinv6": 25.0, "sinv6_75": INF}


def test_a_trial_in_two_folders_counts_once_and_is_reported(tmp_path):
    write_trial(tmp_path, "adamw", curve=HIT)
    write_trial(tmp_path, "adamw-2024-03-01-10-11-12", curve=[(1.0, 31.0)])
    board = score_directories([tmp_path], "v0.6")
    assert board.times.loc["adamw", "wmt"] == 20.0
    assert "the same trial as" in messages(board)


def test_a_submission_in_two_frameworks_is_two_entries(tmp_path):
    write_trial(tmp_path, curve=HIT)
    write_trial(tmp_path, framework="torch", curve=[(5.0, 31.0)])
    board = score_directories([tmp_path], "v0.6")
    assert board.times["wmt"].to_dict() == {"adamw (pytorch)": 5.0, "adamw (jax)": 20.0}


def test_trials_without_evaluations_are_left_out_and_an_empty_study_is_absent(tmp_path):
    write_trial(tmp_path, study=0, trial=1, curve=None)
    write_trial(tmp_path, study=0, trial=2, curve=HIT)
    write_trial(tmp_path, study=1, curve=None)
    write_trial(tmp_path, workload="ogbg", curve=None)
    board = score_directories([tmp_path], "v0.6", "algoperf")
    assert board.times.loc["adamw", "wmt"] == 20.0
    assert math.isnan(board.times.loc["adamw", "ogbg"])
    assert board.reasons.loc["adamw", ["ogbg", "fastmri"]].tolist() == [NO_EVALUATIONS, NOT_RUN]
    assert "fewer than 3 studies, so medians are over those present: wmt (1)" in messages(board)


def test_a_group_in_which_nothing_was_evaluated_scores_zero(tmp_path):
    write_trial(tmp_path, curve=None)
    for mode in ("exact", "algoperf"):
        board = score_directories([tmp_path], "v0.6", mode)
        assert board.scores["score"].to_dict() == {"adamw": 0.0}


def test_our_crashed_trial_is_a_miss_although_it_was_never_evaluated(tmp_path):
    crash = {"status": Status.CRASHED, "reason": "out of memory"}
    write_trial(tmp_path, study=0, curve=HIT, record={})
    for study in (1, 2):
        write_trial(tmp_path, study=study, curve=None, record=crash)
    board = score_directories([tmp_path], "v0.6")
    assert board.times.loc["adamw", "wmt"] == INF
    assert board.reasons.loc["adamw", "wmt"] == "crashed"
    assert board.trials["reason"].tolist()[1] == "out of memory"
    assert score_directories([tmp_path], "v0.6", "algoperf").times.loc["adamw", "wmt"] == 20.0


@pytest.mark.parametrize("mode", ["exact", "algoperf"])
def test_a_void_trial_has_no_time(tmp_path, mode):
    write_trial(tmp_path, curve=HIT, record={"status": Status.VOID, "reason": "tensors of another model"})
    board = score_directories([tmp_path], "v0.6", mode)
    assert board.times.loc["adamw", "wmt"] == INF
    assert board.reasons.loc["adamw", "wmt"] == "void"


def test_a_target_reached_when_the_budget_is_used_up_is_missed(tmp_path):
    write_trial(tmp_path, curve=HIT, record={"budget_sec": 20.0})
    board = score_directories([tmp_path], "v0.6")
    assert board.times.loc["adamw", "wmt"] == INF
    assert board.trials[["status", "reason"]].to_numpy().tolist() == [["budget", TOO_LATE]]


def test_nan_is_a_miss_and_a_missing_column_is_not_inherited(tmp_path):
    write_trial(tmp_path, trial=1, curve=HIT)
    write_trial(tmp_path, trial=2, curve=[(1.0, NAN)])
    write_trial(tmp_path, trial=3, curve=[(1.0, 99.0)], metric="accuracy")
    board = score_directories([tmp_path], "v0.6")
    assert board.trials["seconds"].tolist() == [20.0, INF, INF]
    assert "has no column validation/bleu" in messages(board)


def test_a_torn_line_and_a_damaged_line_are_left_out_and_reported(tmp_path):
    path = write_trial(tmp_path, curve=HIT).evaluations
    with path.open("a") as file:
        file.write("5.0,3,nonsense,31.0\n1.0,4,1.0,3")
    board = score_directories([tmp_path], "v0.6")
    assert board.times.loc["adamw", "wmt"] == 20.0
    assert board.trials["evaluations"].tolist() == [2]
    assert "the last line is torn" in messages(board)
    assert "line 4 is damaged" in messages(board)


def test_damaged_files_never_stop_the_scoring(tmp_path):
    write_pocket_run(tmp_path)
    trial = tmp_path / "adamw/study_0/digits_jax/trial_1"
    (trial / "trial.json").write_text("{")
    (trial / "meta_data_0.json").write_text("[]")
    (tmp_path / "adamw/study_1/digits_jax/trial_1/eval_measurements.csv").write_bytes(b"\xff\x00,\n\n,,\n")
    board = score_directories([tmp_path])
    assert len(board.problems) == 3
    assert board.times.loc["nesterov", "digits"] == 20.5


def test_accounts_that_do_not_add_up_are_reported(tmp_path):
    write_trial(tmp_path, curve=HIT, record={"accounts": {"setup": 5}, "wall_ns": 6})
    assert "add up to 5 ns but the trial took 6 ns" in messages(score_directories([tmp_path], "v0.6"))


def test_a_trial_cut_off_is_known_by_its_ledger(tmp_path):
    directory = write_trial(tmp_path, curve=MISS)
    spans = [("setup", 0), ("submission", 5), ("evaluation", 25)]
    append_ledger(directory.ledger, [LedgerEntry(t=t, account=account) for account, t in spans])
    board = score_directories([tmp_path], "v0.6")
    assert board.trials["status"].tolist() == [UNFINISHED]
    assert board.ledger.loc[0, ["setup", "other", "evaluation"]].tolist() == [5, 20, 0]


def test_runs_with_other_targets_are_not_mixed(tmp_path):
    write_trial(tmp_path, "a", workload="digits", curve=HIT, goal=(30.0, "higher"))
    write_trial(tmp_path, "b", workload="digits", curve=HIT, goal=(31.0, "higher"))
    with pytest.raises(UsageError, match="one version of a workload"):
        score_directories([tmp_path])


def test_nothing_to_score_is_one_sentence(tmp_path):
    with pytest.raises(UsageError, match="no trial below"):
        score_directories([tmp_path])
    with pytest.raises(UsageError, match="is not a folder"):
        score_directories([tmp_path / "nowhere"])
    write_trial(tmp_path, workload="wmt", curve=HIT)
    with pytest.raises(UsageError, match="no trial can be scored by the pocket rules"):
        score_directories([tmp_path], "pocket")


@pytest.mark.parametrize(
    ("trials", "rules"),
    [
        ([{"workload": "wmt"}], "v0.6"),
        ([{"workload": "wmt"}, {"workload": "wmt", "study": 3}], "v0.5"),
        ([{"workload": "wmt"}, {"workload": "ogbg_model_size"}], "v0.5"),
        ([{"workload": "digits", "goal": (30.0, "higher")}], "pocket"),
    ],
)
def test_the_ruleset_is_found_out(tmp_path, trials, rules):
    for trial in trials:
        write_trial(tmp_path, curve=HIT, **trial)
    assert score_directories([tmp_path]).rules.name == rules
