"""One line a submission over a common axis: profiles, scores by tau, targets by budget. Needs matplotlib."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from timetrial.scoring.report.looks import Look
from timetrial.scoring.report.markup import Html
from timetrial.scoring.report.svg import FAINT, SMALL, drawing, svg

_TOP = 1.04  # everything here goes from 0 to 1


def lines_svg(
    table: pd.DataFrame,
    styles: Mapping[str, Look],
    prefix: str,
    labels: tuple[str, str],
    *,
    steps: bool = True,
) -> Html:
    """A line for each column against the index. `labels`: of the horizontal and the vertical axis.

    `steps` for what stays as it is until the next entry, else points are joined by straight lines.
    """
    with drawing() as (figure, axes):
        across = table.index.to_numpy()
        for number, (submission, values) in enumerate(table.items()):
            look = styles[str(submission)]
            axes.plot(
                across,
                values,
                drawstyle="steps-post" if steps else "default",
                color=look.colour,
                linestyle=look.line,
                marker=look.marker,
                markersize=5,
                markevery=(0.01 * number, 0.12) if steps else None,
                linewidth=1.8,
                clip_on=False,
            )
        axes.set(xlim=(across.min(), across.max()), ylim=(-0.02, _TOP))
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        return svg(figure, prefix, f"{labels[1]} against {labels[0]}, a line for each submission")


def band_svg(
    table: pd.DataFrame, submission: str, band: tuple[np.ndarray, np.ndarray], look: Look, prefix: str
) -> Html:
    """One submission's profile with its band, the others' faint behind it.

    `table`: rho by tau and submission. `band`: the taus where the band is stated, and its ends, shape (2, taus).
    """
    taus, ends = band
    across = table.index.to_numpy()
    with drawing(SMALL) as (figure, axes):
        for other, values in table.items():
            if other != submission:
                kept = _corners(values)
                axes.plot(across[kept], values.iloc[kept], drawstyle="steps-post", color=FAINT, linewidth=0.7)
        kept = _corners(*ends)
        low, high = ends[:, kept]
        axes.fill_between(taus[kept], low, high, step="post", color=look.colour, alpha=0.28, linewidth=0)
        kept, values = _corners(table[submission]), table[submission]
        axes.plot(across[kept], values.iloc[kept], drawstyle="steps-post", color=look.colour, linewidth=2)
        axes.set(xlim=(across.min(), across.max()), ylim=(-0.02, _TOP), yticks=[0, 0.5, 1])
        return svg(figure, prefix, f"profile of {submission} with its 95 % band")


def _corners(*lines: npt.ArrayLike) -> np.ndarray:
    """Where any of some step lines changes, and their last point."""
    points = np.stack([np.asarray(line) for line in lines])
    changes = np.any(np.diff(points, axis=1, prepend=np.nan) != 0, axis=0)
    changes[-1] = True
    return np.flatnonzero(changes)
