"""Health: every way in which a trial can have gone wrong is told apart, and a healthy field has nothing to tell."""

import math

import pytest
from field_maker import field_of, trial
from trial_writer import write_pocket_run, write_trial

from timetrial.scoring.field import read_field
from timetrial.scoring.findings import findings, outcome_counts, ranges
from timetrial.scoring.health import Concern, Outcome, step_seconds, trial_health
from timetrial.scoring.leaderboard import score_field
from timetrial.scoring.problems import Kind, Problem
from timetrial.scoring.rules import POCKET, V05, V06

INF, NAN = math.inf, math.nan


def health_of(*rows, rules=POCKET, problems=(), **options):
    board = score_field(field_of(list(rows), rules, problems), "algoperf")
    return trial_health(board, **options)


def concerns_of(*rows, **options):
    return [set(signs) for signs in health_of(*rows, **options)["concerns"]]


@pytest.mark.parametrize(
    ("values", "outcome"),
    [
        ({"seconds": 50.0}, Outcome.TARGET),
        ({"seconds": 50.0, "is_finite": False}, Outcome.TARGET),  # what came after the target does not matter
        ({"budget": 100.0}, Outcome.MISSED),
        ({"budget": 114.0}, Outcome.MISSED),  # one more evaluation would not have fitted in
        ({"budget": 200.0}, Outcome.TRUNCATED),
        ({"budget": NAN}, Outcome.MISSED),  # nothing to hold it against
        ({"budget": 200.0, "is_finite": False}, Outcome.DIVERGED),
        ({"evaluations": 0, "end_seconds": NAN, "budget": 200.0}, Outcome.CRASHED),
        ({"is_ours": True, "status": "budget", "budget": 200.0}, Outcome.MISSED),
        ({"is_ours": True, "status": "completed", "budget": 200.0}, Outcome.MISSED),
        ({"is_ours": True, "status": "diverged"}, Outcome.DIVERGED),
        ({"is_ours": True, "status": "crashed", "reason": "an exception"}, Outcome.CRASHED),
        (
            {"is_ours": True, "status": "crashed", "reason": "the kernel had run out of memory"},
            Outcome.OUT_OF_MEMORY,
        ),
        ({"is_ours": True, "status": "hung"}, Outcome.HUNG),
        ({"is_ours": True, "status": "void"}, Outcome.VOID),
        ({"is_ours": True, "status": "unfinished"}, Outcome.UNFINISHED),
    ],
)
def test_outcomes(values, outcome):
    health = health_of(trial("a", "w", **({"end_seconds": 100.0} | values)))
    assert health["outcome"].tolist() == [outcome.value]


def test_official_runs_of_v05_ended_at_the_step_hint():
    early = {"budget": 18_477.0, "end_seconds": 9_000.0, "end_step": 80_000.0, "step_hint": 80_000.0}
    row = trial("a", "ogbg", **early)
    assert health_of(row, rules=V05)["outcome"].tolist() == ["missed"]
    assert health_of(row, rules=V06)["outcome"].tolist() == ["truncated"]


@pytest.mark.parametrize(
    ("name", "text", "outcomes"),
    [
        ("trial_1/racer.log", "torch.OutOfMemoryError: CUDA out of memory", ["out of memory", "truncated"]),
        ("wmt_jax_03-01-2024-10-11-12.log", "RESOURCE_EXHAUSTED: Out of memory", ["out of memory"] * 2),
        (
            "wmt_jax_03-01-2024-10-11-12.log",
            "--- Tuning run 1/2 ---\nfine\n--- Tuning run 2/2 ---\nstd::bad_alloc\n",
            ["truncated", "out of memory"],
        ),
        ("other.log", "out of memory", ["truncated", "truncated"]),
    ],
)
def test_memory_that_ran_out_is_found_in_the_logs(tmp_path, name, text, outcomes):
    for number in (1, 2):
        directory = write_trial(tmp_path, trial=number, curve=[(10.0, 1.0), (20.0, 1.0)], hyperparameters={})
    (directory.path.parent / name).write_text(text)
    health = trial_health(score_field(read_field([tmp_path], "v0.6")))
    assert health["outcome"].tolist() == outcomes


def test_the_same_seed_within_a_study_and_between_studies():
    rows = [
        trial("a", "w", study, number, seed=seed) for study, number, seed in [(0, 1, 5), (0, 2, 5), (1, 1, 6)]
    ]
    assert concerns_of(*rows) == [{Concern.SAME_SEED}] * 2 + [set()]
    rows = [trial("a", "w", study, 1, seed=seed) for study, seed in [(0, 5), (1, 5), (2, 6)]]
    assert concerns_of(*rows) == [{Concern.SEED_OF_ANOTHER_STUDY}] * 2 + [set()]
    rows = [trial("a", workload, 0, 1, seed=5) for workload in "wv"] + [trial("b", "w", 0, 1, seed=5)]
    assert concerns_of(*rows) == [set()] * 3  # other workloads and submissions may have it too
    assert concerns_of(trial("a", "w", 0, 1), trial("a", "w", 0, 2)) == [set()] * 2  # not recorded


def test_the_same_hyperparameters_within_a_study():
    rows = [trial("a", "w", 0, number, hyperparameters='{"lr":1}') for number in (1, 2)]
    assert concerns_of(*rows) == [{Concern.SAME_HYPERPARAMETERS}] * 2
    rows = [trial("a", "w", study, 1, hyperparameters='{"lr":1}') for study in (0, 1)]
    assert concerns_of(*rows) == [set()] * 2


@pytest.mark.parametrize(("pace", "is_slow"), [(0.14, False), (0.16, True)])
def test_a_trial_slower_than_the_others_of_its_submission(pace, is_slow):
    rows = [trial("a", "w", 0, number, step_seconds=0.1, step_hint=1e6) for number in (1, 2, 3)]
    rows += [trial("a", "w", 0, 4, step_seconds=pace, step_hint=1e6), trial("b", "w", step_seconds=9.0)]
    health = health_of(*rows)
    assert [Concern.SLOWER_THAN_ITSELF in signs for signs in health["concerns"]] == [False] * 3 + [
        is_slow,
        False,
    ]
    assert health["label"].tolist()[3] == ("too slow" if is_slow else "missed")


def test_a_miss_at_a_pace_that_is_not_the_rules_is_too_slow_and_a_hit_is_not():
    slow = {"budget": 100.0, "step_hint": 1000.0, "step_seconds": 0.2}
    rows = [trial("a", "w", **slow), trial("b", "w", seconds=50.0, **slow)]
    health = health_of(*rows)
    assert [set(signs) for signs in health["concerns"]] == [{Concern.SLOWER_THAN_EXPECTED}] * 2
    assert health["label"].tolist() == ["too slow", "target"]
    assert health["expected_pace"].tolist() == [0.1, 0.1]


def test_stored_paces_replace_the_rules():
    row = trial("a", "w", budget=100.0, step_hint=1000.0, step_seconds=0.2)
    board = score_field(field_of([row]), "algoperf")
    assert step_seconds(board).loc["a", "w"] == 0.2
    assert trial_health(board, step_seconds(board))["concerns"].tolist() == [()]
    assert trial_health(board, step_seconds(board) / 2)["concerns"].tolist() == [("slower than expected",)]


def test_other_signs():
    assert concerns_of(trial("a", "w", largest_gap=20.5)) == [{Concern.EVALUATION_MISSING}]
    assert concerns_of(trial("a", "w", largest_gap=19.5)) == [set()]
    assert concerns_of(trial("a", "w", largest_gap=20.5, eval_period=15.0)) == [set()]
    back = Problem(Kind.TIME, "/logs/a/study_0/w_jax/trial_1/eval_measurements.csv", "", "")
    assert concerns_of(trial("a", "w"), trial("a", "w", 0, 2), problems=[back]) == [{Concern.CLOCK}, set()]
    machines = [trial("a", "w", study, machine=name) for study, name in enumerate(["x", "x", "y", ""])]
    assert concerns_of(*machines) == [set(), set(), {Concern.OTHER_MACHINE}, set()]
    kernels = [
        trial("a", "w", study, kernels=text)
        for study, text in enumerate(["", "k: fused", "k: plain", "k: fused"])
    ]
    assert concerns_of(*kernels) == [set(), set(), {Concern.OTHER_KERNELS}, set()]


def test_a_time_with_a_doubtful_sign_is_suspicious():
    rows = [trial("a", "w", 0, number, seconds=10.0, seed=1) for number in (1, 2)]
    assert health_of(*rows)["label"].tolist() == ["suspicious", "suspicious"]


def test_a_healthy_field_has_nothing_to_tell(tmp_path):
    write_pocket_run(tmp_path)
    board = score_field(read_field([tmp_path]))
    health = trial_health(board)
    assert set(health["label"]) == {"target"}
    assert findings(board, health).empty
    assert outcome_counts(board, health).to_dict() == {"target": {"adamw": 4, "nesterov": 4}}


def test_findings_name_workloads_and_studies_briefly():
    rows = [
        trial("a", workload, study, 1, budget=200.0, step_hint=2000.0, end_seconds=20.0 + study)
        for workload in ("u", "v", "w")
        for study in (0, 1, 2, 4)
        if (workload, study) != ("w", 4)
    ]
    rows.append(trial("a", "x", 0, 1, seconds=1.0, is_ours=True))
    board = score_field(field_of(rows), "algoperf")
    table = findings(board, trial_health(board))
    assert table.to_numpy().tolist() == [
        ["a", "truncated", 11, "u, v: studies 0-2, 4; w: studies 0-2", "ended 10 to 12 % into the budget"]
    ]


def test_ranges():
    assert ranges([0, 1, 2, 4, 6, 7]) == "0-2, 4, 6-7"
    assert ranges([3]) == "3"
    assert ranges([]) == ""
