"""How the trials ended, and what about them is suspicious."""

import math
from typing import Any

from timetrial.scoring.analysis import Analysis
from timetrial.scoring.health import Outcome
from timetrial.scoring.report.markup import MISSING, Html, counted, folded, heading, join, paragraph
from timetrial.scoring.report.tables import Column, frame_table, table
from timetrial.scoring.terminal import format_seconds

_MOST_TRIALS = 500  # of more, only those that are out of the ordinary are listed
_JSON = Html("<code>--json</code>")
_ORDINARY = [Outcome.TARGET.value, Outcome.MISSED.value]


def health(analysis: Analysis) -> Html:
    return join(
        [
            paragraph(
                "A broken run must not be read as a slow algorithm. Nothing in this section changes a score; it says "
                "what to look into before believing one."
            ),
            heading("How trials ended"),
            _outcomes(analysis),
            heading("What is out of the ordinary"),
            _findings(analysis),
            heading("Single trials"),
            _trials(analysis),
        ]
    )


def _outcomes(analysis: Analysis) -> Html:
    return join(
        [
            paragraph(
                "Target: reached it. Missed: had its whole budget and did not. Diverged: the numbers became infinite "
                "or no numbers. Truncated: stopped early without a word. Crashed: was never evaluated, or its process "
                "died."
            ),
            frame_table(analysis.outcomes, "Submission", lambda count: f"{count:,.0f}"),
        ]
    )


def _findings(analysis: Analysis) -> Html:
    if analysis.findings.empty:
        return paragraph("Nothing.")
    columns = [
        Column("Submission", "name"),
        Column("Finding", "text"),
        Column("Trials"),
        Column("Where", "prose"),
        Column("Detail", "prose"),
    ]
    return table(columns, analysis.findings.to_numpy().tolist())


def _trials(analysis: Analysis) -> Html:
    """The trials, folded; of thousands, those whose label is not an ordinary one."""
    trials = analysis.board.trials.join(analysis.health)
    every = len(trials)
    explanation: list[object] = [
        "The label is what to read first. Too slow: missed, at a pace that is not the algorithm's. Suspicious: a "
        "result with another sign, which the table names."
    ]
    if every > _MOST_TRIALS:
        trials = trials[~trials["label"].isin(_ORDINARY)]
        explanation += [
            f"Of {every:,} trials, only those are listed that neither reached the target nor missed it in an ordinary "
            "way; all are in the file that",
            _JSON,
            "writes.",
        ]
    rows = [_row(trial) for trial in trials.to_dict("records")]
    content = table(_TRIAL_COLUMNS, rows) if rows else paragraph("None.")
    return join([paragraph(*explanation), folded(f"Show {counted(len(rows), 'trial')}", content)])


_TRIAL_COLUMNS = [
    Column("Submission", "name"),
    Column("Workload", "text"),
    Column("Study/trial"),
    Column("Label", "text"),
    Column("Seconds to target"),
    Column("Best metric"),
    Column("Evaluations"),
    Column("Signs and details", "prose"),
]


def _row(trial: dict[Any, Any]) -> list[object]:
    outcome = [trial["outcome"]] if trial["label"] != trial["outcome"] else []
    unofficial = ["unofficial"] if trial["official"] is False else []
    signs = [*outcome, *unofficial, *filter(None, [trial["flags"]]), *trial["concerns"]]
    return [
        trial["submission"],
        trial["workload"],
        f"{trial['study']}/{trial['trial']}",
        trial["label"],
        format_seconds(trial["seconds"]) if trial["row"] >= 0 else MISSING,
        MISSING if math.isnan(trial["best"]) else f"{trial['best']:.6g}",
        trial["evaluations"],
        "; ".join(filter(None, [", ".join(signs), trial["detail"]])),
    ]
