"""The report: one HTML file with everything in it, readable without a network, on a phone and in the dark.

It is a pure function of the leaderboard: the same logs give the same bytes.
"""

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from timetrial.engine.errors import UsageError
from timetrial.scoring.leaderboard import HELD_OUT_MISSED, TOO_SLOW, Leaderboard
from timetrial.scoring.ledger_parts import PARTS
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


def write_report(board: Leaderboard, path: Path) -> None:
    """Write the report. Raises UsageError if matplotlib (the extra `report`) is not installed."""
    page = render(board)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(page, encoding="utf-8")
    os.replace(temporary, path)


def render(board: Leaderboard) -> str:
    """The report as a string."""
    try:
        from timetrial.scoring import plots  # matplotlib loads slowly and is an extra: only a report needs it
    except ModuleNotFoundError as error:
        raise UsageError(f"a report needs {error.name}; install timetrial[report]") from error
    styles = plots.looks(board.scores.index)
    curves = "\n".join(
        f"<figure><h3>{escape(name)}</h3>{plots.curve_svg(board, name, styles)}</figure>"
        for name in board.goals
    )
    files = resources.files("timetrial.scoring")
    return Template(files.joinpath("report.html").read_text(encoding="utf-8")).substitute(
        title="Timetrial report",
        style=files.joinpath("report.css").read_text(encoding="utf-8"),
        summary=_summary(board),
        facts=_facts(board),
        leaderboard=_leaderboard(board),
        score_note=_SCORE_NOTES[board.mode],
        times=_times(board),
        times_note=_times_note(board),
        profile_keys=_keys(plots.legend_svgs(styles, "profile")),
        curve_keys=_keys(plots.legend_svgs(styles, "curve")),
        profile=plots.profile_svg(board, styles),
        curves=curves,
        ledger=_ledger(board),
        trials=_trials(board),
        problems=_problems(board),
    )


_SCORE_NOTES = {
    "exact": "Exact mode: the fastest trial of every study counts, and the profile is integrated in closed "
    "form. Scores hold within this group only: they change with who takes part.",
    "algoperf": "AlgoPerf mode: computed as the published leaderboards were (of a study, the trial with the "
    "smallest evaluation number; a grid of 100 points). Scores hold within this group only.",
}


def _summary(board: Leaderboard) -> str:
    count = len(board.eligible.columns)
    return (
        f"{_counted(len(board.scores), 'submission')}, {_counted(count, 'scored workload')}, "
        f"{_counted(len(board.trials), 'trial')}. Rules {escape(board.rules.name)}, mode {board.mode}."
    )


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _facts(board: Leaderboard) -> str:
    """Machine and versions; submissions that share them share a line."""
    items = []
    for column, label in (("machine", "Machine"), ("versions", "Versions")):
        sharing: dict[str, list[str]] = {}
        for name, text in board.machines[column].items():
            sharing.setdefault(text or "not recorded", []).append(str(name))
        for text, names in sharing.items():
            items.append((label, text if len(sharing) == 1 else f"{text} ({', '.join(names)})"))
    return _definitions(items)


def _definitions(items: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f"<dt>{escape(label)}</dt><dd>{escape(text)}</dd>" for label, text in items)
    return f'<dl class="facts">{rows}</dl>'


def _keys(samples: Mapping[str, str]) -> str:
    items = "".join(f"<li>{svg}{escape(name)}</li>" for name, svg in samples.items())
    return f'<ul class="keys">{items}</ul>'


def _leaderboard(board: Leaderboard) -> str:
    rows = []
    for name, rank, score, reached, trials in board.scores[
        ["rank", "score", "reached", "trials"]
    ].itertuples():
        bar = f'<span class="score"><i style="width:{100 * score:.2f}%"></i></span>'
        rows.append([str(rank), _text(name), f"{score:.4f}", bar, f"{reached}/{trials}"])
    return _table(["#", "Submission", "Score", "", "At target"], rows, text={1, 3})


def _times(board: Leaderboard) -> str:
    header = ["Workload", "Target", *(_text(name) for name in board.times.index)]
    rows = []
    for workload in board.times.columns:
        goal = board.goals[str(workload)]
        sign = "≥" if goal.metric.better == "higher" else "≤"
        cells = list(zip(board.times[workload], board.reasons[workload], strict=True))
        best = min((seconds for seconds, reason in cells if not reason), default=math.nan)
        rows.append(
            [_text(workload), f"{_text(goal.metric.name)} {sign} {goal.target:g}"]
            + [_time_cell(seconds, reason, seconds == best) for seconds, reason in cells]
        )
    return _table(header, rows, text={0, 1})


def _time_cell(seconds: float, reason: str, is_best: bool) -> str:
    if not reason:
        return f'<span class="best">{format_seconds(seconds)}</span>' if is_best else format_seconds(seconds)
    if math.isfinite(seconds):
        sign = "†" if reason == HELD_OUT_MISSED else "‡"
        return f'<span class="miss" title="{escape(reason)}">{format_seconds(seconds)} {sign}</span>'
    return f'<span class="miss">- {escape(reason)}</span>'


def _times_note(board: Leaderboard) -> str:
    shown = set(board.reasons.to_numpy().ravel())
    notes = [
        f"{sign} does not count: {reason}."
        for sign, reason in (("†", HELD_OUT_MISSED), ("‡", TOO_SLOW))
        if reason in shown
    ]
    return f'<p class="note">{" ".join(notes)}</p>' if notes else ""


def _ledger(board: Leaderboard) -> str:
    """Every trial's wall time as one bar; all bars share a scale."""
    if board.ledger.empty:
        return '<p class="soft">These logs hold no ledger: only runs made by Timetrial do.</p>'
    swatches = "".join(
        f'<li><span class="swatch {part}"></span>{escape(_PART_NAMES[part])}</li>' for part in PARTS
    )
    longest = max(int(board.ledger.sum(axis="columns").max()), 1)
    bars = []
    for trial, parts in _ledger_rows(board):
        wall = sum(parts.values())
        label = f"{trial['submission']} · {trial['workload']} · {trial['study']}/{trial['trial']}"
        segments = "".join(
            f'<span class="{part}" data-ns="{ns}" style="width:{100 * ns / longest:.4f}%" '
            f'title="{escape(_PART_NAMES[part])}: {format_seconds(ns / 1e9)} s"></span>'
            for part, ns in parts.items()
            if ns
        )
        bars.append(
            f'<div class="trial" data-wall-ns="{wall}"><span>{escape(label)}</span>'
            f'<div class="bar">{segments}</div><span class="wall">{format_seconds(wall / 1e9)} s</span></div>'
        )
    return (
        '<p class="soft">Wall time of every trial (submission · workload · study/trial), one bar each. Only '
        f'the parts named submission are charged.</p><ul class="keys">{swatches}</ul>'
        + _folded(len(bars), "trials", "\n".join(bars))
        + _folded(_OPEN_ROWS + 1, "Seconds of every part, as a table", _ledger_table(board), count=False)
    )


def _ledger_rows(board: Leaderboard) -> Iterator[tuple[dict[str, Any], dict[str, int]]]:
    """The row of `trials` and the nanoseconds by part of every trial that has a ledger."""
    trials = board.trials.to_dict("records")
    for number, parts in zip(board.ledger.index.tolist(), board.ledger.to_dict("records"), strict=True):
        yield (
            {str(key): value for key, value in trials[number].items()},
            {str(part): int(ns) for part, ns in parts.items()},
        )


def _ledger_table(board: Leaderboard) -> str:
    header = ["Submission", "Workload", "Study", "Trial", *(_PART_NAMES[part] for part in PARTS), "wall"]
    rows = []
    for trial, parts in _ledger_rows(board):
        rows.append(
            [_text(trial[key]) for key in ("submission", "workload", "study", "trial")]
            + [f"{ns / 1e9:,.3f}" for ns in (*parts.values(), sum(parts.values()))]
        )
    return _table(header, rows, text={0, 1})


def _trials(board: Leaderboard) -> str:
    header = ["Submission", "Workload", "Study/trial", "Status", "Seconds to target", "Best metric"]
    rows = [
        [
            _text(row["submission"]),
            _text(row["workload"]),
            f"{row['study']}/{row['trial']}",
            _text(row["status"]),
            format_seconds(row["seconds"]) if row["row"] >= 0 else "-",
            "-" if math.isnan(row["best"]) else f"{row['best']:.6g}",
            str(row["evaluations"]),
            _text(", ".join(filter(None, ["unofficial" if row["official"] is False else "", row["flags"]]))),
            _text(row["reason"]),
        ]
        for row in board.trials.to_dict("records")
    ]
    header += ["Evaluations", "Flags", "Reason"]
    return _folded(len(rows), "trials", _table(header, rows, text={0, 1, 3, 7, 8}))


def _problems(board: Leaderboard) -> str:
    if not board.problems:
        return ""
    rows = [[_text(problem.file), _text(problem.message)] for problem in board.problems]
    table = _table(["File", "Problem"], rows, text={0, 1}, wrap={1})
    return f'<section id="problems"><h2>Problems in the logs</h2>{table}</section>'


def _folded(rows: int, noun: str, content: str, count: bool = True) -> str:
    """The content, behind a line to open it where it is long."""
    if rows <= _OPEN_ROWS:
        return content
    label = f"Show {rows:,} {noun}" if count else noun
    return f"<details><summary>{label}</summary>{content}</details>"


def _table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    text: set[int],
    wrap: frozenset[int] | set[int] = frozenset(),
) -> str:
    """A table of finished cells; columns in `text` are aligned left, those in `wrap` may break lines."""
    names = {
        column: " ".join(name for name, members in (("text", text), ("wrap", wrap)) if column in members)
        for column in range(len(header))
    }

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(
            f'<{tag} class="{names[column]}">{cell}</{tag}>' if names[column] else f"<{tag}>{cell}</{tag}>"
            for column, cell in enumerate(row)
        )

    body = "\n".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    head = f"<thead><tr>{cells('th', header)}</tr></thead>"
    return f'<div class="scroll"><table>{head}<tbody>\n{body}\n</tbody></table></div>'


def _text(value: object) -> str:
    return escape(str(value))
