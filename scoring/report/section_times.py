"""The time of every submission on every workload, and why there is none."""

import math

from timetrial.scoring.analysis import Analysis
from timetrial.scoring.leaderboard import HELD_OUT_MISSED, TOO_SLOW, Leaderboard
from timetrial.scoring.other_scores import study_counts
from timetrial.scoring.report.markup import MISSING, Html, html, join, listed, name, note, paragraph
from timetrial.scoring.report.tables import Column, table
from timetrial.scoring.terminal import format_seconds

_SIGNS = {HELD_OUT_MISSED: "†", TOO_SLOW: "‡"}


def times(analysis: Analysis) -> Html:
    board = analysis.board
    counts = study_counts(board)
    columns = [Column("Workload", "name"), *map(Column, board.times.index)]
    rows = []
    for workload in board.times.columns:
        cells = list(zip(board.times[workload], board.reasons[workload], counts[workload], strict=True))
        best = min((seconds for seconds, reason, _ in cells if not reason), default=math.nan)
        rows.append(
            [Html(f"{name(workload)}<small>{name(target_of(board, workload))}</small>")]
            + [_cell(seconds, reason, count, seconds == best) for seconds, reason, count in cells]
        )
    return join(
        [
            paragraph(
                "A workload is a model with its data and a target for its validation metric. Times are seconds of "
                "submission time, the time that is charged to the algorithm: of each study the best trial, then the "
                "median over studies. Below each workload is its target.",
                "Below each time: studies that reached the target, of how many.",
                "The fastest time that counts is bold.",
            ),
            table(columns, rows),
            _notes(board),
        ]
    )


def target_of(board: Leaderboard, workload: str) -> str:
    """Such as "accuracy ≥ 0.77"."""
    goal = board.field.goals[workload]
    return f"{goal.metric.name} {'≥' if goal.metric.better == 'higher' else '≤'} {goal.target:g}"


def _cell(seconds: float, reason: str, count: str, is_best: bool) -> Html:
    below = Html(f"<small>{html(count)}</small>") if count != MISSING else Html()
    if not reason:
        text = format_seconds(seconds)
        return Html(f"<b>{text}</b>{below}") if is_best else Html(f"{text}{below}")
    shown = (
        f"{format_seconds(seconds)}\N{NO-BREAK SPACE}{_SIGNS[reason]}" if math.isfinite(seconds) else reason
    )
    return Html(f'<span class="miss">{html(shown)}</span>{below}')


def _notes(board: Leaderboard) -> Html:
    shown = set(board.reasons.to_numpy().ravel())
    held_out = [variant for names in board.scoring.held_out.values() for variant in names]
    return note(
        *(f"{sign} does not count: {reason}." for reason, sign in _SIGNS.items() if reason in shown),
        "Held-out workloads are variants that must be reached too, or the workload they vary does not count: "
        f"{listed(held_out)}."
        if held_out
        else "",
    )
