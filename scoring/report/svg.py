"""How plots are drawn: matplotlib figures as inline SVG that follows the page's colours. Needs matplotlib."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from timetrial.scoring.report.markup import Html

# matplotlib draws in these colours and the SVG gets the page's variables, so that dark mode works.
INK, FAINT, BLUE = "#010203", "#040506", "#0072b2"
_VARIABLES = {INK: "var(--ink)", FAINT: "var(--faint)", BLUE: "var(--blue)"}

WIDE = (5.4, 3.7)  # inches: one or two in a row
SMALL = (2.7, 2.1)  # two in a row on a phone

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "timetrial",
    "font.family": "sans-serif",
    "font.size": 12,
    "text.parse_math": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": FAINT,
    "grid.alpha": 0.25,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


@contextmanager
def drawing(size: tuple[float, float] = WIDE) -> Iterator[tuple[Figure, Axes]]:
    """A figure with one pair of axes, in the report's style."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        yield figure, figure.subplots()


def svg(figure: Figure, prefix: str, label: str) -> Html:
    """The figure as an SVG element that scales with its box. `prefix` keeps ids apart within one page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'\b(?:d|x|y)="[^"]*"', lambda match: _rounded(match[0]), text)
    text = re.sub(r">\s+<", ">\n<", text)
    view_box = re.search(r'viewBox="[^"]*"', text)
    size = view_box[0] if view_box else ""
    text = f'<svg {size} role="img" aria-label="{escape(label)}">' + text[text.index(">") + 1 :]
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = text.replace("url(#", f"url(#{prefix}-").replace('xlink:href="#', f'href="#{prefix}-')
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    return Html(text)


def _rounded(coordinates: str) -> str:
    """The same with one digit after the point, a tenth of a 72nd of an inch, which is finer than a screen."""
    text = re.sub(r"-?\d+\.\d+", lambda match: f"{float(match[0]):.1f}".removesuffix(".0"), coordinates)
    return re.sub(r"\s+", " ", text)
