"""The validation metric against submission time. Needs matplotlib."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from timetrial.scoring.leaderboard import Leaderboard
from timetrial.scoring.report.looks import Look
from timetrial.scoring.report.markup import Html
from timetrial.scoring.report.svg import INK, drawing, svg
from timetrial.scoring.rules import Goal

MOST_TRIALS = 24  # whose lines are told apart in one plot; of more, one a submission is drawn
_POINTS_PER_LINE = 120


def curve_svg(board: Leaderboard, workload: str, styles: Mapping[str, Look]) -> Html:
    """One line a trial, with the target and who reached it; hollow marks for trials without a line."""
    goal = board.field.goals[workload]
    trials = trials_to_draw(board, workload)
    curves = dict(iter(board.field.curves[board.field.curves["trial"].isin(trials.index)].groupby("trial")))
    with drawing() as (figure, axes):
        for number, trial in zip(trials.index.tolist(), trials.to_dict("records"), strict=True):
            look = styles[trial["submission"]]
            if number in curves and trial["is_drawn"]:
                _draw_line(axes, curves[number], look)
            if number in curves and trial["row"] >= 0:
                hit = curves[number].iloc[trial["row"]]
                _draw_hit(axes, hit["seconds"], hit["value"], look, is_large=trial["is_drawn"])
        axes.axhline(goal.target, color=INK, linestyle=(0, (4, 3)), linewidth=1)
        drawn = [curve["value"] for number, curve in curves.items() if trials.at[number, "is_drawn"]]
        _frame(axes, goal, pd.concat(drawn) if drawn else pd.Series(dtype=float))
        prefix = f"curve{list(board.field.goals).index(workload)}"
        return svg(figure, prefix, f"{goal.metric.name} on {workload} against submission time")


def trials_to_draw(board: Leaderboard, workload: str) -> pd.DataFrame:
    """The trials of a workload that show in its plot, with a column `is_drawn`: whether with their line.

    All trials if they are few. Else those that decide a study, and of every submission the one with the median time
    is drawn.
    """
    trials = board.trials[board.trials["workload"] == workload]
    if len(trials) <= MOST_TRIALS:
        return trials.assign(is_drawn=True)
    cells = board.studies.index.get_level_values("workload") == workload
    studies = board.studies[cells].sort_values("seconds", kind="stable")
    middle = [
        group["number"].iloc[(len(group) - 1) // 2]
        for _, group in studies[studies["number"] >= 0].groupby(level="submission")
    ]
    deciding = trials[trials.index.isin(studies["number"])]
    return deciding.assign(is_drawn=deciding.index.isin(middle)).sort_values("is_drawn", kind="stable")


def _draw_line(axes: Axes, curve: pd.DataFrame, look: Look) -> None:
    """A thinned line with a few small markers, so that colour does not have to tell it from others."""
    kept = np.unique(np.linspace(0, len(curve) - 1, _POINTS_PER_LINE).round().astype(int))
    thin = curve.iloc[kept]
    axes.plot(
        thin["seconds"],
        thin["value"],
        color=look.colour,
        linestyle=look.line,
        marker=look.marker,
        markersize=5,
        markevery=max(1, len(kept) // 5),
        linewidth=1.3,
        alpha=0.85,
    )


def _draw_hit(axes: Axes, seconds: float, value: float, look: Look, *, is_large: bool) -> None:
    axes.plot(
        [seconds],
        [value],
        color=look.colour,
        marker=look.marker,
        markersize=8.5 if is_large else 5,
        markerfacecolor=look.colour if is_large else "none",
        markeredgecolor=INK if is_large else look.colour,
        markeredgewidth=0.7,
        linestyle="none",
        zorder=4 if is_large else 3,
    )


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
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axes.set_xlabel("submission time, seconds")
    axes.set_ylabel(f"validation {goal.metric.name.replace('_', ' ')}")
