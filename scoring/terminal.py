"""The result as text, by rich: scores with their error bars, times, where the modes differ, health, problems."""

import math
import os
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from timetrial.scoring.analysis import Analysis
from timetrial.scoring.leaderboard import HELD_OUT_MISSED, TOO_SLOW, Leaderboard
from timetrial.scoring.problems import Problem

_RANK_STYLES = {1: "bold yellow", 2: "bold cyan", 3: "bold magenta"}
_CELL_PADDING = 3  # a border and a space on either side
_SIGNS = {"†": HELD_OUT_MISSED, "‡": TOO_SLOW}
_SIGN_OF = {reason: sign for sign, reason in _SIGNS.items()}

Column = tuple[str, list[Text]]


def show_leaderboard(analysis: Analysis, console: Console) -> None:
    """Print scores and median times; the fastest time that counts is bold, a miss is "-" with its reason."""
    board = analysis.board
    rank, names, *figures = _lead_columns(analysis)
    tables = _fitting([rank, names], [*figures, *_time_columns(board)], console.width)
    for number, columns in enumerate(tables):
        title = f"Leaderboard ({board.rules.name} rules, {board.mode} mode)" if number == 0 else None
        console.print(_table(columns, title))
    console.print(
        "Times are submission seconds to the validation target: the best trial of a study, the median over studies. "
        + (
            "Scores hold within this group only."
            if board.scoring.reference is None
            else "Scores are against frozen best times: they do not depend on who else takes part."
        ),
        style="dim",
    )
    for line in _uncertainty_notes(analysis):
        console.print(line, style="dim")
    reasons = set(board.reasons.to_numpy().ravel())
    for sign, reason in _SIGNS.items():
        if reason in reasons:
            console.print(f"{sign} does not count: {reason}", style="dim")


def show_mode_differences(analysis: Analysis, console: Console) -> None:
    """Print the times in which AlgoPerf's scorer and the written rules differ, with the reason."""
    scores, cells = analysis.mode_scores, analysis.mode_cells
    largest = float((scores["algoperf"] - scores["exact"]).abs().max())
    moved = list(scores.index[scores["rank_algoperf"] != scores["rank_exact"]])
    ranks = f"ranks differ for {', '.join(moved)}" if moved else "ranks are the same"
    console.print(
        f"Between the modes algoperf (as published) and exact (the written rules), scores differ by at most "
        f"{largest:.4f}; {ranks}.",
        style="dim",
    )
    if cells.empty:
        return
    columns = [
        ("Submission", _texts(cells["submission"])),
        ("Workload", _texts(cells["workload"])),
        ("algoperf", [Text(_seconds_or_miss(seconds)) for seconds in cells["algoperf"]]),
        ("exact", [Text(_seconds_or_miss(seconds)) for seconds in cells["exact"]]),
        ("Why", _texts(cells["why"])),
    ]
    console.print(_table(columns, "Where the modes differ"))


def show_health(analysis: Analysis, console: Console) -> None:
    """Print what may be wrong with trials, so that a broken harness is not read as a slow algorithm."""
    table = analysis.findings
    if table.empty:
        console.print("Health: no trial is suspicious; none crashed, diverged or was cut off.", style="dim")
        return
    console.print("Health of the trials", style="italic")
    for submission, group in table.groupby("submission", sort=False):
        console.print(Text(str(submission), "bold"))
        for row in group.to_dict("records"):
            noun = "trial" if row["trials"] == 1 else "trials"
            detail = f" ({row['detail']})" if row["detail"] else ""
            text = Text.assemble(f"{row['trials']:,} {noun}: ", (row["finding"], "bold"), detail)
            console.print(Padding(text, (0, 0, 0, 2)))
            console.print(Padding(Text(row["where"], "dim"), (0, 0, 0, 6)))


def show_problems(problems: Sequence[Problem], console: Console) -> None:
    """Print one table of everything in the logs that was damaged, missing or left out."""
    root = os.path.commonpath([os.path.dirname(problem.file) for problem in problems])
    columns = [
        ("Problem", _texts(problem.kind for problem in problems)),
        ("Where", _texts(os.path.relpath(problem.file, root) for problem in problems)),
        ("What", _texts(problem.message for problem in problems)),
        ("So", _texts(problem.consequence for problem in problems)),
    ]
    console.print(_table(columns, f"Problems in the logs ({len(problems)}), below {root}"))


def format_seconds(seconds: float) -> str:
    """About four digits, so that columns stay narrow."""
    return f"{seconds:,.2f}" if seconds < 100 else f"{seconds:,.1f}" if seconds < 1000 else f"{seconds:,.0f}"


def format_probability(share: float) -> str:
    """A resampled share in percent; never 0 or 100 % where it is not quite that."""
    percent = 100 * share
    if 0 < percent < 1:
        return "< 1 %"
    if 99 < percent < 100:
        return "> 99 %"
    return f"{percent:.0f} %"


def format_interval(low: float, high: float) -> str:
    """The ends of a score's interval; "-" where there was nothing to resample."""
    return "-" if math.isnan(low) else f"{low:.3f}-{high:.3f}"


def _seconds_or_miss(seconds: float) -> str:
    return format_seconds(seconds) if math.isfinite(seconds) else "missed"


def _texts(values: Iterable[object]) -> list[Text]:
    return [Text(str(value), overflow="fold") for value in values]


def _uncertainty_notes(analysis: Analysis) -> Iterator[str]:
    sample = analysis.over_studies
    if sample is None:
        return
    if sample.intervals["low"].isna().all():
        yield "One study each: there is nothing to resample, so that no interval can be given."
        return
    yield (
        f"95 %: {sample.resamples:,} resamples of the studies (seed {sample.seed}); 1st: how often the "
        "submission is first among them."
    )


def _lead_columns(analysis: Analysis) -> list[Column]:
    scores, sample = analysis.board.scores, analysis.over_studies
    styles = [_RANK_STYLES.get(rank, "") for rank in scores["rank"]]
    texts = {
        "#": [str(rank) for rank in scores["rank"]],
        "Submission": [str(name) for name in scores.index],
        "Score": [f"{score:.4f}" for score in scores["score"]],
    }
    if sample is not None and sample.intervals["low"].notna().any():
        ends = sample.intervals.loc[scores.index, ["low", "high"]].itertuples(index=False)
        texts["95 %"] = [format_interval(low, high) for low, high in ends]
        known = sample.intervals.loc[scores.index, "low"].notna()
        first = sample.rank_probability.loc[scores.index, 1]
        texts["1st"] = [
            format_probability(share) if there else "-" for share, there in zip(first, known, strict=True)
        ]
    texts["Trials at target"] = [
        f"{hit}/{all_}" for hit, all_ in zip(scores["reached"], scores["trials"], strict=True)
    ]
    return [
        (header, [Text(text, style) for text, style in zip(cells, styles, strict=True)])
        for header, cells in texts.items()
    ]


def _time_columns(board: Leaderboard) -> list[Column]:
    columns = []
    for workload in board.times.columns:
        seconds: list[float] = board.times[workload].tolist()
        reasons: list[str] = board.reasons[workload].tolist()
        best = min((s for s, reason in zip(seconds, reasons, strict=True) if not reason), default=None)
        cells = [
            _time_cell(time, reason, time == best) for time, reason in zip(seconds, reasons, strict=True)
        ]
        columns.append((str(workload).replace("_", "_\n"), cells))
    return columns


def _time_cell(seconds: float, reason: str, is_best: bool) -> Text:
    if not reason:
        return Text(format_seconds(seconds), "bold" if is_best else "")
    if seconds < math.inf:
        return Text(f"{format_seconds(seconds)} {_SIGN_OF[reason]}", "dim")
    return Text(f"- {reason}", "dim")


def _fitting(lead: list[Column], others: list[Column], width: int) -> Iterator[list[Column]]:
    """The lead columns and the first others, then the names again and the next ones, each within `width`."""
    columns, names = list(lead), lead[-1]
    for column in others:
        if len(columns) > 1 and sum(map(_width, [*columns, column])) + 1 > width:
            yield columns
            columns = [names]
        columns.append(column)
    yield columns


def _width(column: Column) -> int:
    header, cells = column
    return max(*map(len, header.split("\n")), *(cell.cell_len for cell in cells)) + _CELL_PADDING


_LEFT = {"Submission", "Workload", "Finding", "Problem", "Where", "What", "So", "Detail", "Why"}


def _table(columns: Sequence[Column], title: str | None) -> Table:
    table = Table(title=title, title_justify="left")
    for header, _ in columns:
        table.add_column(Text(header), justify="left" if header in _LEFT else "right")
    for row in zip(*(cells for _, cells in columns), strict=True):
        table.add_row(*row)
    return table
