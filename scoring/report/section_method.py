"""By what rules and on which machines all this was measured, so that it can be repeated."""

import pandas as pd

from timetrial.scoring.analysis import Analysis
from timetrial.scoring.report.markup import Html, counted, definitions, heading, join, listed, paragraph
from timetrial.scoring.report.tables import Column, table

_MODES = {
    "algoperf": "AlgoPerf mode: as AlgoPerf's own scorer counts them",
    "exact": "exact mode: as the written rules say",
}


def method(analysis: Analysis) -> Html:
    trials = analysis.board.trials
    parts = [
        definitions(_choices(analysis)),
        heading("Machines"),
        paragraph("Seconds of different machines are not to be compared."),
        _shared(trials, "machine", "Machine"),
        heading("Versions"),
        _shared(trials, "versions", "Versions"),
    ]
    if (trials["kernels"] != "").any():
        parts += [heading("Kernels"), _shared(trials, "kernels", "Used, and how")]
    return join(parts)


def _choices(analysis: Analysis) -> list[tuple[str, str]]:
    board, sure = analysis.board, analysis.over_studies
    rules = board.rules
    complete = [
        counted(count, noun, plural)
        for count, noun, plural in (
            (rules.studies, "study", "studies"),
            (rules.trials, "trial a study", "trials a study"),
        )
        if count is not None
    ]
    return [
        (
            "Rules",
            f"{rules.name}: {', '.join(complete)}" if complete else f"{rules.name}: any number of studies",
        ),
        ("Times", _MODES[board.mode]),
        ("Largest τ", f"{rules.tau_max:g}"),
        ("Base workloads", listed(list(board.eligible.columns))),
        (
            "Compared with",
            "the fastest of this group"
            if board.scoring.reference is None
            else "a frozen reference of best times",
        ),
        ("Resamples", "none" if sure is None else f"{sure.resamples:,}, seed {sure.seed}"),
    ]


def _shared(trials: pd.DataFrame, column: str, title: str) -> Html:
    """What is recorded, how many trials share it, and whose they are."""
    texts = trials[column].where(trials[column] != "", "not recorded")
    rows = [
        [text, f"{len(own):,}", ", ".join(own.unique())]
        for text, own in trials["submission"].groupby(texts, sort=False)
    ]
    rows.sort(key=lambda row: row[0] == "not recorded")
    return table([Column(title, "prose"), Column("Trials"), Column("Submissions", "prose")], rows)
