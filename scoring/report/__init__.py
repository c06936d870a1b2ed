"""The report: one HTML file with everything in it, readable without a network, on a phone and in the dark.

It is a pure function of the analysis: the same logs give the same bytes. The page has no script, and colour never
says anything alone. Needs matplotlib (extra `report`), which is not loaded before a report is rendered.

page.py page.html page.css   the page and the order of its sections
markup.py tables.py          escaped text, tables and tables with shaded cells
ranges.py                    scores and their intervals, drawn to scale
section_*.py                 one section each, from the analysis to HTML
svg.py looks.py              how plots are drawn, and how submissions are told apart in them
plot_*.py                    one kind of plot each
"""

from pathlib import Path

from timetrial.engine.errors import UsageError
from timetrial.engine.records import write_text_atomic
from timetrial.scoring.analysis import Analysis


def write_report(analysis: Analysis, path: Path) -> None:
    """Write the report, whole or not at all. Raises UsageError if matplotlib (extra `report`) is not installed."""
    write_text_atomic(path, render(analysis))


def render(analysis: Analysis) -> str:
    """The report as a string. Raises UsageError as `write_report` does."""
    try:
        from timetrial.scoring.report.page import page  # loads matplotlib
    except ModuleNotFoundError as error:
        raise UsageError(f"a report needs {error.name}; install timetrial[report]") from error
    return page(analysis)
