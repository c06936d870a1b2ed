"""Every trial's ledger as one bar, and as a table. Only runs of Timetrial have ledgers."""

from collections.abc import Iterator
from typing import Any

from timetrial.scoring.leaderboard import Leaderboard
from timetrial.scoring.ledger_parts import PARTS
from timetrial.scoring.report.bars import bar, bar_legend, segment
from timetrial.scoring.report.markup import Html, folded, join, paragraph
from timetrial.scoring.report.tables import Column, table
from timetrial.scoring.terminal import format_seconds

_OPEN_ROWS = 60  # longer lists start folded

_PART_NAMES = {
    "setup": "setup",
    "data_wait": "submission: waiting for data",
    "update": "submission: update",
    "drain": "submission: drain",
    "first_call": "submission: first call (compilation)",
    "other": "submission: other",
    "snapshot": "snapshot",
    "evaluation": "evaluation",
    "checkpoint": "checkpoint",
    "logging": "logging",
}


def ledger_bars(board: Leaderboard) -> Html:
    """All bars share a scale; the widths of a bar's parts, in nanoseconds, add up to its wall time."""
    ledger = board.field.ledger
    if ledger.empty:
        return paragraph("These logs hold no ledger: only runs made by Timetrial do.")
    longest = max(int(ledger.sum(axis="columns").max()), 1)
    bars = [_bar(trial, parts, longest) for trial, parts in _rows(board)]
    content = join(bars, "\n")
    return join(
        [
            paragraph(
                "A ledger holds every nanosecond of a trial. Wall time of every trial (submission · workload · "
                "study/trial), one bar each. Only the parts named submission are charged."
            ),
            bar_legend({part: _PART_NAMES[part] for part in PARTS}),
            content if len(bars) <= _OPEN_ROWS else folded(f"Show {len(bars):,} trials", content),
            folded("Seconds of every part, as a table", _table(board)),
        ]
    )


def _bar(trial: dict[str, Any], parts: dict[str, int], longest: int) -> Html:
    wall = sum(parts.values())
    label = f"{trial['submission']} · {trial['workload']} · {trial['study']}/{trial['trial']}"
    segments = [
        segment(part, ns / longest, f"{_PART_NAMES[part]}: {format_seconds(ns / 1e9)} s", f' data-ns="{ns}"')
        for part, ns in parts.items()
        if ns
    ]
    return bar(label, segments, f"{format_seconds(wall / 1e9)} s", f' data-wall-ns="{wall}"')


def _rows(board: Leaderboard) -> Iterator[tuple[dict[str, Any], dict[str, int]]]:
    """The row of `trials` and the nanoseconds by part of every trial that has a ledger."""
    ledger = board.field.ledger
    trials = board.trials.to_dict("records")
    for number, parts in zip(ledger.index.tolist(), ledger.to_dict("records"), strict=True):
        yield (
            {str(key): value for key, value in trials[number].items()},
            {str(part): int(ns) for part, ns in parts.items()},
        )


def _table(board: Leaderboard) -> Html:
    columns = [
        Column("Submission", "name"),
        Column("Workload", "text"),
        Column("Study/trial"),
        *(Column(_PART_NAMES[part]) for part in PARTS),
        Column("wall"),
    ]
    rows = [
        [trial["submission"], trial["workload"], f"{trial['study']}/{trial['trial']}"]
        + [f"{ns / 1e9:,.3f}" for ns in (*parts.values(), sum(parts.values()))]
        for trial, parts in _rows(board)
    ]
    return table(columns, rows)
