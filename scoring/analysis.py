"""Everything that is said of a scored field, for the terminal, the tables and the report."""

from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from timetrial.scoring.findings import findings, outcome_counts
from timetrial.scoring.health import step_seconds, trial_health
from timetrial.scoring.leaderboard import Leaderboard
from timetrial.scoring.mode_differences import mode_differences
from timetrial.scoring.other_scores import penalised_times, speedup_reference, speedups, steps_to_target
from timetrial.scoring.resampling import Bootstrap, bootstrap, cadence_bounds
from timetrial.scoring.sensitivity import leave_one_submission_out, leave_one_workload_out, tau_sensitivity


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """A leaderboard and what is known around it: each part is computed once, when it is first asked for.

    resamples, seed  of each bootstrap; without resamples there is none
    reference        the submission to which speed-ups compare
    stored_paces     seconds a step to expect, or None for what the rules amount to
    """

    board: Leaderboard
    resamples: int
    seed: int
    reference: str
    stored_paces: pd.DataFrame | None

    @cached_property
    def over_studies(self) -> Bootstrap | None:
        """Bootstrap over studies; see `resampling`."""
        return self._bootstrap(workloads=False)

    @cached_property
    def over_workloads(self) -> Bootstrap | None:
        """Bootstrap over studies and workloads."""
        return self._bootstrap(workloads=True)

    def _bootstrap(self, workloads: bool) -> Bootstrap | None:
        if not self.resamples:
            return None
        return bootstrap(self.board, resamples=self.resamples, seed=self.seed, workloads=workloads)

    @cached_property
    def cadence(self) -> pd.DataFrame:
        """Bounds of the scores by the evaluation cadence; see `resampling.cadence_bounds`."""
        return cadence_bounds(self.board)

    @cached_property
    def without_workload(self) -> pd.DataFrame:
        """See `sensitivity.leave_one_workload_out`."""
        return leave_one_workload_out(self.board)

    @cached_property
    def without_submission(self) -> pd.DataFrame:
        """See `sensitivity.leave_one_submission_out`."""
        return leave_one_submission_out(self.board)

    @cached_property
    def by_tau(self) -> pd.DataFrame:
        """See `sensitivity.tau_sensitivity`."""
        return tau_sensitivity(self.board)

    @cached_property
    def _modes(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        return mode_differences(self.board)

    @property
    def mode_scores(self) -> pd.DataFrame:
        """Scores and ranks in both modes; the first frame of `mode_differences`."""
        return self._modes[0]

    @property
    def mode_cells(self) -> pd.DataFrame:
        """The times in which the modes differ, and why; the second frame of `mode_differences`."""
        return self._modes[1]

    @cached_property
    def health(self) -> pd.DataFrame:
        """Of every trial; see `health.trial_health`."""
        return trial_health(self.board, self.stored_paces)

    @cached_property
    def findings(self) -> pd.DataFrame:
        """The same in words; see `findings.findings`."""
        return findings(self.board, self.health)

    @cached_property
    def outcomes(self) -> pd.DataFrame:
        """The same in numbers; see `findings.outcome_counts`."""
        return outcome_counts(self.board, self.health)

    @cached_property
    def paces(self) -> pd.DataFrame:
        """Seconds a step by submission and workload."""
        return step_seconds(self.board)

    @cached_property
    def speedups(self) -> pd.DataFrame:
        """See `other_scores.speedups`."""
        return speedups(self.board, self.reference)

    @cached_property
    def penalised(self) -> pd.DataFrame:
        """PAR-2; see `other_scores.penalised_times`."""
        return penalised_times(self.board)

    @cached_property
    def _steps(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        return steps_to_target(self.board)

    @property
    def step_scores(self) -> pd.DataFrame:
        """Scores made of steps; the first frame of `other_scores.steps_to_target`."""
        return self._steps[0]

    @property
    def steps(self) -> pd.DataFrame:
        """Steps to the target; the second frame of `other_scores.steps_to_target`."""
        return self._steps[1]


def analyse(
    board: Leaderboard,
    *,
    resamples: int = 10_000,
    seed: int = 0,
    reference: str | None = None,
    stored_paces: pd.DataFrame | None = None,
) -> Analysis:
    """The analysis of a leaderboard. UsageError if `reference` is none of its submissions.

    resamples     of each bootstrap; 0 for none
    reference     the submission to which speed-ups compare; see `other_scores.speedup_reference`
    stored_paces  seconds a step to expect (`health.trial_health`)
    """
    return Analysis(
        board=board,
        resamples=resamples,
        seed=seed,
        reference=speedup_reference(board, reference),
        stored_paces=stored_paces,
    )
