"""Where the two ways to count times disagree."""

import math

from timetrial.scoring.analysis import Analysis
from timetrial.scoring.report.markup import MISSING, Html, counted, join, paragraph
from timetrial.scoring.report.tables import Column, table
from timetrial.scoring.terminal import format_seconds


def modes(analysis: Analysis) -> Html:
    scores, cells = analysis.mode_scores, analysis.mode_cells
    columns = ["Score, AlgoPerf mode", "Score, exact mode", "Rank, AlgoPerf mode", "Rank, exact mode"]
    rows = (
        [name, f"{algoperf:.4f}", f"{exact:.4f}", int(old), int(new)]
        for name, algoperf, exact, old, new in scores[
            ["algoperf", "exact", "rank_algoperf", "rank_exact"]
        ].itertuples()
    )
    return join(
        [
            paragraph(
                "Times can be counted in two ways, called modes. AlgoPerf mode repeats what AlgoPerf's own scorer "
                "computes: of a study, the trial that reaches the target at the smallest evaluation number, even if "
                "another took less time. Exact mode follows the written rules: the trial with the least time, if its "
                f"budget was not used up by then. This report is in {_MODES[analysis.board.mode]} mode."
            ),
            table([Column("Submission", "name"), *map(Column, columns)], rows),
            _differences(analysis) if len(cells) else paragraph("Every time is the same in both."),
        ]
    )


_MODES = {"algoperf": "AlgoPerf", "exact": "exact"}


def _differences(analysis: Analysis) -> Html:
    columns = [
        Column("Submission", "name"),
        Column("Workload", "text"),
        Column("AlgoPerf mode, seconds"),
        Column("Exact mode, seconds"),
        Column("Why", "prose"),
    ]
    rows = (
        [submission, workload, _seconds(algoperf), _seconds(exact), why]
        for submission, workload, algoperf, exact, why in analysis.mode_cells.itertuples(index=False)
    )
    count = len(analysis.mode_cells)
    return join(
        [
            paragraph(f"{counted(count, 'time')} {'differs' if count == 1 else 'differ'}:"),
            table(columns, rows),
        ]
    )


def _seconds(seconds: float) -> str:
    return format_seconds(seconds) if math.isfinite(seconds) else "missed" if seconds > 0 else MISSING
