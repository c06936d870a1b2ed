"""One trial as one row: everything that scores, health and tables are made from. The same in both modes."""

import math
from typing import NamedTuple

import numpy as np

from timetrial.engine.ledger import Account
from timetrial.engine.outcome import SENTENCE
from timetrial.scoring.machines import kernels_of, machine_of, versions_of
from timetrial.scoring.rules import Budget, Goal, Ruleset
from timetrial.scoring.trial_log import TrialLog

NO_EVALUATIONS = "no evaluations"
MISSED = "missed"
TARGET = "target"
UNFINISHED = "unfinished"

_UNSTATED = Budget(seconds=math.nan, step_hint=math.nan, eval_period=math.nan)

EXTERNAL = "external"
SELF = "self"


class TrialRow(NamedTuple):
    """Times are seconds of submission time, NaN where the logs do not tell."""

    submission: str
    study: int
    workload: str
    framework: str
    trial: int
    path: str
    tuning: str  # external or self
    is_ours: bool  # a run of Timetrial: it has a record or a ledger
    status: str  # how it ended: our record's word, or target, missed, no evaluations, unfinished
    reason: str
    flags: str
    official: bool | None
    evaluations: int
    row: int  # evaluation that first reaches the target, from 0; -1 if none does
    seconds: float  # time of that evaluation; infinite if none does
    before: float  # time of the evaluation before it: the target was reached between the two
    step: float  # step of that evaluation; infinite if none does
    best: float  # best value of the metric
    end_seconds: float
    end_step: float
    is_finite: bool  # see `Evaluations`: whether the last evaluation still holds numbers
    step_seconds: float  # median over the intervals between evaluations
    gap: float  # median interval between evaluations
    largest_gap: float
    budget: float  # what the trial may use: times the ruleset's factor where it tunes itself
    step_hint: float  # steps planned for that budget
    eval_period: float
    seed: int | None
    hyperparameters: str | None
    evaluation_seconds: float  # node time beside the submission's
    logging_seconds: float
    other_seconds: float
    machine: str
    versions: str
    kernels: str


def trial_row(log: TrialLog, goal: Goal, rules: Ruleset) -> TrialRow:
    """The row of a trial; a value equal to the target reaches it, NaN never does."""
    folder, evaluations, record = log.folder, log.evaluations, log.record
    seconds, values, steps = evaluations.seconds, evaluations.values, evaluations.steps
    higher = goal.metric.better == "higher"
    hits = np.flatnonzero(values >= goal.target if higher else values <= goal.target)
    row = int(hits[0]) if len(hits) else -1
    numbers = values[~np.isnan(values)]
    gaps = seconds[1:] - seconds[:-1]
    paces = gaps / (steps[1:] - steps[:-1])
    tuning = _tuning(log)
    budget, step_hint, eval_period = _limits(log, rules, tuning)
    node = _node_seconds(log)
    return TrialRow(
        submission=folder.submission,
        study=folder.study,
        workload=folder.workload,
        framework=folder.framework,
        trial=folder.trial,
        path=folder.path,
        tuning=tuning,
        is_ours=record is not None or log.accounts is not None,
        status=_status(log, row),
        reason=(record.reason or SENTENCE[record.status]) if record is not None else "",
        flags=", ".join(record.flags) if record is not None else "",
        official=record.official if record is not None else None,
        evaluations=len(seconds),
        row=row,
        seconds=float(seconds[row]) if row >= 0 else math.inf,
        before=float(seconds[row - 1]) if row > 0 else 0.0 if row == 0 else math.inf,
        step=float(steps[row]) if row >= 0 else math.inf,
        best=math.nan if not len(numbers) else float(numbers.max() if higher else numbers.min()),
        end_seconds=float(seconds[-1]) if len(seconds) else math.nan,
        end_step=float(steps[-1]) if len(seconds) else math.nan,
        is_finite=evaluations.is_finite,
        step_seconds=_median(paces),
        gap=_median(gaps),
        largest_gap=float(gaps.max()) if len(gaps) else math.nan,
        budget=budget,
        step_hint=step_hint,
        eval_period=eval_period,
        seed=record.seed if record is not None else log.meta.rng_seed,
        hyperparameters=log.hyperparameters,
        evaluation_seconds=node["evaluation"],
        logging_seconds=node["logging"],
        other_seconds=node["other"],
        machine=machine_of(log),
        versions=versions_of(log),
        kernels=kernels_of(log),
    )


def _status(log: TrialLog, row: int) -> str:
    if log.record is not None:
        return log.record.status.value
    if log.accounts is not None:
        return UNFINISHED
    return TARGET if row >= 0 else MISSED if len(log.evaluations.seconds) else NO_EVALUATIONS


def _tuning(log: TrialLog) -> str:
    """As the record or the tree tell, or else by the hyperparameters, which only external tuning has."""
    if log.record is not None and log.record.ruleset:
        return log.record.ruleset
    return log.folder.tuning or (EXTERNAL if log.hyperparameters is not None else SELF)


def _limits(log: TrialLog, rules: Ruleset, tuning: str) -> tuple[float, float, float]:
    """Budget, steps planned and evaluation period: the run's own, or else the rules'.

    AlgoPerf's meta data hold the budget of external tuning, whatever the run was; ours hold the run's.
    """
    meta = log.meta
    stated = rules.budget(log.folder.workload) or _UNSTATED
    factor = rules.self_tuning_factor if tuning == SELF else 1.0
    if (record := log.record) is not None and record.budget_sec is not None:
        planned = factor * _or(math.nan, record.step_hint)
        return record.budget_sec, planned, _or(math.nan, record.eval_period_sec)
    return (
        (factor if log.accounts is None else 1.0) * _or(stated.seconds, meta.budget),
        factor * _or(stated.step_hint, meta.step_hint),
        _or(stated.eval_period, meta.eval_period),
    )


def _node_seconds(log: TrialLog) -> dict[str, float]:
    """Node time beside the submission's: by the ledger's accounts, or by AlgoPerf's last evaluation."""
    if (accounts := log.accounts) is not None:
        return {
            "evaluation": accounts.get(Account.EVALUATION, 0) / 1e9,
            "logging": (accounts.get(Account.LOGGING, 0) + accounts.get(Account.CHECKPOINT, 0)) / 1e9,
            "other": (accounts.get(Account.SETUP, 0) + accounts.get(Account.SNAPSHOT, 0)) / 1e9,
        }
    node = log.evaluations.node_seconds
    evaluation, logging = node.get("evaluation", math.nan), node.get("logging", math.nan)
    end = log.evaluations.seconds[-1] if len(log.evaluations.seconds) else math.nan
    other = node.get("total", math.nan) - float(end) - evaluation - logging
    return {"evaluation": evaluation, "logging": logging, "other": max(other, 0.0)}


def _median(values: np.ndarray) -> float:
    """As numpy.median, which is slow on the short arrays of which a field has thousands."""
    count = len(values)
    if not count:
        return math.nan
    ordered = np.sort(values)
    return float(ordered[(count - 1) // 2] + ordered[count // 2]) / 2


def _or(default: float, value: float | None) -> float:
    return default if value is None else float(value)
