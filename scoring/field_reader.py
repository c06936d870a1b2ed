"""Reads a field of thousands of trials, in this process or in several. Knows no pandas: workers start quickly."""

import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from timetrial.scoring.ledger_parts import parts_of
from timetrial.scoring.log_tree import TrialFolder
from timetrial.scoring.problems import Problem
from timetrial.scoring.rules import Goal, Ruleset
from timetrial.scoring.trial_log import read_trial_log
from timetrial.scoring.trial_row import TrialRow, trial_row

TRIALS_PER_TASK = 500

# A worker costs as much as reading some thousand trials does: below this, this process alone is faster.
TRIALS_WORTH_A_WORKER = 4_000


@dataclass(kw_only=True)
class Batch:
    """What some trials say: a row each, all their curves end to end, and a ledger's parts where there is one."""

    rows: list[TrialRow] = field(default_factory=list)
    seconds: list[np.ndarray] = field(default_factory=list)
    values: list[np.ndarray] = field(default_factory=list)
    steps: list[np.ndarray] = field(default_factory=list)
    ledgers: list[dict[str, int] | None] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def extend(self, other: "Batch") -> None:
        self.rows += other.rows
        self.seconds += other.seconds
        self.values += other.values
        self.steps += other.steps
        self.ledgers += other.ledgers
        self.problems += other.problems


def read_batch(folders: Sequence[TrialFolder], goals: Mapping[str, Goal], rules: Ruleset) -> Batch:
    """Read these trials, in order."""
    batch = Batch()
    for folder in folders:
        goal = goals[folder.workload]
        log = read_trial_log(folder, goal, batch.problems)
        batch.rows.append(trial_row(log, goal, rules))
        batch.seconds.append(log.evaluations.seconds)
        batch.values.append(log.evaluations.values)
        batch.steps.append(log.evaluations.steps)
        breakdown = log.record.breakdown if log.record is not None else {}
        batch.ledgers.append(parts_of(log.accounts, breakdown) if log.accounts else None)
    for arrays in (batch.seconds, batch.values, batch.steps):  # one array travels faster than hundreds
        arrays[:] = [np.concatenate([np.empty(0), *arrays])]
    return batch


def read_all(
    folders: Sequence[TrialFolder], goals: Mapping[str, Goal], rules: Ruleset, processes: int
) -> Batch:
    """Read all trials, in order, with up to `processes` workers where there are enough trials to be worth it."""
    whole = Batch()
    for batch in _batches(folders, goals, rules, min(processes, len(folders) // TRIALS_WORTH_A_WORKER)):
        whole.extend(batch)
    return whole


def _batches(
    folders: Sequence[TrialFolder], goals: Mapping[str, Goal], rules: Ruleset, workers: int
) -> Iterator[Batch]:
    tasks = [folders[first : first + TRIALS_PER_TASK] for first in range(0, len(folders), TRIALS_PER_TASK)]
    if workers < 2:
        for task in tasks:
            yield read_batch(task, goals, rules)
        return
    # Not "fork": the parent may hold threads of a numerical library.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(read_batch, tasks, [goals] * len(tasks), [rules] * len(tasks))
