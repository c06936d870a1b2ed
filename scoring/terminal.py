"""The leaderboard as text, by rich: scores, then as many workloads a table as the terminal has room for."""

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from timetrial.scoring.leaderboard import HELD_OUT_MISSED, TOO_SLOW, Leaderboard
from timetrial.scoring.log_tree import Problem

_RANK_STYLES = {1: "bold yellow", 2: "bold cyan", 3: "bold magenta"}
_CELL_PADDING = 3  # a border and a space on either side
_SIGNS = {"†": HELD_OUT_MISSED, "‡": TOO_SLOW}
_SIGN_OF = {reason: sign for sign, reason in _SIGNS.items()}

Column = tuple[str, list[Text]]


def show_leaderboard(board: Leaderboard, console: Console) -> None:
    """Print scores and median times; the fastest time that counts is bold, a miss is "-" with its reason."""
    lead = _lead_columns(board)
    for number, columns in enumerate(_fitting(lead, _time_columns(board), console.width)):
        title = f"Leaderboard ({board.rules.name} rules, {board.mode} mode)" if number == 0 else None
        console.print(_table(columns, title))
    console.print(
        "Times are submission seconds to the validation target: the best trial of a study, the median over "
        "studies. Scores hold within this group only.",
        style="dim",
    )
    reasons = set(board.reasons.to_numpy().ravel())
    for sign, reason in _SIGNS.items():
        if reason in reasons:
            console.print(f"{sign} does not count: {reason}", style="dim")


def show_problems(problems: Sequence[Problem], console: Console) -> None:
    """Print one table of everything in the logs that was damaged, missing or left out."""
    columns = [
        ("File", [Text(problem.file, overflow="fold") for problem in problems]),
        ("Problem", [Text(problem.message) for problem in problems]),
    ]
    console.print(_table(columns, f"Problems in the logs ({len(problems)})"))


def format_seconds(seconds: float) -> str:
    """About four digits, so that columns stay narrow."""
    return f"{seconds:,.2f}" if seconds < 100 else f"{seconds:,.1f}" if seconds < 1000 else f"{seconds:,.0f}"


def _lead_columns(board: Leaderboard) -> list[Column]:
    scores = board.scores
    styles = [_RANK_STYLES.get(rank, "") for rank in scores["rank"]]
    reached = [f"{hit}/{all_}" for hit, all_ in zip(scores["reached"], scores["trials"], strict=True)]
    texts = {
        "#": [str(rank) for rank in scores["rank"]],
        "Submission": [str(name) for name in scores.index],
        "Score": [f"{score:.4f}" for score in scores["score"]],
        "Trials at target": reached,
    }
    return [
        (header, [Text(text, style) for text, style in zip(cells, styles, strict=True)])
        for header, cells in texts.items()
    ]


def _time_columns(board: Leaderboard) -> list[Column]:
    columns = []
    for workload in board.times.columns:
        seconds = board.times[workload].tolist()
        reasons = board.reasons[workload].tolist()
        best = min((s for s, reason in zip(seconds, reasons, strict=True) if not reason), default=None)
        cells = [
            _time_cell(time, reason, time == best) for time, reason in zip(seconds, reasons, strict=True)
        ]
        columns.append((str(workload).replace("_", "_\n"), cells))
    return columns


def _time_cell(seconds: float, reason: str, is_best: bool) -> Text:
    if not reason:
        return Text(format_seconds(seconds), "bold" if is_best else "")
    if seconds < float("inf"):
        return Text(f"{format_seconds(seconds)} {_SIGN_OF[reason]}", "dim")
    return Text(f"- {reason}", "dim")


def _fitting(lead: list[Column], times: list[Column], width: int) -> Iterator[list[Column]]:
    """The lead columns and the first workloads, then names and the next workloads, each within `width`."""
    columns, names = list(lead), lead[1]
    for column in times:
        if len(columns) > 1 and sum(map(_width, [*columns, column])) + 1 > width:
            yield columns
            columns = [names]
        columns.append(column)
    yield columns


def _width(column: Column) -> int:
    header, cells = column
    return max(*map(len, header.split("\n")), *(cell.cell_len for cell in cells)) + _CELL_PADDING


def _table(columns: Sequence[Column], title: str | None) -> Table:
    table = Table(title=title, title_justify="left")
    for header, _ in columns:
        left = header in ("Submission", "File", "Problem")
        table.add_column(Text(header), justify="left" if left else "right")
    for row in zip(*(cells for _, cells in columns), strict=True):
        table.add_row(*row)
    return table
