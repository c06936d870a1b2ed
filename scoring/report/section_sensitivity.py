"""What the scores hang on: single workloads, single submissions, the end of the profile."""

import numpy as np
import pandas as pd

from timetrial.scoring.analysis import Analysis
from timetrial.scoring.report.looks import legend, looks
from timetrial.scoring.report.markup import MISSING, Html, figure, heading, html, join, listed, paragraph
from timetrial.scoring.report.plot_lines import lines_svg
from timetrial.scoring.report.tables import Column, table
from timetrial.scoring.score import ranks
from timetrial.scoring.sensitivity import reversals


def sensitivity(analysis: Analysis) -> Html:
    return join(
        [
            paragraph(
                "The same times, scored under other circumstances. Below each score is the rank; an arrow marks a "
                "rank that is better (▲) or worse (▼) than it would be with nothing changed."
            ),
            heading("Without one workload"),
            _without_workload(analysis),
            heading("Without one submission"),
            _without_submission(analysis),
            heading("With another τ"),
            _by_tau(analysis),
        ]
    )


def _without_workload(analysis: Analysis) -> Html:
    if analysis.without_workload.columns.empty:
        return paragraph("There is one workload, so none can be left out.")
    return join(
        [
            paragraph("A column is the leaderboard with that workload left out."),
            _scores(analysis.without_workload, analysis.board.scores["score"]),
            _reversals(analysis.without_workload, analysis.board.scores["score"], "Without"),
        ]
    )


def _without_submission(analysis: Analysis) -> Html:
    if len(analysis.without_submission) < 2:
        return paragraph("There is one submission, so none can be left out.")
    return join(
        [
            paragraph(
                "A column is the leaderboard of the others. Scores change because the fastest time of a workload, to "
                "which all compare, may go with the submission."
            ),
            _scores(analysis.without_submission, analysis.board.scores["score"]),
            _reversals(analysis.without_submission, analysis.board.scores["score"], "Without"),
        ]
    )


def _by_tau(analysis: Analysis) -> Html:
    styles = looks(analysis.board.scores.index)
    tau_max = analysis.board.rules.tau_max
    labels = ("largest τ", "score")
    scores = analysis.board.scores["score"]
    table_ = analysis.by_tau.rename(columns=lambda tau: f"{tau:g}")
    return join(
        [
            paragraph(
                f"The average over τ goes from 1 to {tau_max:g}. A smaller end rewards being the fastest, a larger one "
                "rewards reaching every target. Where there are held-out workloads, it also says how far behind the "
                "fastest a time may be to count at all."
            ),
            legend(styles, "tau"),
            figure(
                "Score by the largest τ",
                lines_svg(analysis.by_tau.T, styles, "tau", labels, steps=False),
                "single",
            ),
            _scores(table_, scores, is_among_them=True),
            _reversals(table_, scores, "Up to τ"),
        ]
    )


def _scores(table_: pd.DataFrame, scores: pd.Series, *, is_among_them: bool = False) -> Html:
    """Scores with their ranks, compared with the order of `scores` among those that the column has.

    `is_among_them`: one of the columns is `scores`, which else come first.
    """
    shown: dict[object, list[Html | str]] = {}
    for column in table_.columns:
        values = table_[column].to_numpy()
        there = ~np.isnan(values)
        place, usual = np.zeros(len(values), int), np.zeros(len(values), int)
        place[there], usual[there] = ranks(values[there]), ranks(scores.to_numpy()[there])
        shown[column] = [
            _score(*cell) if known else MISSING
            for *cell, known in zip(values.tolist(), place.tolist(), usual.tolist(), there, strict=True)
        ]
    if not is_among_them:
        usual = ranks(scores.to_numpy())
        first: list[Html | str] = [_score(*cell) for cell in zip(scores, usual, usual, strict=True)]
        shown = {"as it is": first, **shown}
    columns = [Column("Submission", "name"), *map(Column, shown)]
    return table(columns, zip(table_.index, *shown.values(), strict=True))


def _score(score: float, rank: int, usual: int) -> Html:
    arrow = " ▲" if rank < usual else " ▼" if rank > usual else ""
    css = ' class="moved"' if arrow else ""
    return Html(f"{score:.3f}<small{css}>{rank}{arrow}</small>")


def _reversals(table_: pd.DataFrame, scores: pd.Series, label: str) -> Html:
    """Which pairs change places where."""
    texts = reversals(table_, scores)
    changed = texts[texts != ""]
    if changed.empty:
        return paragraph("The order stays as it is everywhere.")
    rest = list(texts[texts == ""].index)
    columns = [Column(label, "name"), Column("Pairs that change places", "prose")]
    return join(
        [
            table(columns, changed.items()),
            paragraph(html(f"The order stays as it is: {label.lower()} {listed(rest)}.")) if rest else "",
        ]
    )
