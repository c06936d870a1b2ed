"""The report's plots, as inline SVG that follows the page's colours. Needs matplotlib (extra `report`).

Submissions are told apart by colour (Okabe and Ito's palette, safe for the colour-blind), by marker and, once
the colours are used up, by line style.
"""

import io
import math
import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from timetrial.scoring.leaderboard import Leaderboard
from timetrial.scoring.rules import Goal

# matplotlib draws in these two colours and the SVG gets the page's variables, so that dark mode works.
_INK, _FAINT = "#010203", "#040506"
_VARIABLES = {_INK: "var(--ink)", _FAINT: "var(--faint)"}

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", _INK)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_DASHES: tuple[tuple[float, ...], ...] = ((), (5.0, 2.0), (1.0, 1.5), (6.0, 2.0, 1.0, 2.0))

_LINES_PER_PLOT = 60  # beyond that, one trial a study: a page of megabytes helps nobody
_POINTS_PER_LINE = 150

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "timetrial",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.parse_math": False,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _FAINT,
    "grid.alpha": 0.25,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


class Look(NamedTuple):
    """How a submission is drawn."""

    colour: str
    marker: str
    dashes: tuple[float, ...]

    @property
    def line(self) -> str | tuple[float, tuple[float, ...]]:
        """matplotlib's `linestyle`."""
        return (0.0, self.dashes) if self.dashes else "-"


def looks(submissions: Iterable[object]) -> dict[str, Look]:
    """A distinct look for each of up to 28 submissions, in order."""
    return {
        str(name): Look(
            _COLOURS[number % len(_COLOURS)],
            _MARKERS[number % len(_MARKERS)],
            _DASHES[number // len(_COLOURS) % len(_DASHES)],
        )
        for number, name in enumerate(submissions)
    }


def legend_svgs(styles: Mapping[str, Look], section: str) -> dict[str, str]:
    """A short sample of every submission's line, as SVG with ids of its own in each section of the page."""
    samples = {}
    with matplotlib.rc_context(_STYLE):
        for number, (name, look) in enumerate(styles.items()):
            figure = Figure(figsize=(0.6, 0.2))
            axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
            axes.set_axis_off()
            axes.plot([0, 1, 2], [0, 0, 0], color=look.colour, linestyle=look.line, linewidth=1.8)
            axes.plot([1], [0], color=look.colour, marker=look.marker, markersize=7)
            axes.set_xlim(0, 2)
            samples[name] = _svg(figure, f"{section}-key{number}", f"line of {name}")
    return samples


def profile_svg(board: Leaderboard, styles: Mapping[str, Look]) -> str:
    """Performance profiles: the share of workloads within a factor tau of the best, by tau."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.4, 3.7), layout="constrained")
        axes = figure.subplots()
        taus = board.profiles.index.to_numpy()
        for number, (name, rho) in enumerate(board.profiles.items()):
            look = styles[str(name)]
            axes.step(
                taus,
                rho,
                where="post",
                color=look.colour,
                linestyle=look.line,
                marker=look.marker,
                markersize=5,
                markevery=(0.01 * number, 0.12),
                linewidth=1.8,
            )
        axes.set(xlim=(1, board.rules.tau_max), ylim=(-0.02, 1.04))
        axes.set_xlabel("factor τ of the fastest time")
        axes.set_ylabel("share of workloads within τ")
        return _svg(figure, "profile", "Performance profiles")


def curve_svg(board: Leaderboard, workload: str, styles: Mapping[str, Look]) -> str:
    """The validation metric against submission time, one line a trial, with the target and who reached it."""
    goal = board.goals[workload]
    trials = _trials_to_draw(board.trials[board.trials["workload"] == workload])
    curves = dict(iter(board.curves[board.curves["trial"].isin(trials.index)].groupby("trial")))
    drawn = zip(trials.index.tolist(), trials.to_dict("records"), strict=True)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.4, 3.7), layout="constrained")
        axes = figure.subplots()
        for number, trial in drawn:
            if number not in curves:
                continue
            curve, look = curves[number], styles[trial["submission"]]
            thin = curve.iloc[:: max(1, math.ceil(len(curve) / _POINTS_PER_LINE))]
            axes.plot(
                thin["seconds"],
                thin["value"],
                color=look.colour,
                linestyle=look.line,
                linewidth=1.3,
                alpha=0.75,
            )
            if trial["row"] >= 0:
                hit = curve.iloc[trial["row"]]
                axes.plot(
                    [hit["seconds"]], [hit["value"]], color=look.colour, marker=look.marker, markersize=8,
                    markeredgecolor=_INK, markeredgewidth=0.7, linestyle="none", zorder=3,
                )  # fmt: skip
        axes.axhline(goal.target, color=_INK, linestyle=(0, (4, 3)), linewidth=1)
        _frame(axes, goal, pd.concat(curves.values())["value"] if curves else pd.Series(dtype=float))
        return _svg(
            figure,
            f"curve{list(board.goals).index(workload)}",
            f"{goal.metric.name} on {workload} against submission time",
        )


def _trials_to_draw(trials: pd.DataFrame) -> pd.DataFrame:
    """All of them if they are few, else each study's fastest (its first, where none reached the target)."""
    if len(trials) <= _LINES_PER_PLOT:
        return trials
    return trials.sort_values("seconds", kind="stable").drop_duplicates(["submission", "study"])


def _frame(axes: Axes, goal: Goal, values: pd.Series) -> None:
    """Axes that show the target and all good values; a tail of early, bad ones may leave the picture."""
    finite = values[np.isfinite(values)]
    higher = goal.metric.better == "higher"
    good = finite.max() if higher else finite.min()
    bad = finite.quantile(0.1 if higher else 0.9)
    ends = [end for end in (good, bad, goal.target) if math.isfinite(end)]
    margin = 0.06 * (max(ends) - min(ends)) or 1.0
    axes.set_ylim(min(ends) - margin, max(ends) + margin)
    axes.set_xlim(left=0)
    axes.set_xlabel("submission time, seconds")
    axes.set_ylabel(f"validation {goal.metric.name.replace('_', ' ')}")
    axes.annotate(
        f"target {goal.target:g}",
        (0.0, goal.target),  # curves start far from the target: the left end is free
        xycoords=axes.get_yaxis_transform(),
        xytext=(4, 3 if higher else -4),
        textcoords="offset points",
        ha="left",
        va="bottom" if higher else "top",
        fontsize=10,
    )


def _svg(figure: Figure, prefix: str, label: str) -> str:
    """The figure as an SVG element that scales with its box. `prefix` keeps ids apart within one page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    view_box = re.search(r'viewBox="[^"]*"', text)
    size = view_box[0] if view_box else ""
    text = f'<svg {size} role="img" aria-label="{escape(label)}">' + text[text.index(">") + 1 :]
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = text.replace("url(#", f"url(#{prefix}-").replace('xlink:href="#', f'href="#{prefix}-')
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    return text
