"""Other ways to say how fast: speed-ups, penalised times, steps to the target.

None of them decides the leaderboard. Times are those of base workloads, as measured: held-out rules do not touch them.
"""

import math
from dataclasses import replace

import numpy as np
import pandas as pd

from timetrial.engine.errors import UsageError
from timetrial.scoring.leaderboard import Leaderboard
from timetrial.scoring.score import ranks
from timetrial.scoring.time_to_target import CELL, workload_times

PAR = 2.0  # the customary penalty: a miss counts as twice the budget


def speedups(board: Leaderboard, reference: str | None = None, k: float = 1.0) -> pd.DataFrame:
    """How many times as fast as a reference submission: t_reference / t by workload, and their geometric mean.

    Over 1 is faster than the reference (`speedup_reference`). A miss is taken as `k` times the budget, so that a
    speed-up against it is a bound; a workload that neither reached, or whose budget is not known, is NaN and left out
    of the mean.

    A row a submission; columns: the base workloads and geometric_mean. Raises UsageError for an unknown reference.
    """
    reference = speedup_reference(board, reference)
    times = base_times(board)
    penalised = times.where(times < math.inf).fillna(k * budgets(board))
    ratio = penalised.loc[reference] / penalised
    both_missed = ~(times < math.inf) & ~(times.loc[reference] < math.inf)
    ratio = ratio.mask(both_missed)
    return ratio.assign(geometric_mean=np.exp(np.log(ratio).mean(axis=1)))


def speedup_reference(board: Leaderboard, name: str | None = None) -> str:
    """The submission to compare with: the one named, or else `baseline`, or else the lowest-ranked of those that
    reach most targets. UsageError if there is none of that name."""
    names = board.times.index
    if name is not None:
        if name not in names:
            raise UsageError(f"no submission {name!r} to compare with; there are {', '.join(names)}")
        return name
    if "baseline" in names:
        return "baseline"
    reached = (base_times(board) < math.inf).sum(axis="columns")
    return str(reached[reached == reached.max()].index[-1])


def penalised_times(board: Leaderboard, k: float = PAR) -> pd.DataFrame:
    """PAR-k: each time as a share of its budget, a miss as `k`, and the mean over workloads as column `mean`.

    From 0 (at once) to `k` (nothing reached); lower is better. Workloads whose budget is not known are NaN and left
    out of the mean.
    """
    times = base_times(board)
    limit = budgets(board)[times.columns]
    share = (times / limit).where(times < math.inf, k)
    share = share.where(limit.notna(), axis="columns")
    return share.assign(mean=share.mean(axis="columns"))


def steps_to_target(board: Leaderboard) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores made of steps instead of seconds, with columns rank and score, best first; and the steps themselves.

    Steps are comparable between submissions only as far as their batch sizes are. Rules, mode and medians are those
    of the leaderboard; a frozen reference, which is made of times, is not used.
    """
    steps = workload_times(board.studies, "step").reindex_like(board.times)
    if steps[board.eligible.columns].isna().to_numpy()[np.isfinite(board.eligible.to_numpy())].any():
        return pd.DataFrame({"rank": [], "score": []}), steps  # the logs do not tell steps
    scoring = replace(board.scoring, reference=None)
    score = scoring.scores(scoring.ratios(steps.to_numpy()))
    frame = pd.DataFrame({"rank": ranks(score), "score": score}, index=steps.index)
    return frame.sort_values("score", ascending=False, kind="stable"), steps


def base_times(board: Leaderboard) -> pd.DataFrame:
    """The times of the base workloads."""
    return board.times[board.eligible.columns]


def budgets(board: Leaderboard) -> pd.Series:
    """Seconds a trial may use, by workload: the largest that any run of the field had; NaN where unknown."""
    largest = board.trials.groupby("workload")["budget"].max()
    return largest.reindex(board.times.columns)


def study_counts(board: Leaderboard) -> pd.DataFrame:
    """How many studies of each submission and workload reached the target, of how many: text such as "4/5"."""
    reached = (board.studies["seconds"] < math.inf).groupby(level=CELL)
    text = reached.sum().astype(str) + "/" + reached.size().astype(str)
    table = text.unstack("workload").astype(object)
    table = table.reindex(index=board.times.index, columns=board.times.columns)
    return table.where(table.notna(), "-")
