"""Reads everything that one trial left on disk. A damaged file becomes a `Problem`, never a traceback."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from timetrial.engine.errors import RecordError
from timetrial.engine.facts import Metric
from timetrial.engine.ledger import Account, totals_of
from timetrial.engine.records import LEDGER_END, TrialRecord, read_ledger, read_trial
from timetrial.scoring.evaluations import Evaluations, read_evaluations
from timetrial.scoring.log_tree import TrialFolder
from timetrial.scoring.problems import Kind, Problem
from timetrial.scoring.rules import Goal
from timetrial.scoring.whole_file import read_whole

_WITHOUT = "the trial counts without it"

Scalar = str | float | int | bool | None


class MetaData(msgspec.Struct, frozen=True, kw_only=True):
    """What scoring reads of meta_data_0.json, AlgoPerf's or ours. A None was not recorded."""

    metric: str | None = msgspec.field(default=None, name="workload.target_metric_name")
    better: str | None = msgspec.field(default=None, name="workload.metric_better")
    target: float | None = msgspec.field(default=None, name="workload.validation_target_value")
    budget: float | None = msgspec.field(default=None, name="workload.max_allowed_runtime_sec")
    step_hint: float | None = msgspec.field(default=None, name="workload.step_hint")
    eval_period: float | None = msgspec.field(default=None, name="workload.eval_period_time_sec")
    rng_seed: int | None = None
    gpu_count: Scalar = None
    gpu_model_name: Scalar = None
    gpu_driver: Scalar = None
    cpu_count: Scalar = None
    cpu_model_name: Scalar = None
    python_version: Scalar = None
    git_commit_hash: Scalar = None
    os_platform: Scalar = None

    def goal(self) -> Goal | None:
        """The goal that a run of ours names; AlgoPerf's logs do not name the direction."""
        if self.metric is None or self.target is None or self.better not in ("higher", "lower"):
            return None
        better: Any = self.better
        return Goal(metric=Metric(name=self.metric, better=better), target=self.target)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialLog:
    """One trial as read. What the logs do not hold is None: `record` and `accounts` where they are not ours."""

    folder: TrialFolder
    evaluations: Evaluations
    meta: MetaData = field(default_factory=MetaData)
    hyperparameters: str | None = None  # JSON with sorted keys
    record: TrialRecord | None = None
    accounts: Mapping[str, int] | None = None  # nanoseconds per ledger account


_meta_data = msgspec.json.Decoder(MetaData)
_any_object = msgspec.json.Decoder(dict[str, Any])


def read_meta_data(folder: TrialFolder, problems: list[Problem]) -> MetaData | None:
    """The trial's meta data; None where it has none or none that can be read."""
    path = f"{folder.path}/meta_data_0.json"
    data = read_whole(path, problems, _WITHOUT)
    if data is None:
        return None
    try:
        return _meta_data.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        problems.append(Problem(Kind.JSON, path, str(error), _WITHOUT))
        return None


def read_trial_log(folder: TrialFolder, goal: Goal, problems: list[Problem]) -> TrialLog:
    """Read the trial's evaluations of the goal's metric and, where present, its other files."""
    record = _record(f"{folder.path}/trial.json", folder, problems)
    meta = read_meta_data(folder, problems) or MetaData()
    if meta.target is not None and meta.target != goal.target:
        message = f"the run aimed at {meta.target:g}, the rules ask for {goal.target:g}"
        path = f"{folder.path}/meta_data_0.json"
        problems.append(Problem(Kind.TARGET, path, message, "the target of the rules is used"))
    return TrialLog(
        folder=folder,
        evaluations=read_evaluations(f"{folder.path}/eval_measurements.csv", goal.metric.name, problems),
        meta=meta,
        hyperparameters=_hyperparameters(f"{folder.path}/hparams.json", problems),
        record=record,
        accounts=_accounts(folder.path, record, problems),
    )


def _hyperparameters(path: str, problems: list[Problem]) -> str | None:
    data = read_whole(path, problems, _WITHOUT)
    if data is None:
        return None
    try:
        return msgspec.json.encode(_any_object.decode(data), order="sorted").decode()
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        problems.append(Problem(Kind.JSON, path, str(error), _WITHOUT))
        return None


def _record(path: str, folder: TrialFolder, problems: list[Problem]) -> TrialRecord | None:
    if not os.path.exists(path):
        return None
    try:
        record = read_trial(Path(path))
    except (RecordError, OSError) as error:
        problems.append(Problem(Kind.JSON, path, str(error), "the trial counts as unfinished"))
        return None
    if record.framework != folder.framework and (record.framework, folder.framework) != ("torch", "pytorch"):
        message = f"was run in {record.framework}, but its folder says {folder.framework}"
        problems.append(Problem(Kind.FRAMEWORK, path, message, "the folder's name is believed"))
    return record


def _accounts(path: str, record: TrialRecord | None, problems: list[Problem]) -> Mapping[str, int] | None:
    """The record's totals; those of the ledger up to its last entry where a trial never wrote a record."""
    if record is not None:
        total = sum(record.accounts.values())
        if record.accounts and total != record.wall_ns:
            message = f"the accounts add up to {total} ns but the trial took {record.wall_ns} ns"
            problems.append(Problem(Kind.LEDGER, f"{path}/trial.json", message, "shown as recorded"))
        return record.accounts or None
    ledger = f"{path}/ledger.jsonl"
    if not os.path.exists(ledger):
        return None
    try:
        entries = read_ledger(Path(ledger))
        spans = [(entry.t, Account(entry.account)) for entry in entries if entry.account != LEDGER_END]
    except (RecordError, ValueError, OSError) as error:
        problems.append(Problem(Kind.JSON, ledger, str(error), "the ledger is not shown"))
        return None
    return {account.value: ns for account, ns in totals_of(spans, entries[-1].t).items()} if entries else None
