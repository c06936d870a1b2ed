"""Where the time of the machines went, by submission, and by trial where there is a ledger."""

import pandas as pd

from timetrial.scoring.analysis import Analysis
from timetrial.scoring.report.bars import bar, bar_legend, segment
from timetrial.scoring.report.ledger_bars import ledger_bars
from timetrial.scoring.report.markup import MISSING, Html, counted, heading, join, note, paragraph
from timetrial.scoring.report.tables import Column, percent, table
from timetrial.scoring.terminal import format_seconds

_COLUMNS = {
    "end_seconds": ("submission", "submission (charged)"),
    "evaluation_seconds": ("evaluation", "evaluation"),
    "logging_seconds": ("logging", "logging and checkpoints"),
    "other_seconds": ("setup", "everything else"),
}
_HOURS_FROM = 7200.0  # seconds of the longest bar


def node_time(analysis: Analysis) -> Html:
    return join([_by_submission(analysis), heading("Every trial's ledger"), ledger_bars(analysis.board)])


def _by_submission(analysis: Analysis) -> Html:
    """Totals over all trials. What no trial of a submission recorded is NaN, not zero."""
    order = analysis.board.scores.index
    trials = analysis.board.trials
    totals = trials.groupby("submission")[list(_COLUMNS)].sum(min_count=1).loc[order]
    recorded = trials.groupby("submission")[list(_COLUMNS)].count().loc[order]
    longest = max(float(totals.sum(axis="columns").max()), 1e-9)
    bars = [_bar(str(name), parts, longest) for name, parts in totals.iterrows()]
    columns = [
        Column("Submission", "name"),
        *(Column(text) for _, text in _COLUMNS.values()),
        Column("together"),
    ]
    rows = [[name, *_cells(parts, longest)] for name, parts in totals.iterrows()]
    return join(
        [
            paragraph(
                "Machine time of all trials of a submission. Only submission time is charged and scored; evaluating, "
                "logging and the rest (such as set-up) are not. Submission time is counted up to each trial's last "
                "evaluation."
            ),
            bar_legend(dict(_COLUMNS.values())),
            join(bars, "\n"),
            table(columns, rows),
            note(_not_recorded(recorded, trials.groupby("submission").size())),
        ]
    )


def _bar(submission: str, parts: pd.Series, longest: float) -> Html:
    segments = [
        segment(css, parts[column] / longest, f"{text}: {_duration(parts[column], longest)}")
        for column, (css, text) in _COLUMNS.items()
        if parts[column] > 0
    ]
    return bar(submission, segments, _duration(parts.sum(), longest) if segments else "not recorded")


def _cells(parts: pd.Series, longest: float) -> list[Html | str]:
    total = parts.sum()
    shares: list[Html | str] = [
        Html(f"{_duration(seconds, longest)}<small>{percent(seconds / total) if total else 0} %</small>")
        if seconds == seconds
        else MISSING
        for seconds in parts
    ]
    return [*shares, _duration(total, longest) if parts.notna().any() else MISSING]


def _duration(seconds: float, longest: float) -> str:
    """In one unit for all: hours where the longest total has some."""
    return f"{seconds / 3600:,.1f} h" if longest >= _HOURS_FROM else f"{format_seconds(seconds)} s"


def _not_recorded(recorded: pd.DataFrame, trials: pd.Series) -> str:
    """Who has trials whose logs do not tell, and how many."""
    lacking = trials - recorded.min(axis="columns")
    lacking = lacking[lacking > 0]
    if lacking.empty:
        return ""
    texts = [f"{name} {counted(int(count), 'trial')}" for name, count in lacking.items()]
    return (
        f"Not recorded, and counted as none, such as of trials that were never evaluated: {', '.join(texts)}."
    )
