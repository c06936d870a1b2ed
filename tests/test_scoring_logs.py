"""Scoring of hand-made log trees: what AlgoPerf's scorer tolerates, and what it trips over (its edge cases)."""

import json
import math
import random

import pandas as pd
import pytest
from trial_writer import NAN, write_pocket_run, write_trial

from timetrial.engine.errors import UsageError
from timetrial.engine.outcome import Status
from timetrial.engine.records import LedgerEntry, append_ledger
from timetrial.scoring import field_reader
from timetrial.scoring.field import read_field
from timetrial.scoring.leaderboard import NOT_RUN, TOO_LATE, default_mode, score_field
from timetrial.scoring.problems import Kind
from timetrial.scoring.trial_row import NO_EVALUATIONS, UNFINISHED

INF = math.inf
HIT = [(10.0, 1.0), (20.0, 31.0)]
MISS = [(10.0, 1.0), (20.0, 2.0)]


def score(*paths, rules="v0.6", mode="algoperf"):
    return score_field(read_field(paths, rules), mode)


def kinds(board):
    return {problem.kind for problem in board.problems}


def test_pocket_runs_tell_their_own_goals(tmp_path):
    write_pocket_run(tmp_path)
    board = score(tmp_path, rules=None, mode=None)
    assert board.rules.name == "pocket"
    assert board.times.to_dict("index") == {
        "adamw": {"digits": 10.5, "forest": 10.5},
        "nesterov": {"digits": 20.5, "forest": 20.5},
    }
    assert board.scores["score"].to_dict() == pytest.approx({"adamw": 1.0, "nesterov": (4 - 20.5 / 10.5) / 3})
    assert board.scores[["rank", "reached", "trials"]].to_numpy().tolist() == [[1, 4, 4], [2, 4, 4]]
    assert board.problems == ()


def test_our_runs_are_scored_exactly_and_algoperfs_logs_as_published(tmp_path):
    write_pocket_run(tmp_path / "ours")
    write_trial(tmp_path / "theirs", curve=HIT)
    assert default_mode(read_field([tmp_path / "ours"])) == "exact"
    assert default_mode(read_field([tmp_path / "theirs"])) == "algoperf"


def test_results_do_not_depend_on_the_order_of_the_paths(tmp_path):
    write_pocket_run(tmp_path, submissions=("a", "b", "c"))
    boards = []
    for seed in range(3):
        paths = [tmp_path / name for name in "abc"]
        random.Random(seed).shuffle(paths)
        boards.append(score(*paths, rules=None, mode=None))
    for board in boards[1:]:
        pd.testing.assert_frame_equal(board.scores, boards[0].scores)
        pd.testing.assert_frame_equal(board.trials, boards[0].trials)


def test_strays_are_reported_and_levels_above_are_found(tmp_path):
    write_trial(tmp_path / "external_tuning", curve=HIT)
    study = tmp_path / "external_tuning/adamw/study_0"
    (study / "trial_1").mkdir()
    (study / "wmt_jax/notes").mkdir()
    (study / "wmt_tensorflow/trial_1").mkdir(parents=True)
    (tmp_path / "external_tuning/README.md").write_text("not a folder")
    board = score(tmp_path)
    assert len(board.trials) == 1
    assert board.times.loc["adamw", "wmt"] == 20.0
    found = {(problem.kind, problem.file.split("/")[-1]) for problem in board.field.problems}
    assert found == {
        (Kind.STRAY, "study_0"),
        (Kind.STRAY, "wmt_jax"),
        (Kind.FRAMEWORK, "wmt_tensorflow"),
    }


def test_a_prefix_is_another_submission_and_a_time_stamp_is_not(tmp_path):
    write_trial(tmp_path, "sinv6", curve=HIT)
    write_trial(tmp_path, "sinv6_75", curve=MISS)
    write_trial(tmp_path, "sinv6-2024-03-01-10-11-12", study=1, curve=[(30.0, 31.0)])
    assert score(tmp_path).times["wmt"].to_dict() == {"sinv6": 25.0, "sinv6_75": INF}


def test_folders_of_one_name_with_other_parents_are_other_submissions(tmp_path):
    for team, hit in (("x/team", 20.0), ("y/team", 30.0), ("y/other", 40.0)):
        write_trial(tmp_path / team, "entry", curve=[(hit, 31.0)])
    write_trial(tmp_path / "y/other", "alone", curve=[(50.0, 31.0)])
    assert score(tmp_path).times["wmt"].to_dict() == {
        "entry (x/team)": 20.0,
        "entry (y/team)": 30.0,
        "entry (other)": 40.0,
        "alone": 50.0,
    }


def test_tuned_and_self_tuning_submissions_are_told_apart_and_their_mixture_is_reported(tmp_path):
    write_trial(tmp_path / "external_tuning", "entry", curve=HIT)
    write_trial(tmp_path / "self_tuning", "entry", curve=HIT)
    board = score(tmp_path)
    assert board.trials.set_index("submission")[["tuning", "budget"]].to_dict("index") == {
        "entry (external_tuning)": {"tuning": "external", "budget": 43_336.0},
        "entry (self_tuning)": {"tuning": "self", "budget": 1.5 * 43_336},
    }
    assert Kind.TUNING in kinds(board)
    assert Kind.TUNING not in kinds(score(tmp_path / "self_tuning"))


def test_a_trial_in_two_folders_counts_once_and_is_reported(tmp_path):
    write_trial(tmp_path, "adamw", curve=HIT)
    write_trial(tmp_path, "adamw-2024-03-01-10-11-12", curve=[(1.0, 31.0)])
    board = score(tmp_path)
    assert board.times.loc["adamw", "wmt"] == 20.0
    assert Kind.TWICE in kinds(board)


def test_a_submission_in_two_frameworks_is_two_entries(tmp_path):
    write_trial(tmp_path, curve=HIT)
    write_trial(tmp_path, framework="torch", curve=[(5.0, 31.0)])
    board = score(tmp_path)
    assert board.times["wmt"].to_dict() == {"adamw (pytorch)": 5.0, "adamw (jax)": 20.0}


def test_trials_without_evaluations_are_left_out_and_an_empty_study_is_absent(tmp_path):
    write_trial(tmp_path, study=0, trial=1, curve=None)
    write_trial(tmp_path, study=0, trial=2, curve=HIT)
    write_trial(tmp_path, study=1, curve=None)
    write_trial(tmp_path, workload="ogbg", curve=None)
    board = score(tmp_path)
    assert board.times.loc["adamw", "wmt"] == 20.0
    assert math.isnan(board.times.loc["adamw", "ogbg"])
    assert board.reasons.loc["adamw", ["ogbg", "fastmri"]].tolist() == [NO_EVALUATIONS, NOT_RUN]
    assert "adamw on wmt: 1 studies were evaluated, 3 should be" in [p.message for p in board.problems]
    assert (
        score(tmp_path, mode="exact").times.loc["adamw", "wmt"] == INF
    )  # two missing studies are two misses


def test_a_group_in_which_nothing_was_evaluated_scores_zero(tmp_path):
    write_trial(tmp_path, curve=None, hyperparameters={})
    for mode in ("exact", "algoperf"):
        assert score(tmp_path, mode=mode).scores["score"].to_dict() == {"adamw": 0.0}


def test_our_crashed_trial_is_a_miss_although_it_was_never_evaluated(tmp_path):
    crash = {"status": Status.CRASHED, "reason": "out of memory"}
    write_trial(tmp_path, study=0, curve=HIT, record={})
    for study in (1, 2):
        write_trial(tmp_path, study=study, curve=None, record=crash)
    board = score(tmp_path, mode="exact")
    assert board.times.loc["adamw", "wmt"] == INF
    assert board.reasons.loc["adamw", "wmt"] == "crashed"
    assert board.trials["reason"].tolist()[1] == "out of memory"
    assert score(tmp_path).times.loc["adamw", "wmt"] == 20.0


@pytest.mark.parametrize("mode", ["exact", "algoperf"])
def test_a_void_trial_has_no_time(tmp_path, mode):
    write_trial(tmp_path, curve=HIT, record={"status": Status.VOID, "reason": "tensors of another model"})
    board = score(tmp_path, mode=mode)
    assert board.times.loc["adamw", "wmt"] == INF
    assert board.reasons.loc["adamw", "wmt"] == "void"


def test_a_target_reached_when_the_budget_is_used_up_is_missed(tmp_path):
    write_trial(tmp_path, curve=HIT, record={"budget_sec": 20.0})
    board = score(tmp_path, mode="exact")
    assert board.times.loc["adamw", "wmt"] == INF
    assert board.trials[["status", "reason"]].to_numpy().tolist() == [["budget", TOO_LATE]]


def test_nan_is_a_miss_and_a_missing_column_is_not_inherited(tmp_path):
    write_trial(tmp_path, trial=1, curve=HIT)
    write_trial(tmp_path, trial=2, curve=[(1.0, NAN)])
    write_trial(tmp_path, trial=3, curve=[(1.0, 99.0)], metric="accuracy")
    board = score(tmp_path)
    assert board.trials["seconds"].tolist() == [20.0, INF, INF]
    assert Kind.COLUMN in kinds(board)


def test_fewer_base_workloads_than_the_rules_have_are_no_credit(tmp_path):
    write_trial(tmp_path, curve=HIT)
    board = score(tmp_path, rules="v1.0")
    assert board.scores["score"].tolist() == [1 / 9]


def test_variants_that_a_version_does_not_score(tmp_path):
    """Without held-out workloads AlgoPerf's scorer lets a variant in the logs take its base along; with them it
    drops other variants. The written rules know nothing of either."""
    write_trial(tmp_path, workload="wmt", curve=HIT)
    write_trial(tmp_path, workload="wmt_post_ln", curve=MISS)
    for rules, mode in (("v0.5", "algoperf"), ("v0.5", "exact"), ("v0.6", "exact")):
        board = score(tmp_path, rules=rules, mode=mode)
        assert "wmt_post_ln" not in board.times.columns
        assert Kind.WORKLOAD in kinds(board)
    board = score(tmp_path, rules="v0.6", mode="algoperf")
    assert board.times.loc["adamw", "wmt"] == 20.0
    assert board.eligible.loc["adamw", "wmt"] == INF
    assert board.reasons.loc["adamw", "wmt"] == "held-out workload missed"
    assert list(board.eligible.columns) == list(board.rules.goals)


def test_accounts_that_do_not_add_up_are_reported(tmp_path):
    write_trial(tmp_path, curve=HIT, record={"accounts": {"setup": 5}, "wall_ns": 6})
    assert Kind.LEDGER in kinds(score(tmp_path))


def test_a_trial_cut_off_is_known_by_its_ledger(tmp_path):
    directory = write_trial(tmp_path, curve=MISS)
    spans = [("setup", 0), ("submission", 5), ("evaluation", 25)]
    append_ledger(directory.ledger, [LedgerEntry(t=t, account=account) for account, t in spans])
    board = score(tmp_path)
    assert board.trials["status"].tolist() == [UNFINISHED]
    assert board.field.ledger.loc[0, ["setup", "other", "evaluation"]].tolist() == [5, 20, 0]


def test_runs_with_other_targets_are_not_mixed(tmp_path):
    write_trial(tmp_path, "a", workload="digits", curve=HIT, goal=(30.0, "higher"))
    write_trial(tmp_path, "b", workload="digits", curve=HIT, goal=(31.0, "higher"))
    with pytest.raises(UsageError, match="one version of a workload"):
        score(tmp_path, rules=None)


def test_a_run_with_another_target_than_the_rules_is_reported_and_scored_by_the_rules(tmp_path):
    write_trial(tmp_path, curve=HIT, goal=(35.0, "higher"))
    board = score(tmp_path)
    assert Kind.TARGET in kinds(board)
    assert board.times.loc["adamw", "wmt"] == 20.0


def test_nothing_to_score_is_one_sentence(tmp_path):
    with pytest.raises(UsageError, match="no trial below"):
        score(tmp_path)
    with pytest.raises(UsageError, match="is not a folder"):
        score(tmp_path / "nowhere")
    write_trial(tmp_path, workload="wmt", curve=HIT)
    with pytest.raises(UsageError, match="no trial can be scored by the pocket rules"):
        score(tmp_path, rules="pocket")


@pytest.mark.parametrize(
    ("trials", "rules"),
    [
        ([{"workload": "wmt"}], "v0.6"),
        ([{"workload": "wmt"}, {"workload": "wmt", "study": 3}], "v0.5"),
        ([{"workload": "wmt"}, {"workload": "ogbg_model_size"}], "v0.5"),
        ([{"workload": "wmt"}, {"workload": "finewebedu_lm"}], "v1.0"),
        ([{"workload": "digits", "goal": (30.0, "higher")}], "pocket"),
    ],
)
def test_the_ruleset_is_found_out(tmp_path, trials, rules):
    for trial in trials:
        write_trial(tmp_path, curve=HIT, **trial)
    assert read_field([tmp_path]).rules.name == rules


def test_several_processes_read_the_same_as_one(tmp_path, monkeypatch):
    write_pocket_run(tmp_path, submissions=("a", "b", "c"))
    (tmp_path / "a/study_0/digits_jax/trial_1/eval_measurements.csv").write_text("score\n1")
    alone = read_field([tmp_path])
    monkeypatch.setattr(field_reader, "TRIALS_WORTH_A_WORKER", 5)
    monkeypatch.setattr(field_reader, "TRIALS_PER_TASK", 4)
    together = read_field([tmp_path], processes=2)
    pd.testing.assert_frame_equal(together.trials, alone.trials)
    pd.testing.assert_frame_equal(together.curves, alone.curves)
    pd.testing.assert_frame_equal(together.ledger, alone.ledger)
    assert together.problems == alone.problems


def test_large_seeds_stay_exact(tmp_path):
    write_trial(tmp_path, trial=1, curve=HIT, meta={"rng_seed": 2**62})
    write_trial(tmp_path, trial=2, curve=HIT, meta={"rng_seed": 2**62 + 1})
    write_trial(tmp_path, trial=3, curve=HIT)
    assert read_field([tmp_path]).trials["seed"].tolist() == [2**62, 2**62 + 1, None]


def test_the_hyperparameters_of_a_trial_do_not_depend_on_their_order(tmp_path):
    for trial, text in ((1, '{"lr": 0.1, "wd": 1}'), (2, '{"wd":1,"lr":0.1}')):
        directory = write_trial(tmp_path, trial=trial, curve=HIT)
        directory.hyperparameters.write_text(text)
    first, second = read_field([tmp_path]).trials["hyperparameters"]
    assert first == second
    assert json.loads(first) == {"lr": 0.1, "wd": 1}
