"""Synthetic logs in AlgoPerf's layout: whole submissions under the v0.5 rules, written fast and not durably.

A submission has 350 trials. Each has about 20 evaluations of 15 columns and, as in the published logs, some were
cut off, some never evaluated, and one study ran on another machine. Contents repeat; which trial has which is drawn.
"""

from collections.abc import Iterable
from pathlib import Path

import msgspec
import numpy as np

from timetrial.engine.records import TrialDirectory
from timetrial.scoring.rules import V05

STUDIES, TRIALS = 5, 5
TRIALS_A_SUBMISSION = len(V05.goals) * STUDIES * TRIALS
FILES_A_TRIAL = 3
DISK_BYTES_A_TRIAL = 5 * 4096  # a folder and three files, of one block each but the evaluations

EVALUATIONS = 20
CURVES = 24  # a workload, from the fastest to those that never reach the target
SPREAD = 4.0  # standard deviation of a submission's trials, in curves
CUT_OFF, NOT_EVALUATED = 0.10, 0.05  # shares of all trials


def write_submissions(out: Path, numbers: Iterable[int]) -> None:
    """Write the submissions of these numbers below `out`. A number's files do not depend on the others."""
    curves = {workload: [_curve(workload, number) for number in range(CURVES)] for workload in V05.goals}
    meta = {
        (workload, study, trial): _meta_data(workload, study, trial)
        for workload in V05.goals
        for study in range(STUDIES)
        for trial in range(1, TRIALS + 1)
    }
    for submission in numbers:
        generator = np.random.default_rng(submission)
        strength = generator.uniform(0, CURVES)
        for workload, study, trial in meta:
            directory = TrialDirectory.below(
                out,
                submission=f"submission_{submission:03}",
                study=study,
                workload=workload,
                framework="jax",
                trial=trial,
            )
            directory.path.mkdir(parents=True)
            directory.meta_data.write_bytes(meta[workload, study, trial])
            directory.hyperparameters.write_bytes(_hyperparameters(trial))
            curve = curves[workload][int(np.clip(generator.normal(strength, SPREAD), 0, CURVES - 1))]
            fate = generator.random()
            if fate < CUT_OFF:
                curve = curve[: 1 + EVALUATIONS // 2]
            if fate < 1 - NOT_EVALUATED:
                directory.evaluations.write_bytes(b"".join(curve))


def _curve(workload: str, number: int) -> list[bytes]:
    """The lines of an eval_measurements.csv, its header first. A later curve reaches the target later, or never."""
    goal, budget = V05.goals[workload], V05.budget(workload)
    assert budget is not None, f"the v0.5 rules state a budget for {workload}"
    metric, better = goal.metric.name, 1 if goal.metric.better == "higher" else -1
    other = "accuracy" if metric == "loss" else "loss"
    generator = np.random.default_rng(number)
    pace = generator.uniform(0.85, 1.0) * budget.seconds / EVALUATIONS
    at_target = EVALUATIONS * (0.3 + number / CURVES + 0.02 * generator.random())
    lines = [_header(metric, other)]
    for count in range(1, EVALUATIONS + 1):
        seconds = pace * count + generator.uniform(0, 0.1)
        value = goal.target * (1 + better * (count - at_target) / (2 * EVALUATIONS))
        train, test, loss = value + 0.001 * generator.random(3)
        cells = [30.1 * count, 0.03 * count, seconds, budget.step_hint * count // EVALUATIONS, 0, seconds]
        cells += [test, loss, 43793, seconds + 30.2 * count, train, loss, value, loss, 43793]
        lines.append(",".join(map(repr, map(_plain, cells))).encode() + b"\n")
    return lines


def _header(metric: str, other: str) -> bytes:
    names = [
        "accumulated_eval_time",
        "accumulated_logging_time",
        "accumulated_submission_time",
        "global_step",
    ]
    names += ["preemption_count", "score", f"test/{metric}", f"test/{other}", "test/num_examples"]
    names += ["total_duration", f"train/{metric}", f"train/{other}"]
    names += [f"validation/{metric}", f"validation/{other}", "validation/num_examples"]
    return ",".join(names).encode() + b"\n"


def _plain(cell: float) -> float:
    """Python's own number: NumPy's writes itself with its type."""
    return cell.item() if isinstance(cell, np.generic) else cell


def _hyperparameters(trial: int) -> bytes:
    names = ("learning_rate", "one_minus_beta1", "beta2", "weight_decay", "warmup_factor", "dropout_rate")
    return msgspec.json.encode({name: 0.01 * trial + 0.001 * place for place, name in enumerate(names)})


def _meta_data(workload: str, study: int, trial: int) -> bytes:
    """As large as a published one, which samples every GPU."""
    goal = V05.goals[workload]
    facts = {
        "workload.target_metric_name": goal.metric.name,
        "workload.validation_target_value": goal.target,
        "rng_seed": 1_000 * study + trial,
        "gpu_count": 8,
        "gpu_model_name": "Tesla V100" if study < STUDIES - 1 else "Tesla P100",
        "python_version": "3.11.7",
    }
    samples = {f"gpu.{gpu}.sample_{number}": 16384.25 + number for gpu in range(8) for number in range(9)}
    return msgspec.json.format(msgspec.json.encode(facts | samples), indent=2)
