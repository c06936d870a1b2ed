"""How sure the scores are: bootstrap over studies, and hierarchically over workloads, and what the cadence hides.

A resample draws, for every submission and workload, as many studies as there are, with replacement, and scores the
medians. With `workloads`, it then draws as many base workloads as there are: how the score would vary had other
workloads of their kind been chosen. With `within_cadence`, a study's time is drawn evenly between the evaluation
before the target and the one that saw it.

With few studies the bootstrap is a lower bound of the uncertainty: it never sees a time that was not measured.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from timetrial.scoring.leaderboard import Leaderboard
from timetrial.scoring.score import profile, ranks
from timetrial.scoring.time_to_target import CELL, workload_times

LEVEL = 0.95
ENDS = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]

_ELEMENTS_AT_ONCE = 400_000  # of the largest array: memory stays at a few megabytes whatever the resamples


@dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """What `resamples` resamples say, `workloads` drawn again or not. All is indexed by submission, best first.

    intervals         columns low, high (95 % of the score), rank_low, rank_high (95 % of the rank), studies (the
                      most of any workload; with one alone there is nothing to resample and the score's ends are NaN)
    rank_probability  columns 1, 2, ...: how often the submission has that rank; equal scores share the better one
    faster            row faster than column on a base workload drawn at random; a tie, as two misses, counts half
    outscores         the row's score above the column's; a tie counts half
    """

    resamples: int
    seed: int
    workloads: bool
    intervals: pd.DataFrame
    rank_probability: pd.DataFrame
    faster: pd.DataFrame
    outscores: pd.DataFrame


def bootstrap(
    board: Leaderboard,
    *,
    resamples: int = 10_000,
    seed: int = 0,
    workloads: bool = False,
    within_cadence: bool = False,
) -> Bootstrap:
    """Resample the field and score it, `resamples` times. The same seed gives the same result."""
    names = board.times.index
    scores = np.empty((resamples, len(names)))
    faster = np.zeros((len(names), len(names)))
    of_studies, of_workloads = np.random.default_rng(seed).spawn(2)
    first = 0
    for times in _resampled_times(board, resamples, of_studies, within_cadence):
        ratio = board.scoring.ratios(times)
        count = ratio.shape[-1]
        faster += _wins(-np.moveaxis(ratio, -1, 1).reshape(-1, len(names))) / (resamples * count)
        if workloads:
            places = of_workloads.integers(count, size=(len(ratio), 1, count))
            ratio = np.take_along_axis(ratio, places, axis=-1)
        scores[first : first + len(ratio)] = board.scoring.scores(ratio)
        first += len(ratio)
    return Bootstrap(
        resamples=resamples,
        seed=seed,
        workloads=workloads,
        intervals=_intervals(board, scores, workloads),
        rank_probability=_rank_probability(scores, names),
        faster=pd.DataFrame(faster, index=names, columns=names),
        outscores=_outscores(scores, names),
    )


def profile_bands(
    board: Leaderboard, taus: np.ndarray, *, resamples: int = 2_000, seed: int = 0
) -> dict[str, np.ndarray]:
    """By submission, the 95 % band of rho at each of `taus`, from resampled studies: shape (2, taus)."""
    generator = np.random.default_rng(seed)
    parts = [
        profile(board.scoring.ratios(times), taus).astype(np.float32)
        for times in _resampled_times(board, resamples, generator, within_cadence=False)
    ]
    bands = np.quantile(np.concatenate(parts), ENDS, axis=0)
    return {str(name): bands[:, number] for number, name in enumerate(board.times.index)}


def cadence_bounds(board: Leaderboard) -> pd.DataFrame:
    """Columns low and high by submission: what the score can be, wherever between two evaluations targets fell.

    A time that is better never lowers its own score and never raises another's. So a score is least where its own
    times are as recorded and all others as early as they can be, and greatest the other way round.
    """
    early = workload_times(board.studies, "before").reindex_like(board.times).to_numpy()
    late = board.times.to_numpy()
    count = len(late)
    own = np.eye(count, dtype=bool)[:, :, None]
    ends = {}
    for name, times in (("low", np.where(own, late, early)), ("high", np.where(own, early, late))):
        score = board.scoring.scores(board.scoring.ratios(times))
        ends[name] = score[np.arange(count), np.arange(count)]
    return pd.DataFrame(ends, index=board.times.index)


def _resampled_times(
    board: Leaderboard, resamples: int, generator: np.random.Generator, within_cadence: bool
) -> Iterator[np.ndarray]:
    """Times (some resamples, submissions, workloads) until all resamples are drawn; NaN where nothing was run."""
    submissions, workloads = board.times.index, board.times.columns
    cells = _cells(board)
    largest = max(
        len(submissions) * len(workloads) * max(late.shape[1] for _, _, late in cells.values()),
        len(submissions) ** 2 * len(workloads),
    )
    step = max(1, _ELEMENTS_AT_ONCE // largest)
    for first in range(0, resamples, step):
        count = min(step, resamples - first)
        times = np.full((count, len(submissions), len(workloads)), np.nan)
        for studies, (places, early, late) in cells.items():
            small = np.min_scalar_type(studies).type
            drawn = generator.integers(studies, size=(count, len(late), studies), dtype=small)
            low, high = (studies - 1) // 2, studies // 2
            if within_cadence:
                upper, lower = (np.take_along_axis(ends[None], drawn, axis=-1) for ends in (late, early))
                with np.errstate(invalid="ignore"):  # a miss stays one
                    within = lower + generator.random(upper.shape) * (upper - lower)
                values = np.sort(np.where(upper < np.inf, within, np.inf), axis=-1)
                middle = (values[..., low] + values[..., high]) / 2
            else:  # studies stand in order of their times, so that their places do to find the median
                drawn.sort(axis=-1)
                rows = np.arange(len(late))
                middle = (late[rows, drawn[..., low]] + late[rows, drawn[..., high]]) / 2
            times[:, places[0], places[1]] = middle
        yield times


_Cells = dict[int, tuple[tuple[np.ndarray, np.ndarray], np.ndarray, np.ndarray]]


def _cells(board: Leaderboard) -> _Cells:
    """By number of studies: where its cells are (rows, columns), and their `before` and `seconds`, (cells, studies).

    Studies stand in order of their seconds, so that their numbers do not matter.
    """
    rows: dict[int, list[tuple[int, int, np.ndarray, np.ndarray]]] = {}
    row_of = {name: row for row, name in enumerate(board.times.index)}
    column_of = {name: column for column, name in enumerate(board.times.columns)}
    frame = board.studies.sort_values(["seconds", "before"], kind="stable")
    for (submission, workload), group in frame.groupby(level=CELL):
        place = row_of[str(submission)], column_of[str(workload)]
        early, late = group["before"].to_numpy(), group["seconds"].to_numpy()
        rows.setdefault(len(group), []).append((*place, early, late))
    return {
        studies: (
            (np.array([row for row, *_ in group]), np.array([column for _, column, *_ in group])),
            np.stack([early for *_, early, _ in group]),
            np.stack([late for *_, late in group]),
        )
        for studies, group in sorted(rows.items())
    }


def _wins(values: np.ndarray) -> np.ndarray:
    """(count, n) -> (n, n): in how many rows the first is greater than the second; a tie counts half."""
    is_greater: np.ndarray = values[:, :, None] > values[:, None, :]
    greater = is_greater.sum(axis=0, dtype=np.int32)
    wins: np.ndarray = (len(values) + greater - greater.T) / 2
    return wins


def _intervals(board: Leaderboard, scores: np.ndarray, workloads: bool) -> pd.DataFrame:
    low, high = np.quantile(scores, ENDS, axis=0)
    rank_low, rank_high = np.quantile(ranks(scores), ENDS, axis=0, method="nearest")
    frame = pd.DataFrame(
        {"low": low, "high": high, "rank_low": rank_low, "rank_high": rank_high}, index=board.times.index
    )
    studies = board.studies.groupby(level=CELL).size().groupby(level="submission").max()
    frame["studies"] = studies.reindex(frame.index).fillna(0).astype(int)
    if not workloads:
        frame.loc[frame["studies"] < 2, ["low", "high"]] = np.nan
    return frame.astype({"rank_low": int, "rank_high": int})


def _outscores(scores: np.ndarray, names: pd.Index) -> pd.DataFrame:
    wins = np.zeros((len(names), len(names)))
    step = max(1, _ELEMENTS_AT_ONCE // wins.size)
    for first in range(0, len(scores), step):
        wins += _wins(scores[first : first + step])
    return pd.DataFrame(wins / len(scores), index=names, columns=names)


def _rank_probability(scores: np.ndarray, names: pd.Index) -> pd.DataFrame:
    count = len(names)
    cells = np.arange(count) * count + ranks(scores) - 1
    share = np.bincount(cells.ravel(), minlength=count * count).reshape(count, count) / len(scores)
    return pd.DataFrame(share, index=names, columns=range(1, count + 1))
