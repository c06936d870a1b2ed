"""The leaderboard as a table for other programs and for papers: CSV, Markdown, LaTeX."""

import math
from collections.abc import Sequence

import pandas as pd
from tabulate import tabulate

from timetrial.scoring.analysis import Analysis
from timetrial.scoring.terminal import format_interval, format_probability, format_seconds


def leaderboard_table(analysis: Analysis) -> pd.DataFrame:
    """One row a submission, best first, at full precision.

    Columns: rank, score, low, high, rank_low, rank_high, p_first (NaN without resamples), cadence_low, cadence_high,
    reached, trials, speedup (geometric mean against `analysis.reference`), par2, step_score, then seconds by
    workload: infinite missed, NaN not run.
    """
    board, sample = analysis.board, analysis.over_studies
    order = board.scores.index
    table = board.scores[["rank", "score"]].copy()
    for name in ("low", "high", "rank_low", "rank_high"):
        table[name] = math.nan if sample is None else sample.intervals[name].reindex(order)
    table["p_first"] = math.nan if sample is None else sample.rank_probability[1].reindex(order)
    table["cadence_low"] = analysis.cadence["low"].reindex(order)
    table["cadence_high"] = analysis.cadence["high"].reindex(order)
    table[["reached", "trials"]] = board.scores[["reached", "trials"]]
    table["speedup"] = analysis.speedups["geometric_mean"].reindex(order)
    table["par2"] = analysis.penalised["mean"].reindex(order)
    table["step_score"] = analysis.step_scores["score"].reindex(order)
    return table.join(board.times.loc[order])


def csv_text(analysis: Analysis) -> str:
    """`leaderboard_table` as CSV."""
    return leaderboard_table(analysis).to_csv(lineterminator="\n")


def markdown_text(analysis: Analysis) -> str:
    """Scores, and times by workload, as two Markdown tables."""
    frames = [frame.map(_escaped).rename(columns=_escaped) for frame in _for_people(analysis)]
    return _tabulated(frames, "github")


def latex_text(analysis: Analysis) -> str:
    """The same as two LaTeX tabulars; they need the package booktabs."""
    return _tabulated(_for_people(analysis), "latex_booktabs")


def _tabulated(frames: Sequence[pd.DataFrame], kind: str) -> str:
    tables = [
        tabulate(frame, headers="keys", tablefmt=kind, showindex=False, disable_numparse=True)
        for frame in frames
    ]
    return "\n\n".join(tables) + "\n"


def _for_people(analysis: Analysis) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores by submission and times by workload, as text."""
    table, board = leaderboard_table(analysis), analysis.board
    scores = pd.DataFrame({"#": table["rank"].astype(str), "Submission": table.index.astype(str)})
    scores["Score"] = table["score"].map("{:.4f}".format)
    if analysis.over_studies is not None:
        ends = zip(table["low"], table["high"], strict=True)
        scores["95 %"] = [format_interval(low, high) for low, high in ends]
        first = zip(table["p_first"], table["low"].notna(), strict=True)
        scores["First"] = [format_probability(share) if known else "-" for share, known in first]
    reached = zip(table["reached"], table["trials"], strict=True)
    scores["Trials at target"] = [f"{hit}/{trials}" for hit, trials in reached]
    times = pd.DataFrame({"Workload": board.times.columns.astype(str)})
    for submission in board.times.index:
        cells = zip(board.times.loc[submission], board.reasons.loc[submission], strict=True)
        times[str(submission)] = [
            reason
            if not math.isfinite(seconds)
            else f"{format_seconds(seconds)} ({reason})"
            if reason
            else format_seconds(seconds)
            for seconds, reason in cells
        ]
    return scores, times


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
