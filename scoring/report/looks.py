"""How submissions are told apart in plots: by colour, by marker and, once the colours are used up, by dashes.

The colours are Okabe and Ito's, safe for the colour-blind.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from timetrial.scoring.report.markup import Html, keys
from timetrial.scoring.report.svg import BLUE, INK, drawing, svg

_COLOURS = (BLUE, "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_DASHES: tuple[tuple[float, ...], ...] = ((), (5.0, 2.0), (1.0, 1.5), (6.0, 2.0, 1.0, 2.0))


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


def legend(styles: Mapping[str, Look], section: str) -> Html:
    """A short sample of every submission's line, with ids of its own in each section of the page."""
    samples = []
    for number, (name, look) in enumerate(styles.items()):
        with drawing((0.6, 0.2)) as (figure, axes):
            figure.set_layout_engine("none")
            axes.set_position((0.0, 0.0, 1.0, 1.0))
            axes.set_axis_off()
            axes.plot([0, 1, 2], [0, 0, 0], color=look.colour, linestyle=look.line, linewidth=1.8)
            axes.plot([1], [0], color=look.colour, marker=look.marker, markersize=7)
            axes.set_xlim(0, 2)
            samples.append((svg(figure, f"{section}-key{number}", f"line of {name}"), name))
    return keys(samples)
