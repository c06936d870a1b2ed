"""From trials to studies to workloads, in two modes.

`algoperf` repeats what the AlgoPerf scorer computes, so that published scores come out to the last printed digit:
of a study's trials it takes the one that reaches the target at the smallest evaluation *number*, and a study of
which nothing was evaluated does not exist. `exact` follows the written rules: the trial that reaches the target in
the least *time*, provided that the budget was not used up by then; a missing study is a miss.
"""

import itertools
import math
from typing import Literal

import numpy as np
import pandas as pd

from timetrial.engine.outcome import Status
from timetrial.scoring.rules import Ruleset

Mode = Literal["exact", "algoperf"]

STUDY = ["submission", "workload", "study"]
CELL = ["submission", "workload"]


def is_within_rules(trials: pd.DataFrame, mode: Mode) -> pd.Series:
    """Whether a trial's time may count: the trial is not void, and in mode exact its budget was not used up.

    `trials` has columns status, seconds and budget (NaN where unknown).
    """
    sound = trials["status"] != Status.VOID.value
    if mode == "algoperf":
        return sound
    return sound & ~((trials["seconds"] >= trials["budget"]) & (trials["seconds"] < math.inf))


def study_times(trials: pd.DataFrame, mode: Mode, rules: Ruleset) -> pd.DataFrame:
    """One row a study, indexed by (submission, workload, study).

    Columns: seconds of submission time to the target (infinite: missed), before (the target was reached after this
    time, that of an evaluation before, and at the latest at `seconds`), step (the fewest to the target), number
    (position in `trials` of the trial that decides, -1 for a study that is missing altogether).

    `trials` has columns submission, workload, study, trial, row, seconds, before, step, evaluations, is_ours, status
    and budget, as `Field.trials` does.
    """
    within = is_within_rules(trials, mode)
    frame = trials[[*STUDY, "trial", "row", "seconds", "before", "step"]].copy()
    frame["number"] = np.arange(len(frame))
    # A miss has row -1: it must sort behind every hit.
    frame["row"] = frame["row"].where(within & (frame["row"] >= 0), math.inf)
    for column in ("seconds", "before", "step"):
        frame[column] = frame[column].where(within, math.inf)
    exists = trials["evaluations"] > 0
    if mode == "exact":
        exists |= trials["is_ours"]
    frame = frame[exists]
    order = ["row", "seconds", "trial"] if mode == "algoperf" else ["seconds", "trial"]
    best = frame.sort_values(order, kind="stable").drop_duplicates(STUDY)
    best = best.set_index(STUDY)[["seconds", "before", "step", "number"]].sort_index()
    if mode == "algoperf":
        return best
    # Another trial than the fastest may have taken fewer steps, or have been past the target unseen.
    best[["before", "step"]] = frame.groupby(STUDY)[["before", "step"]].min()
    return _with_missing_studies(best, trials, rules)


def _with_missing_studies(best: pd.DataFrame, trials: pd.DataFrame, rules: Ruleset) -> pd.DataFrame:
    """Add a miss for every study that should be there: `rules.studies` of them, or as many as the submission has.

    A workload of which a submission has no study at all stays absent: it was not run.
    """
    expected = {
        submission: _expected_studies(set(studies), rules.studies)
        for submission, studies in trials.groupby("submission")["study"].unique().items()
    }
    missing = []
    for (submission, workload), group in best.groupby(level=CELL):
        present = set(group.index.get_level_values("study"))
        lacking = [study for study in expected[submission] if study not in present]
        count = (rules.studies or len(expected[submission])) - len(present)
        missing += [(submission, workload, study) for study in lacking[: max(count, 0)]]
    if not missing:
        return best
    miss = {"seconds": math.inf, "before": math.inf, "step": math.inf, "number": -1}
    added = pd.DataFrame(miss, index=pd.MultiIndex.from_tuples(missing, names=STUDY))
    return pd.concat([best, added]).sort_index()


def _expected_studies(known: set[int], studies: int | None) -> list[int]:
    """The numbers of the studies that a submission should have: those it has, then the lowest free ones."""
    free = (study for study in itertools.count() if study not in known)
    return sorted(known) + list(itertools.islice(free, max((studies or 0) - len(known), 0)))


def workload_times(studies: pd.DataFrame, column: str = "seconds") -> pd.DataFrame:
    """The median over studies: a row a submission, a column a workload, NaN where nothing was run.

    Infinity takes part; of an even number of studies the two in the middle are averaged.
    """
    return studies[column].groupby(level=CELL).median().unstack("workload")
