"""From evaluations to seconds: one trial, then its study, then the workload.

Two modes. `algoperf` repeats what the AlgoPerf scorer computes, so that published scores come out to the last
printed digit: of a study's trials it takes the one that reaches the target at the smallest evaluation
*number*. `exact` follows the written rule: the trial that reaches it in the least *time*, provided the budget
was not used up by then.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import pandas as pd

from timetrial.scoring.rules import Goal

Mode = Literal["exact", "algoperf"]


class Crossing(NamedTuple):
    """Where a curve first reaches its goal; `row` is -1 and `seconds` infinite where it never does."""

    row: int
    seconds: float


NEVER = Crossing(-1, math.inf)


def first_crossing(seconds: Sequence[float], values: Sequence[float], goal: Goal) -> Crossing:
    """The first evaluation that reaches the goal: equality does, NaN does not; relapses do not matter."""
    for row, value in enumerate(values):
        if goal.reached(value):
            return Crossing(row, seconds[row])
    return NEVER


def study_times(trials: pd.DataFrame, mode: Mode) -> pd.Series:
    """Seconds of every study, indexed by (submission, workload, study).

    `trials` has columns submission, workload, study, row, seconds and counts. Trials that do not count are
    left out; a study in which none counts is absent, one in which none reaches the target is infinite.
    """
    order = ["row", "seconds"] if mode == "algoperf" else ["seconds"]
    counted = trials[trials["counts"]]
    # A miss has row -1: it must sort behind every hit.
    counted = counted.assign(row=counted["row"].where(counted["row"] >= 0, math.inf)).sort_values(order)
    study = ["submission", "workload", "study"]
    return counted.drop_duplicates(study).set_index(study)["seconds"].sort_index()


def median_times(studies: pd.Series) -> pd.DataFrame:
    """Median over the studies present: a row a submission, a column a workload, NaN where nothing was run.

    Infinity takes part; of an even number of studies the two in the middle are averaged.
    """
    return studies.groupby(level=["submission", "workload"]).median().unstack("workload")
