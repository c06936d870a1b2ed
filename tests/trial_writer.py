"""Writes small log trees for the tests of scoring."""

from pathlib import Path

from timetrial.engine.outcome import Status
from timetrial.engine.records import TrialDirectory, TrialRecord, write_json_atomic

NAN = float("nan")


def write_trial(
    root,
    submission="adamw",
    *,
    workload="wmt",
    framework="jax",
    study=0,
    trial=1,
    curve=None,
    metric="bleu",
    goal=None,
    record=None,
    columns=None,
    meta=None,
    hyperparameters=None,
):
    """`curve`: (seconds, value) pairs, 100 steps each, None for no CSV. `goal`: (target, better) for meta data.

    `columns`: further cells of every row; `meta`: further meta data.
    """
    directory = TrialDirectory.below(
        Path(root), submission=submission, study=study, workload=workload, framework=framework, trial=trial
    )
    directory.path.mkdir(parents=True)
    if curve is not None:
        write_curve(directory.evaluations, curve, metric, columns or {})
    facts = dict(meta or {})
    if goal is not None:
        target, better = goal
        facts |= {
            "workload.target_metric_name": metric,
            "workload.metric_better": better,
            "workload.validation_target_value": target,
        }
    if facts:
        write_json_atomic(directory.meta_data, facts)
    if hyperparameters is not None:
        write_json_atomic(directory.hyperparameters, hyperparameters)
    if record is not None:
        fields = {"status": Status.TARGET} | record
        who = {"submission": submission, "workload": workload, "framework": framework}
        write_json_atomic(directory.trial, TrialRecord(**who, **fields))
    return directory


def write_curve(path, curve, metric="bleu", columns=None):
    """An eval_measurements.csv, as AlgoPerf sorts its columns."""
    rows = [
        {
            "accumulated_submission_time": seconds,
            "global_step": 100 * number,
            "score": seconds,
            f"validation/{metric}": value,
        }
        | (columns or {})
        for number, (seconds, value) in enumerate(curve, start=1)
    ]
    header = sorted(rows[0]) if rows else ["global_step", "score", f"validation/{metric}"]
    lines = [",".join(header)] + [",".join(_cell(row[name]) for name in header) for row in rows]
    path.write_text("".join(line + "\n" for line in lines))


def _cell(value):
    return "" if value != value else repr(value)


def write_pocket_run(root, *, submissions=("adamw", "nesterov"), workloads=("digits", "forest"), studies=2):
    """A complete small run of our own: the first submission is twice as fast as the next, and so on."""
    for rank, submission in enumerate(submissions, start=1):
        for workload in workloads:
            for study in range(studies):
                hit = 10.0 * rank + study
                charged = int(hit * 1e9)
                accounts = {
                    "setup": 2_000_000_001,
                    "submission": charged,
                    "snapshot": 3,
                    "evaluation": 5 * 10**9,
                }
                breakdown = {"data_wait": charged // 10, "update": charged // 2, "first_call": charged // 5}
                write_trial(
                    root,
                    submission,
                    workload=workload,
                    study=study,
                    metric="accuracy",
                    curve=[(hit / 2, 0.5), (hit, 0.95)],
                    goal=(0.9, "higher"),
                    record={
                        "study": study,
                        "ruleset": "self",
                        "seed": 2**62 + study,
                        "accounts": accounts,
                        "wall_ns": sum(accounts.values()),
                        "submission_ns": charged,
                        "breakdown": breakdown,
                        "hardware": {"cpu": "a CPU"},
                        "versions": {"timetrial": "0.1.0"},
                        "budget_sec": 100.0,
                        "step_hint": 500,
                        "eval_period_sec": 5.0,
                    },
                )
