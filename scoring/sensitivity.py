"""What a score hangs on: who else takes part, which workloads there are, where the profile ends."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from timetrial.scoring.leaderboard import Leaderboard

TAUS = (1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)


def leave_one_workload_out(board: Leaderboard) -> pd.DataFrame:
    """Scores without each base workload: a row a submission, a column the workload that is left out."""
    ratio = board.scoring.ratios(board.times.to_numpy())
    names = board.eligible.columns
    if len(names) < 2:
        return pd.DataFrame(index=board.times.index)
    columns = [board.scoring.scores(np.delete(ratio, place, axis=-1)) for place in range(len(names))]
    return pd.DataFrame(np.stack(columns, axis=1), index=board.times.index, columns=names)


def leave_one_submission_out(board: Leaderboard) -> pd.DataFrame:
    """Scores of the others without each submission: a row a submission, a column the one that is left out."""
    names = board.times.index
    times = board.times.to_numpy()
    table = np.full((len(names), len(names)), np.nan)
    for place in range(len(names) if len(names) > 1 else 0):
        others = np.delete(np.arange(len(names)), place)
        ratio = board.scoring.ratios(times[others])
        table[others, place] = board.scoring.scores(ratio)
    return pd.DataFrame(table, index=names, columns=names)


def tau_sensitivity(board: Leaderboard, taus: Sequence[float] = TAUS) -> pd.DataFrame:
    """Scores for other upper ends of the profile, which also say how far behind a held-out time may be."""
    times = board.times.to_numpy()
    columns = {}
    for tau in sorted({*taus, board.rules.tau_max}):
        scoring = replace(board.scoring, rules=replace(board.rules, tau_max=tau))
        columns[tau] = scoring.scores(scoring.ratios(times))
    return pd.DataFrame(columns, index=board.times.index).rename_axis(columns="tau_max")


def reversals(table: pd.DataFrame, scores: pd.Series) -> pd.Series:
    """For each column, the pairs of submissions that it ranks the other way round than `scores`, as text.

    A pair is "b over a": b is ahead there, a is ahead in `scores`. Ties are no reversal.
    """
    texts = {}
    for column in table.columns:
        values = table[column]
        pairs = [
            f"{behind} over {ahead}"
            for place, ahead in enumerate(scores.index)
            for behind in scores.index[place + 1 :]
            if scores[ahead] > scores[behind] and values[behind] > values[ahead]
        ]
        texts[column] = ", ".join(pairs)
    return pd.Series(texts, dtype=object)
