"""Other ways to say how fast, none of which decides the leaderboard."""

from timetrial.scoring.analysis import Analysis
from timetrial.scoring.health import Concern
from timetrial.scoring.other_scores import PAR
from timetrial.scoring.report.markup import Html, counted, heading, join, listed, note, paragraph
from timetrial.scoring.report.tables import Column, frame_table, number, table


def other_scores(analysis: Analysis) -> Html:
    return join(
        [
            paragraph(
                "None of these decides the leaderboard. Held-out workloads do not touch speed-ups and penalised times."
            ),
            heading("Speed-up"),
            _speedups(analysis),
            heading("Penalised time (PAR-2)"),
            _penalised(analysis),
            heading("Steps to the target"),
            _steps(analysis),
        ]
    )


def _speedups(analysis: Analysis) -> Html:
    frame = analysis.speedups.rename(columns={"geometric_mean": "geometric mean"})
    return join(
        [
            paragraph(
                f"How many times as fast as {analysis.reference}: over 1 is faster. A miss is taken as the whole "
                "budget, so that the true factor is at most that for a miss of the submission, and at least that for a "
                f"miss of {analysis.reference}. Where both missed there is none (-), and the mean is over the others."
            ),
            frame_table(frame, "Submission", number(2)),
        ]
    )


def _penalised(analysis: Analysis) -> Html:
    return join(
        [
            paragraph(
                f"Each time as a share of its budget, a miss as {PAR:g}, and the mean: lower is better. This also "
                "rewards a submission for how much faster than the budget it is, whatever the others do."
            ),
            frame_table(analysis.penalised, "Submission", number(3)),
        ]
    )


def _steps(analysis: Analysis) -> Html:
    steps = frame_table(analysis.steps, "Submission", number(0))
    if analysis.step_scores.empty:
        return join([paragraph("The logs do not tell all steps, so there is no score made of them."), steps])
    findings = analysis.findings
    slow = findings[findings["finding"] == Concern.SLOWER_THAN_EXPECTED.value]
    named = [
        f"{name} ({counted(trials, 'trial')})"
        for name, trials in slow[["submission", "trials"]].itertuples(index=False)
    ]
    ranks = table(
        [Column("#"), Column("Submission", "name"), Column("Score by steps"), Column("Score by time")],
        (
            [int(rank), name, f"{score:.4f}", f"{analysis.board.scores['score'][name]:.4f}"]
            for name, rank, score in analysis.step_scores[["rank", "score"]].itertuples()
        ),
    )
    return join(
        [
            paragraph(
                "The same score, made of steps instead of seconds: what it would be if every step took the same time. "
                "Steps of submissions with different batch sizes are not comparable."
            ),
            note(
                f"Read with care: {listed(named)} took more seconds a step than expected (Run health), so that their "
                "logs may count steps differently."
                if named
                else ""
            ),
            ranks,
            paragraph("Steps to the target, the median over studies:"),
            steps,
        ]
    )
