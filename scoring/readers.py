"""Reads what a trial left on disk. A damaged file becomes a `Problem`, never a traceback."""

import csv
import io
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timetrial.engine.errors import RecordError
from timetrial.engine.facts import Metric
from timetrial.engine.ledger import Account, totals_of
from timetrial.engine.records import (
    LEDGER_END,
    TrialDirectory,
    TrialRecord,
    read_json_object,
    read_ledger,
    read_trial,
)
from timetrial.scoring.log_tree import Problem, TrialFolder
from timetrial.scoring.rules import Goal

# AlgoPerf writes the submission time twice; scorers read `score`.
TIME_COLUMNS = ("score", "accumulated_submission_time")


@dataclass(frozen=True, kw_only=True)
class Evaluations:
    """One trial's curve: submission seconds, validation metric (NaN: none) and step of every evaluation."""

    seconds: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class TrialLog:
    """One trial as read. `record` and `accounts` are None where the logs are not ours."""

    folder: TrialFolder
    evaluations: Evaluations
    record: TrialRecord | None
    accounts: dict[str, int] | None  # nanoseconds per ledger account


def read_trial_log(folder: TrialFolder, metric: str, problems: list[Problem]) -> TrialLog:
    """Read the trial's evaluations of column `validation/<metric>` and, where present, its record."""
    files = TrialDirectory(path=folder.path)
    record = _read_record(files.trial, problems)
    return TrialLog(
        folder=folder,
        evaluations=read_evaluations(files.evaluations, metric, problems),
        record=record,
        accounts=_read_accounts(files, record, problems),
    )


def read_evaluations(path: Path, metric: str, problems: list[Problem]) -> Evaluations:
    """The curve in an eval_measurements.csv; empty if the file is absent or cannot be used.

    A last line without LF was torn by a crash and is left out, as is any line whose time is not a number.
    """
    evaluations = Evaluations()
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return evaluations
    except OSError as error:
        problems.append(Problem(str(path), f"cannot be read: {error.strerror}"))
        return evaluations
    if text and not text.endswith("\n"):
        problems.append(Problem(str(path), "the last line is torn (no line end) and was left out"))
        text = text[: text.rfind("\n") + 1]
    rows = csv.reader(io.StringIO(text))
    header = next(rows, [])
    time_column = next((name for name in TIME_COLUMNS if name in header), None)
    if time_column is None or f"validation/{metric}" not in header:
        missing = f"validation/{metric}" if time_column else TIME_COLUMNS[0]
        problems.append(Problem(str(path), f"has no column {missing}; none of its rows counts"))
        return evaluations
    at_time, at_value = header.index(time_column), header.index(f"validation/{metric}")
    at_step = header.index("global_step") if "global_step" in header else None
    for row in rows:
        try:
            seconds = float(row[at_time])
            value = float(row[at_value] or "nan")
            step = float(row[at_step] or "nan") if at_step is not None else math.nan
        except (ValueError, IndexError):
            seconds = math.nan
        if not math.isfinite(seconds):
            problems.append(Problem(str(path), f"line {rows.line_num} is damaged and was left out"))
            continue
        evaluations.seconds.append(seconds)
        evaluations.values.append(value)
        evaluations.steps.append(step)
    return evaluations


def read_goal(meta_data: Path) -> Goal:
    """The goal that a run's meta_data_0.json names. RecordError when a key is absent or of the wrong kind."""
    facts = read_json_object(meta_data)
    name = _fact(facts, "workload.target_metric_name", str, meta_data)
    better = _fact(facts, "workload.metric_better", str, meta_data)
    target = _fact(facts, "workload.validation_target_value", (int, float), meta_data)
    if better not in ("higher", "lower"):
        raise RecordError(f"{meta_data}: workload.metric_better is {better!r}; expected 'higher' or 'lower'")
    return Goal(metric=Metric(name=name, better=better), target=float(target))


def _fact(facts: dict[str, Any], key: str, kind: type | tuple[type, ...], path: Path) -> Any:
    if not isinstance(facts.get(key), kind):
        raise RecordError(f"{path} has no usable {key}; score AlgoPerf logs by their ruleset, v0.5 or v0.6")
    return facts[key]


def _read_record(path: Path, problems: list[Problem]) -> TrialRecord | None:
    if not path.exists():
        return None
    try:
        return read_trial(path)
    except RecordError as error:
        problems.append(Problem(str(path), str(error)))
        return None


def _read_accounts(
    files: TrialDirectory, record: TrialRecord | None, problems: list[Problem]
) -> dict[str, int] | None:
    """The record's totals; those of the ledger up to its last entry where a trial never wrote a record."""
    if record is not None:
        total = sum(record.accounts.values())
        if record.accounts and total != record.wall_ns:
            message = f"the accounts add up to {total} ns but the trial took {record.wall_ns} ns"
            problems.append(Problem(str(files.trial), message))
        return record.accounts or None
    if not files.ledger.exists():
        return None
    try:
        entries = read_ledger(files.ledger)
        spans = [(entry.t, Account(entry.account)) for entry in entries if entry.account != LEDGER_END]
    except (RecordError, ValueError) as error:
        problems.append(Problem(str(files.ledger), str(error)))
        return None
    return {account.value: ns for account, ns in totals_of(spans, entries[-1].t).items()} if entries else None
