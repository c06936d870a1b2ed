"""The leaderboard: times, scores and ranks of a field, as pandas frames."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from timetrial.engine.outcome import Status
from timetrial.scoring.completeness import incomplete
from timetrial.scoring.field import Field
from timetrial.scoring.problems import Problem
from timetrial.scoring.rules import VARIANTS, Ruleset
from timetrial.scoring.score import (
    eligible_times,
    exact_scores,
    grid,
    grid_scores,
    profile,
    ranks,
    ratios,
)
from timetrial.scoring.time_to_target import CELL, Mode, is_within_rules, study_times, workload_times
from timetrial.scoring.trial_row import MISSED

NOT_RUN = "not run"
HELD_OUT_MISSED = "held-out workload missed"
TOO_SLOW = "too far behind the best time to score"
TOO_LATE = "the target was reached only when the budget was used up"


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How times become scores: the rules of one version in one mode, against the field or a frozen reference.

    workloads  those of the arrays' last axis, base and held-out
    held_out   base workload -> variants that must be reached too
    reference  times by workload of a frozen reference set, or None for the best of the field; a base workload that
               it lacks gives no credit
    """

    mode: Mode
    rules: Ruleset
    workloads: Sequence[str]
    held_out: Mapping[str, tuple[str, ...]]
    reference: pd.Series | None = None

    @cached_property
    def is_base(self) -> np.ndarray:
        """Which of the workloads are scored, as a mask."""
        variants = {variant for names in self.held_out.values() for variant in names}
        return np.array([name not in variants for name in self.workloads])

    @cached_property
    def _best(self) -> np.ndarray | None:
        if self.reference is None:
            return None
        return self.reference.reindex(list(self.workloads)).fillna(np.inf).to_numpy()

    def eligible(self, times: np.ndarray) -> np.ndarray:
        """Times (..., submissions, workloads) that count, base and held-out."""
        return eligible_times(times, self.workloads, self.held_out, self.rules.tau_max, self._best)

    def ratios(self, times: np.ndarray) -> np.ndarray:
        """Ratios to the best (..., submissions, base workloads), from times (..., submissions, workloads)."""
        best = None if self._best is None else self._best[self.is_base]
        return ratios(self.eligible(times)[..., self.is_base], best)

    def scores(self, ratio: np.ndarray) -> np.ndarray:
        """Scores (..., submissions) from ratios (..., submissions, base workloads)."""
        integral = grid_scores if self.mode == "algoperf" else exact_scores
        return integral(ratio, self.rules.tau_max)


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """A scored group. Scores are relative to the best time of the group, so they hold within it only.

    scores    index submission, best first: rank, score, reached (trials at the target), trials
    times     seconds by submission and workload, as measured: infinite if missed, NaN if not run
    eligible  the times of the base workloads after the held-out rules: what the score is made of
    reasons   the same shape as `times`: why there is no time or why it does not count, or ""
    profiles  rho by tau and submission
    studies   a row a study, as `time_to_target.study_times` has it
    trials    `Field.trials`, with what the mode makes of them: seconds infinite and status changed where a
              time may not count
    problems  those of the field, and what is missing from it
    """

    field: Field
    scoring: Scoring
    scores: pd.DataFrame
    times: pd.DataFrame
    eligible: pd.DataFrame
    reasons: pd.DataFrame
    profiles: pd.DataFrame
    studies: pd.DataFrame
    trials: pd.DataFrame
    problems: tuple[Problem, ...]

    @property
    def mode(self) -> Mode:
        return self.scoring.mode

    @property
    def rules(self) -> Ruleset:
        return self.scoring.rules


def default_mode(field: Field) -> Mode:
    """`exact` for runs that Timetrial made, `algoperf` for a field of AlgoPerf's logs."""
    return "exact" if field.trials["is_ours"].any() else "algoperf"


def score_field(field: Field, mode: Mode | None = None, reference: pd.Series | None = None) -> Leaderboard:
    """Score the submissions of a field against each other, or against frozen `reference` times by workload."""
    mode = mode or default_mode(field)
    held_out = _held_out(field, mode)
    trials = _as_the_mode_has_them(field.trials, mode)
    variants = {variant for names in held_out.values() for variant in names}
    workloads = [
        name for name in field.goals if name in (field.rules.goals or field.goals) or name in variants
    ]
    studies = study_times(field.trials, mode, field.rules)
    studies = studies[studies.index.get_level_values("workload").isin(workloads)]
    submissions = sorted(trials["submission"].unique())
    times = workload_times(studies).reindex(index=submissions, columns=workloads)
    scoring = Scoring(
        mode=mode, rules=field.rules, workloads=workloads, held_out=held_out, reference=reference
    )
    counted = scoring.eligible(times.to_numpy())
    ratio = scoring.ratios(times.to_numpy())
    scores = _score_frame(
        pd.Series(scoring.scores(ratio), index=times.index), trials[trials["workload"].isin(workloads)]
    )
    order = scores.index
    base = times.columns[scoring.is_base]
    eligible = pd.DataFrame(counted, index=times.index, columns=times.columns)
    rho = profile(ratio, taus := _taus(ratio, field.rules.tau_max, mode))
    return Leaderboard(
        field=field,
        scoring=scoring,
        scores=scores,
        times=times.loc[order],
        eligible=eligible.loc[order, base],
        reasons=_reason_frame(times, eligible, trials, scoring).loc[order],
        profiles=pd.DataFrame(rho.T, index=pd.Index(taus, name="tau"), columns=times.index)[order],
        studies=studies,
        trials=trials,
        problems=(*field.problems, *incomplete(field, studies, mode)),
    )


def score_times(times: pd.DataFrame, rules: Ruleset, mode: Mode = "exact") -> pd.DataFrame:
    """Scores of a table of times: seconds, a row a submission, a column a workload; infinite missed, NaN not run.

    The result has columns rank and score, best first. Workloads of the rules that the table lacks give no credit
    and count in the mean; columns that the rules do not know are left out. Pocket rules take all columns.
    """
    times = times.reindex(columns=list(rules.goals) or list(times.columns))
    held_out = {base: (variant,) for base, variant in rules.held_out.items()}
    scoring = Scoring(mode=mode, rules=rules, workloads=list(times.columns), held_out=held_out)
    score = scoring.scores(scoring.ratios(times.to_numpy(dtype=float)))
    frame = pd.DataFrame({"rank": ranks(score), "score": score}, index=times.index)
    return frame.sort_values("score", ascending=False, kind="stable")


def _held_out(field: Field, mode: Mode) -> dict[str, tuple[str, ...]]:
    """The variants that must be reached too.

    AlgoPerf's scorer drops variants that a version does not score only where the version has held-out workloads;
    otherwise it lets them take their base along. That is repeated in its mode.
    """
    if field.rules.held_out or mode == "exact":
        return {base: (variant,) for base, variant in field.rules.held_out.items()}
    present = {base: tuple(v for v in VARIANTS.get(base, ()) if v in field.goals) for base in field.goals}
    return {base: variants for base, variants in present.items() if variants}


def _as_the_mode_has_them(trials: pd.DataFrame, mode: Mode) -> pd.DataFrame:
    """The trials with no time where none may count: row -1, infinite, and status and reason that say so."""
    excluded = ~is_within_rules(trials, mode)
    late = excluded & (trials["status"] != Status.VOID.value)
    return trials.assign(
        row=trials["row"].where(~excluded, -1),
        seconds=trials["seconds"].where(~excluded, math.inf),
        status=trials["status"].where(~late, Status.BUDGET.value),
        reason=trials["reason"].where(~late, TOO_LATE),
    )


def _score_frame(score: pd.Series, trials: pd.DataFrame) -> pd.DataFrame:
    """Scores with ranks, best first; equal scores share a rank and stand in order of their names."""
    by_submission = trials.assign(reached=trials["row"] >= 0).groupby("submission")
    frame = pd.DataFrame(
        {
            "rank": ranks(score.to_numpy()),
            "score": score,
            "reached": by_submission["reached"].sum(),
            "trials": by_submission.size(),
        },
        index=score.index,
    )
    frame[["reached", "trials"]] = frame[["reached", "trials"]].fillna(0).astype(int)
    return frame.sort_values("score", ascending=False, kind="stable").rename_axis("submission")


def _reason_frame(
    times: pd.DataFrame, eligible: pd.DataFrame, trials: pd.DataFrame, scoring: Scoring
) -> pd.DataFrame:
    """Why a cell of `times` has no time (the commonest status of its missed trials) or does not count."""
    missed = trials[trials["row"] < 0]
    counts = missed.groupby([*CELL, "status"]).size().sort_values(ascending=False, kind="stable")
    commonest = counts.reset_index("status")["status"]
    status = (
        commonest[~commonest.index.duplicated()]
        .unstack("workload")
        .reindex(index=times.index, columns=times.columns)
    )
    measured, counted = times < math.inf, eligible < math.inf
    reasons = pd.DataFrame("", index=times.index, columns=times.columns)
    reasons = reasons.mask(measured & ~counted, HELD_OUT_MISSED)
    reasons = reasons.mask(measured & (times > scoring.rules.tau_max * times.min()), TOO_SLOW)
    reasons = reasons.mask(~measured, status)
    return reasons.mask(~measured & status.isna() & times.isna(), NOT_RUN).fillna(MISSED)


def _taus(ratio: np.ndarray, tau_max: float, mode: Mode) -> np.ndarray:
    """Where to state the profile: AlgoPerf's grid, or every point at which a profile jumps."""
    if mode == "algoperf":
        return grid(tau_max)
    jumps = np.unique(ratio)
    return np.unique([1.0, tau_max, *jumps[(jumps > 1) & (jumps < tau_max)]])
