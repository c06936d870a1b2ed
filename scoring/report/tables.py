"""Tables of the page. Wide ones scroll inside their own box, with the names of the rows in sight."""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

import pandas as pd

from timetrial.scoring.report.markup import MISSING, Html, html, join, name

Kind = Literal["number", "text", "prose", "name"]


class Column(NamedTuple):
    """A column: numbers stand right, text stands left, prose also breaks its lines, a name heads its row."""

    title: object
    kind: Kind = "number"


def table(columns: Sequence[Column], rows: Iterable[Sequence[object]]) -> Html:
    """A table. Names may break at underscores; other cells are escaped unless they are `Html`.

    With prose in it, its rows become blocks of labelled lines where the screen is narrow.
    """
    is_stacked = any(column.kind == "prose" for column in columns)
    head = join(Html(f'<th scope="col"{_css(column.kind)}>{name(column.title)}</th>') for column in columns)
    labels = [f' data-label="{html(column.title)}"' if is_stacked else "" for column in columns]
    kinds = [column.kind for column in columns]
    body = join((_row(kinds, labels, cells) for cells in rows), "\n")
    return _boxed(head, body, "stacked" if is_stacked else "")


def frame_table(frame: pd.DataFrame, corner: str, cell: Callable[[float], object]) -> Html:
    """A frame as a table: its index as names, its columns as numbers that `cell` writes."""
    columns = [Column(corner, "name"), *(Column(title) for title in frame.columns)]
    rows = ([index, *map(cell, values)] for index, values in zip(frame.index, frame.to_numpy(), strict=True))
    return table(columns, rows)


def shaded_table(shares: pd.DataFrame, corner: str) -> Html:
    """A frame of shares as percent, each cell the darker the larger it is; NaN is left empty."""
    head = join(
        [
            Html(f'<th scope="col" class="name">{html(corner)}</th>'),
            *(_upright(title) for title in shares.columns),
        ]
    )
    rows = (
        Html(f'<tr><th scope="row" class="name">{name(index)}</th>{join(map(_shaded, values))}</tr>')
        for index, values in zip(shares.index, shares.to_numpy().tolist(), strict=True)
    )
    return _boxed(head, join(rows, "\n"), "shaded")


def percent(share: float) -> str:
    """Whole percent, of which 0 and 100 are exact: "<1" and ">99" are what only rounds to them."""
    whole = round(100 * share)
    if whole == 0 and share > 0:
        return "<1"
    if whole == 100 and share < 1:
        return ">99"
    return str(whole)


def number(digits: int) -> Callable[[float], str]:
    """Writes numbers with so many digits after the point, and NaN and infinity as missing."""
    return lambda value: f"{value:,.{digits}f}" if abs(value) < float("inf") else MISSING


def _upright(title: object) -> Html:
    """A column's title, turned where it is longer than the numbers below it."""
    css = ' class="turned"' if len(str(title)) > 3 else ""
    return Html(f'<th scope="col"{css}><span>{html(title)}</span></th>')


def _shaded(share: float) -> Html:
    if share != share:
        return Html("<td></td>")
    return Html(f'<td style="--p:{100 * share:.0f}">{html(percent(share))}</td>')


def _row(kinds: Sequence[Kind], labels: Sequence[str], cells: Sequence[object]) -> Html:
    return Html(f"<tr>{join(map(_cell, kinds, labels, cells))}</tr>")


def _cell(kind: Kind, label: str, value: object) -> Html:
    if kind == "name":
        return Html(f'<th scope="row" class="name"{label}>{name(value)}</th>')
    return Html(f"<td{_css(kind)}{label}>{html(value)}</td>")


def _css(kind: Kind) -> str:
    return "" if kind == "number" else f' class="{kind}"'


def _boxed(head: Html, body: Html, kind: str = "") -> Html:
    css = f' class="{kind}"' if kind else ""
    content = f"<thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody>"
    return Html(f'<div class="scroll" tabindex="0"><table{css}>{content}</table></div>')
