"""What was wrong with the logs, and what was done about it."""

from timetrial.scoring.analysis import Analysis
from timetrial.scoring.report.markup import Html, join, name, paragraph
from timetrial.scoring.report.tables import Column, table


def problems(analysis: Analysis) -> Html:
    found = analysis.board.problems
    if not found:
        return paragraph("None: every file was read as it should be, and nothing is missing.")
    columns = [
        Column("Kind", "text"),
        Column("File", "prose"),
        Column("Problem", "prose"),
        Column("What was done", "prose"),
    ]
    return join(
        [
            paragraph(
                "Everything that was damaged, missing or left out. Nothing damaged is passed over in silence."
            ),
            table(columns, ([one.kind, name(one.file), one.message, one.consequence] for one in found)),
        ]
    )
