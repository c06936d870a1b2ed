"""The leaderboard: scores, how sure they are, ranks."""

import pandas as pd

from timetrial.scoring.analysis import Analysis
from timetrial.scoring.report.markup import MISSING, Html, counted, join, listed, note, paragraph
from timetrial.scoring.report.ranges import Range, between, score_bar
from timetrial.scoring.report.tables import Column, percent, table

_COLUMNS = [
    Column("#"),
    Column("Submission", "name"),
    Column("Score"),
    Column("95 % interval"),
    Column("From 0 to 1", "text"),
    Column("Ranks"),
    Column("First"),
    Column("Trials at target"),
]

_MODES = {
    "exact": "Times count in exact mode: the fastest trial of every study, if it reached the target before its "
    "budget was used up, and the average over τ is exact.",
    "algoperf": "Times count in AlgoPerf mode, as published leaderboards were computed: of a study, the trial that "
    "needed the smallest number of evaluations, and the average over τ on a grid of 100 points.",
}


def leaderboard(analysis: Analysis) -> Html:
    board, sure = analysis.board, analysis.over_studies
    rows = []
    for submission, rank, score, reached, trials in board.scores[
        ["rank", "score", "reached", "trials"]
    ].itertuples():
        known = sure is not None and bool(sure.intervals["low"].notna()[submission])
        low, high, ranks, first = float("nan"), float("nan"), MISSING, MISSING
        if sure is not None and known:
            own = sure.intervals.loc[submission]
            low, high = float(own["low"]), float(own["high"])
            ranks = _ranks(int(own["rank_low"]), int(own["rank_high"]))
            first = f"{percent(sure.rank_probability[1][submission])} %"
        bar = score_bar(score, Range("studies", low, high))
        interval = between(low, high)
        rows.append([rank, submission, f"{score:.4f}", interval, bar, ranks, first, f"{reached}/{trials}"])
    against = "the fastest submission" if board.scoring.reference is None else "a frozen reference"
    return join(
        [
            paragraph(
                "A submission is a training algorithm. Its score is the share of workloads on which it reaches the "
                f"target within τ times the time of {against}, averaged over τ from 1 to {board.rules.tau_max:g}: 1 is "
                "fastest everywhere, 0 is never close enough.",
                "Scores hold within this group: they change with who takes part."
                if board.scoring.reference is None
                else "Scores do not depend on who else takes part.",
            ),
            table(_COLUMNS, rows),
            note(*_uncertainty(analysis)),
            note(_MODES[board.mode], "Trials at target: how many single runs reached it, of how many."),
        ]
    )


def _ranks(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}\N{EN DASH}{high}"


def _uncertainty(analysis: Analysis) -> list[str]:
    """What interval, ranks and probability mean, or why there are none."""
    sure = analysis.over_studies
    if sure is None:
        return ["There are no intervals, because no resamples were asked for."]
    missing = sure.intervals["low"].isna()
    if missing.all():
        return [
            "There are no intervals: no submission has more than one study, so there is nothing to resample."
        ]
    return [
        "95 % interval, also the whisker on the bar: a study is one repetition of everything; every submission's "
        f"studies are drawn again with replacement, {sure.resamples:,} times, and 95 % of the scores lie there.",
        "Ranks: where 95 % of its ranks lie. First: how often it came first, alone or not.",
        f"Resampling {_studies(sure.intervals['studies'])} never sees a time that was not measured: the true "
        "uncertainty is larger.",
        f"No interval for {listed(list(missing[missing].index))}: with one study there is nothing to resample."
        if missing.any()
        else "",
    ]


def _studies(studies: pd.Series) -> str:
    least, most = int(studies.min()), int(studies.max())
    return counted(most, "study", "studies") if least == most else f"{least} to {most} studies"
