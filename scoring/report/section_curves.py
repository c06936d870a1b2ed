"""How the metric moved towards each target, and how many targets are reached by which share of the budget."""

import pandas as pd

from timetrial.scoring.analysis import Analysis
from timetrial.scoring.anytime import targets_by_budget
from timetrial.scoring.other_scores import budgets
from timetrial.scoring.report.looks import Look, legend, looks
from timetrial.scoring.report.markup import Html, figure, figures, heading, join, listed, note, paragraph
from timetrial.scoring.report.plot_curves import MOST_TRIALS, curve_svg
from timetrial.scoring.report.plot_lines import lines_svg
from timetrial.scoring.report.section_times import target_of
from timetrial.scoring.report.tables import frame_table, percent

_SHARES = (0.25, 0.5, 0.75, 1.0)  # of the budget, for the table


def curves(analysis: Analysis) -> Html:
    board = analysis.board
    styles = looks(board.scores.index)
    tried = set(board.trials["workload"])
    plots = [
        figure(f"{workload}, target: {target_of(board, workload)}", curve_svg(board, workload, styles))
        for workload in board.times.columns
        if workload in tried
    ]
    untried = [workload for workload in board.times.columns if workload not in tried]
    return join(
        [
            paragraph(
                "The validation metric against submission time. The dashed line is the target; a large marker shows "
                "where a trial reached it.",
                f"Where a workload has more than {MOST_TRIALS} trials, a submission has one line: of the trials that "
                "decide its studies, the one with the median time. Hollow markers are its other studies.",
            ),
            legend(styles, "curve"),
            figures(plots, "plots"),
            note(f"Nobody ran {listed(untried)}." if untried else ""),
            heading("Targets reached by when"),
            _by_budget(analysis, styles),
        ]
    )


def _by_budget(analysis: Analysis, styles: dict[str, Look]) -> Html:
    board = analysis.board
    limits = budgets(board)[board.eligible.columns]
    if limits.isna().all():
        return paragraph("The logs tell no budgets, so there is no share of them to plot against.")
    unknown = list(limits[limits.isna()].index)
    labels = ("share of the budget", "share of studies at target")
    reached = targets_by_budget(board)
    rows = reached.iloc[[round(share * (len(reached) - 1)) for share in _SHARES]]
    rows.index = pd.Index([f"{share:.0%}".replace("%", " %") for share in _SHARES])
    return join(
        [
            paragraph(
                "If every trial were stopped after this share of its budget: what share of the studies would have "
                "reached their target? Every base workload has the same weight."
            ),
            legend(styles, "budget"),
            figure(
                "Studies at target by share of the budget",
                lines_svg(reached, styles, "budget", labels),
                "single",
            ),
            frame_table(rows.T, "Submission", lambda share: f"{percent(share)} %"),
            note(f"Left out, because their budget is not known: {listed(unknown)}." if unknown else ""),
        ]
    )
