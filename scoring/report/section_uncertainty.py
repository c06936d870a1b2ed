"""How sure the leaderboard is: probabilities of ranks, pairs, and three kinds of interval side by side."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from timetrial.scoring.analysis import Analysis
from timetrial.scoring.report.markup import Html, figure, figures, heading, join, listed, note, paragraph
from timetrial.scoring.report.ranges import Range, between, whisker_plot
from timetrial.scoring.report.tables import Column, shaded_table, table
from timetrial.scoring.resampling import Bootstrap

_LABELS = {
    "studies": "studies drawn again",
    "workloads": "studies and workloads drawn again",
    "cadence": "what evaluations leave open",
}


def uncertainty(analysis: Analysis) -> Html:
    return join(
        [
            paragraph(
                "A score is measured once, from few repetitions on few workloads. Resampling asks what else it could "
                "have been: it draws the studies, or studies and workloads, again with replacement and scores the "
                "result, many times."
            ),
            _probabilities(analysis),
            heading("Three intervals of each score"),
            _intervals(analysis),
        ]
    )


def _probabilities(analysis: Analysis) -> Html:
    """Ranks and pairs as shaded tables, over studies where there is more than one."""
    studies, workloads = analysis.over_studies, analysis.over_workloads
    if studies is None or workloads is None:
        return paragraph("No resamples were asked for, so there are no probabilities.")
    single = studies.intervals["low"].isna()
    alone = bool(single.all())
    first = (
        paragraph("No submission has more than one study, so only the workloads can be drawn again.")
        if alone
        else ""
    )
    sources = (
        [("workloads", workloads)] if alone else [("studies", studies), ("studies and workloads", workloads)]
    )
    tables = [
        figure(f"Chance of each rank, {what} drawn again, percent", _ranks(source))
        for what, source in sources
    ]
    source = workloads if alone else studies
    if len(source.faster) > 1:
        tables += [
            figure("Row faster than column on a workload drawn at random, percent", _pairs(source.faster)),
            figure("Row's score above column's, percent", _pairs(source.outscores)),
        ]
    return join(
        [
            first,
            figures(tables, "heats"),
            note(
                f"{source.resamples:,} resamples. Equal scores share the better rank; of pairs, a tie counts half, and "
                "so does a workload that neither reached.",
                "With one submission there are no pairs." if len(source.faster) == 1 else "",
                f"With one study, and so nothing of its own to draw again: {listed(list(single[single].index))}."
                if single.any() and not alone
                else "",
            ),
        ]
    )


def _ranks(source: Bootstrap) -> Html:
    return shaded_table(source.rank_probability, "Submission")


def _pairs(shares: pd.DataFrame) -> Html:
    return shaded_table(shares.mask(np.eye(len(shares), dtype=bool)), "Row")


def _intervals(analysis: Analysis) -> Html:
    columns = [Column("Submission", "name"), Column("Score"), *map(Column, _LABELS.values())]
    rows = list(_ranges(analysis))
    cells = [
        [name, f"{score:.3f}", *(between(one.low, one.high) for one in ranges)]
        for name, score, ranges in rows
    ]
    return join(
        [
            paragraph(
                "Studies drawn again: had the same submissions been run again on the same workloads. Studies and "
                "workloads drawn again: had other workloads of their kind been chosen, too. What evaluations leave "
                "open: a target is only seen at the next evaluation, and these are the least and the greatest score "
                "that are possible, wherever between two evaluations the targets were reached."
            ),
            whisker_plot(rows, _LABELS),
            table(columns, cells),
            note(
                "The first two hold 95 % of the resamples' scores; the third are bounds. “-”: nothing to resample."
            ),
        ]
    )


def _ranges(analysis: Analysis) -> Iterator[tuple[str, float, list[Range]]]:
    nothing = pd.DataFrame({"low": np.nan, "high": np.nan}, index=analysis.board.scores.index)
    frames = {
        "studies": analysis.over_studies.intervals if analysis.over_studies else nothing,
        "workloads": analysis.over_workloads.intervals if analysis.over_workloads else nothing,
        "cadence": analysis.cadence,
    }
    scores = analysis.board.scores["score"]
    for submission, score in zip(map(str, scores.index), scores, strict=True):
        ranges = [
            Range(kind, float(frame["low"][submission]), float(frame["high"][submission]))
            for kind, frame in frames.items()
        ]
        yield submission, float(score), ranges
