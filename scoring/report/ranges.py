"""Scores and their intervals, drawn to scale from 0 to 1, as HTML that stretches with the page."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from timetrial.scoring.report.markup import MISSING, Html, html, join, name

TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


class Range(NamedTuple):
    """An interval of a kind that the page knows how to draw: studies, workloads or cadence."""

    kind: str
    low: float
    high: float

    @property
    def is_known(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)


def between(low: float, high: float) -> str:
    """The interval in words of two numbers, or that there is none."""
    return f"{low:.3f}\N{EN DASH}{high:.3f}" if math.isfinite(low) and math.isfinite(high) else MISSING


def score_bar(score: float, interval: Range) -> Html:
    """A score as a bar, with its interval as a whisker."""
    return Html(
        f'<span class="score" aria-hidden="true"><i style="width:{_place(score)}"></i>{_whisker(interval)}</span>'
    )


def whisker_plot(rows: Iterable[tuple[object, float, Sequence[Range]]], labels: dict[str, str]) -> Html:
    """Each name with its score as a line and its intervals below one another; `labels` name the kinds."""
    items = join(
        (
            Html(
                f'<div class="whiskers"><span>{name(title)}</span><div class="track">{join(map(_whisker, ranges))}'
                f'<i style="left:{_place(score)}"></i></div></div>'
            )
            for title, score, ranges in rows
        ),
        "\n",
    )
    ticks = join(Html(f'<b style="left:{_place(tick)}">{tick:g}</b>') for tick in TICKS)
    samples = join(
        Html(f'<li><span class="sample"><b class="{kind}"></b></span>{html(label)}</li>')
        for kind, label in labels.items()
    )
    return Html(
        f'<ul class="keys"><li><span class="sample"><i></i></span>score</li>{samples}</ul>'
        f'<div class="ranges" aria-hidden="true">{items}'
        f'<div class="whiskers"><span></span><div class="ticks">{ticks}</div></div></div>'
    )


def _whisker(interval: Range) -> Html:
    if not interval.is_known:
        return Html()
    low, width = _place(interval.low), _place(interval.high - interval.low)
    # Its ends are 2 px thick and stand with their outer halves outside.
    style = f"left:calc({low} - 1px);width:calc({width} + 2px)"
    return Html(f'<b class="{interval.kind}" style="{style}"></b>')


def _place(share: float) -> str:
    return f"{100 * share:.2f}%"
