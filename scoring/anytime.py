"""Curves over the budget: how much a submission has reached by when, if it were stopped at any time."""

import numpy as np
import pandas as pd

from timetrial.scoring.leaderboard import Leaderboard
from timetrial.scoring.other_scores import budgets
from timetrial.scoring.time_to_target import CELL

POINTS = 101


def targets_by_budget(board: Leaderboard, points: int = POINTS) -> pd.DataFrame:
    """Share of studies at their target by share of the budget: a row for 0 to 1, a column a submission.

    Every base workload has the same weight; a study that is missing, or a workload not run, has reached nothing.
    A workload whose budget is not known is left out.
    """
    known = budgets(board)[board.eligible.columns].dropna()
    limits = {str(workload): float(seconds) for workload, seconds in known.items()}
    share = pd.Index(np.linspace(0.0, 1.0, points), name="budget share")
    curves = pd.DataFrame(0.0, index=share, columns=board.times.index)
    for (submission, workload), group in board.studies.groupby(level=CELL)["seconds"]:
        if (limit := limits.get(str(workload))) is not None:
            used = np.sort(group.to_numpy() / limit)
            reached = np.searchsorted(used, share.to_numpy(), side="right") / len(used)
            curves[str(submission)] += reached / len(limits)
    return curves


def best_so_far(board: Leaderboard, workload: str, points: int = POINTS) -> pd.DataFrame:
    """The metric if a study were stopped at any time: median over studies of the best value so far of its trials.

    A row for each of `points` times from 0 to the last evaluation of any trial, in seconds of each trial's own
    submission time; a column a submission; NaN before the first evaluation.
    """
    trials = board.trials[(board.trials["workload"] == workload) & (board.trials["evaluations"] > 0)]
    curves = board.field.curves[board.field.curves["trial"].isin(trials.index)]
    higher = board.field.goals[workload].metric.better == "higher"
    last = float(curves["seconds"].max()) if len(curves) else 0.0
    times = np.linspace(0.0, last, points)
    of_study: dict[tuple[str, int], np.ndarray] = {}
    better = np.fmax if higher else np.fmin
    studies = dict(zip(trials.index, zip(trials["submission"], trials["study"], strict=True), strict=True))
    for number, curve in curves.groupby("trial"):
        best = better.accumulate(np.concatenate([[np.nan], curve["value"].to_numpy()]))
        value = best[np.searchsorted(curve["seconds"].to_numpy(), times, side="right")]
        key = studies[int(str(number))]
        of_study[key] = better(of_study[key], value) if key in of_study else value
    columns = {}
    for submission in board.times.index:
        values = [value for (name, _), value in of_study.items() if name == submission]
        if values:
            stacked = np.where(np.isnan(values), -np.inf if higher else np.inf, values)
            median = np.median(stacked, axis=0)
            columns[submission] = np.where(np.isfinite(median), median, np.nan)
    return pd.DataFrame(columns, index=pd.Index(times, name="seconds"))
