"""Everything that is said of a scored field, computed once, for the terminal, the tables and the report."""

from dataclasses import dataclass

import pandas as pd

from timetrial.scoring.findings import findings, outcome_counts
from timetrial.scoring.health import step_seconds, trial_health
from timetrial.scoring.leaderboard import Leaderboard
from timetrial.scoring.mode_differences import mode_differences
from timetrial.scoring.other_scores import default_reference, penalised_times, speedups, steps_to_target
from timetrial.scoring.resampling import Bootstrap, bootstraps, cadence_bounds
from timetrial.scoring.sensitivity import leave_one_submission_out, leave_one_workload_out, tau_sensitivity


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """A leaderboard and what is known around it. Each frame is described where it is made.

    over_studies, over_workloads   bootstraps (`resampling`); None where no resamples were asked for
    cadence                        bounds of the scores by the evaluation cadence (`resampling.cadence_bounds`)
    without_workload, without_submission, by_tau   scores under other circumstances (`sensitivity`)
    mode_scores, mode_cells        where the modes disagree (`mode_differences`)
    health, findings, outcomes     of every trial, in words, in numbers (`health`, `findings`)
    paces                          seconds a step by submission and workload
    reference, speedups, penalised, step_scores, steps   other scores (`other_scores`)
    """

    board: Leaderboard
    over_studies: Bootstrap | None
    over_workloads: Bootstrap | None
    cadence: pd.DataFrame
    without_workload: pd.DataFrame
    without_submission: pd.DataFrame
    by_tau: pd.DataFrame
    mode_scores: pd.DataFrame
    mode_cells: pd.DataFrame
    health: pd.DataFrame
    findings: pd.DataFrame
    outcomes: pd.DataFrame
    paces: pd.DataFrame
    reference: str
    speedups: pd.DataFrame
    penalised: pd.DataFrame
    step_scores: pd.DataFrame
    steps: pd.DataFrame


def analyse(
    board: Leaderboard,
    *,
    resamples: int = 10_000,
    seed: int = 0,
    reference: str | None = None,
    stored_paces: pd.DataFrame | None = None,
) -> Analysis:
    """Analyse a leaderboard.

    resamples     of each bootstrap; 0 for none
    reference     the submission to which speed-ups compare; see `other_scores.speedups`. UsageError if unknown
    stored_paces  seconds a step to expect (`health.trial_health`)
    """
    health = trial_health(board, stored_paces)
    mode_scores, mode_cells = mode_differences(board)
    step_scores, steps = steps_to_target(board)
    reference = reference or default_reference(board)
    over_studies, over_workloads = (
        bootstraps(board, resamples=resamples, seed=seed) if resamples else (None, None)
    )
    return Analysis(
        board=board,
        over_studies=over_studies,
        over_workloads=over_workloads,
        cadence=cadence_bounds(board),
        without_workload=leave_one_workload_out(board),
        without_submission=leave_one_submission_out(board),
        by_tau=tau_sensitivity(board),
        mode_scores=mode_scores,
        mode_cells=mode_cells,
        health=health,
        findings=findings(board, health),
        outcomes=outcome_counts(board, health),
        paces=step_seconds(board),
        reference=reference,
        speedups=speedups(board, reference),
        penalised=penalised_times(board),
        step_scores=step_scores,
        steps=steps,
    )
