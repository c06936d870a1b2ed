"""The leaderboard: everything that scoring knows about a group of submissions, as pandas frames."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from timetrial.engine.errors import RecordError, UsageError
from timetrial.engine.outcome import SENTENCE, Status
from timetrial.engine.records import TrialDirectory
from timetrial.scoring.held_out import eligible_times
from timetrial.scoring.ledger_parts import ledger_frame
from timetrial.scoring.log_tree import Problem, TrialFolder, find_trials
from timetrial.scoring.machines import machine_frame
from timetrial.scoring.profiles import exact_scores, grid, grid_scores, profiles, ratios
from timetrial.scoring.readers import TrialLog, read_goal, read_trial_log
from timetrial.scoring.rules import POCKET, RULESETS, V05, V06, Goal, Ruleset
from timetrial.scoring.time_to_target import NEVER, Mode, first_crossing, median_times, study_times

NO_EVALUATIONS = "no evaluations"
MISSED = "missed"
UNFINISHED = "unfinished"
NOT_RUN = "not run"
HELD_OUT_MISSED = "held-out workload missed"
TOO_SLOW = "too far behind the best time to score"
TOO_LATE = "the target was reached only when the budget was used up"


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """A scored group. Scores are relative to the best time of the group, so they hold within it only.

    scores    index submission, best first: rank, score, reached (trials at the target), trials
    times     seconds by submission and workload, as measured: infinite if missed, NaN if not run
    eligible  the times of the base workloads after the held-out rules: what the score is made of
    reasons   the same shape as `times`: why there is no time or why it does not count, or ""
    profiles  rho by tau and submission
    trials    a row a trial: submission, study, workload, framework, trial, path, counts, row (evaluation
              number of the hit, or -1), seconds, best, status, reason, flags, official, evaluations
    curves    a row an evaluation: trial (row of `trials`), seconds, step, value
    ledger    nanoseconds by trial (row of `trials`) and part, for trials that have a ledger
    machines  a row a submission: machine and versions, as far as the logs tell
    """

    mode: Mode
    rules: Ruleset
    goals: Mapping[str, Goal]
    scores: pd.DataFrame
    times: pd.DataFrame
    eligible: pd.DataFrame
    reasons: pd.DataFrame
    profiles: pd.DataFrame
    trials: pd.DataFrame
    curves: pd.DataFrame
    ledger: pd.DataFrame
    machines: pd.DataFrame
    problems: list[Problem]


def score_directories(paths: Sequence[Path], rules: str | None = None, mode: Mode = "exact") -> Leaderboard:
    """Score every submission below `paths` against each other.

    `rules` is "pocket", "v0.5" or "v0.6"; None finds out which. Damaged files end up in `problems`. Raises
    UsageError if there is nothing to score, or if runs of one workload disagree on its target.
    """
    problems: list[Problem] = []
    folders = find_trials([Path(path) for path in paths], problems)
    ruleset = RULESETS[rules] if rules else detect_rules(folders)
    goals = ruleset.goals or goals_of_runs(folders, problems)
    scored = [folder for folder in folders if folder.workload in goals]
    if not scored:
        found = ", ".join(sorted({folder.workload for folder in folders}))
        wanted = ", ".join(goals) or f"a goal in the runs ({problems[-1].message})"
        raise UsageError(f"no trial can be scored by the {ruleset.name} rules: found {found}, need {wanted}")
    logs = [read_trial_log(folder, goals[folder.workload].metric.name, problems) for folder in scored]
    return assemble(logs, goals, ruleset, mode, problems)


def detect_rules(folders: Sequence[TrialFolder]) -> Ruleset:
    """Pocket unless an AlgoPerf workload was run; then v0.5 if a held-out variant or a fourth study was."""
    workloads = {folder.workload for folder in folders}
    if not workloads & set(V05.goals):
        return POCKET
    studies = V06.studies or 0
    if workloads & set(V05.held_out.values()) or any(folder.study >= studies for folder in folders):
        return V05
    return V06


def goals_of_runs(folders: Sequence[TrialFolder], problems: list[Problem]) -> dict[str, Goal]:
    """The goal of every workload, from the runs' own meta data. UsageError where two runs disagree."""
    goals: dict[str, tuple[Goal, Path]] = {}
    for folder in folders:
        path = TrialDirectory(path=folder.path).meta_data
        try:
            goal = read_goal(path)
        except FileNotFoundError:
            problems.append(Problem(str(path), "is missing, so this trial does not tell its goal"))
            continue
        except RecordError as error:
            problems.append(Problem(str(path), str(error)))
            continue
        known, where = goals.setdefault(folder.workload, (goal, path))
        if known != goal:
            raise UsageError(
                f"{folder.workload} has the goal {known} in {where} but {goal} in {path}; "
                "score runs of one version of a workload at a time"
            )
    return {workload: goal for workload, (goal, _) in sorted(goals.items())}


def assemble(
    logs: Sequence[TrialLog], goals: Mapping[str, Goal], rules: Ruleset, mode: Mode, problems: list[Problem]
) -> Leaderboard:
    """The leaderboard of trials already read."""
    trials = pd.DataFrame([trial_row(log, goals[log.folder.workload], mode) for log in logs])
    studies = study_times(trials, mode)
    submissions = sorted(trials["submission"].unique())
    times = median_times(studies).reindex(index=submissions, columns=list(goals))
    eligible = eligible_times(times, rules)
    ratio = ratios(eligible)
    score = (grid_scores if mode == "algoperf" else exact_scores)(ratio, rules.tau_max)
    scores = score_frame(score, trials)
    order = scores.index
    problems.extend(incomplete(studies, trials, rules))
    return Leaderboard(
        mode=mode,
        rules=rules,
        goals=goals,
        scores=scores,
        times=times.loc[order],
        eligible=eligible.loc[order],
        reasons=reason_frame(times, eligible, trials, rules.tau_max).loc[order],
        profiles=profiles(ratio.loc[order], _taus(ratio, rules.tau_max, mode)),
        trials=trials,
        curves=curve_frame(logs),
        ledger=ledger_frame(logs),
        machines=machine_frame(logs).loc[order],
        problems=problems,
    )


def trial_row(log: TrialLog, goal: Goal, mode: Mode) -> dict[str, object]:
    """One row of `Leaderboard.trials`.

    A trial counts when it was evaluated; in mode `exact` also when our own record shows that it was run. A
    void trial counts as a miss.
    """
    record, evaluations = log.record, log.evaluations
    crossing = first_crossing(evaluations.seconds, evaluations.values, goal)
    status = "target" if crossing.row >= 0 else MISSED if evaluations.seconds else NO_EVALUATIONS
    reason = ""
    if record is not None:
        status, reason = record.status.value, record.reason or SENTENCE[record.status]
        too_late = record.budget_sec is not None and crossing.seconds >= record.budget_sec
        if record.status is Status.VOID:
            crossing = NEVER
        elif mode == "exact" and too_late and crossing.row >= 0:
            crossing, status, reason = NEVER, Status.BUDGET.value, TOO_LATE
    elif log.accounts is not None:
        status, reason = UNFINISHED, "there is no trial.json: the trial is still running or was cut off"
    values = [value for value in evaluations.values if not math.isnan(value)]
    best = (max if goal.metric.better == "higher" else min)(values, default=math.nan)
    folder = log.folder
    return {
        "submission": folder.submission,
        "study": folder.study,
        "workload": folder.workload,
        "framework": folder.framework,
        "trial": folder.trial,
        "path": str(folder.path),
        "counts": bool(evaluations.seconds) or (mode == "exact" and record is not None),
        "row": crossing.row,
        "seconds": crossing.seconds,
        "best": best,
        "status": status,
        "reason": reason,
        "flags": ", ".join(record.flags) if record else "",
        "official": record.official if record else None,
        "evaluations": len(evaluations.seconds),
    }


def score_frame(score: pd.Series, trials: pd.DataFrame) -> pd.DataFrame:
    """Scores with ranks, best first; equal scores share a rank and stand in order of their names."""
    by_submission = trials.assign(reached=trials["row"] >= 0).groupby("submission")
    frame = pd.DataFrame(
        {
            "rank": score.rank(ascending=False, method="min").astype(int),
            "score": score,
            "reached": by_submission["reached"].sum(),
            "trials": by_submission.size(),
        }
    )
    return frame.sort_values("score", ascending=False, kind="stable").rename_axis("submission")


def reason_frame(
    times: pd.DataFrame, eligible: pd.DataFrame, trials: pd.DataFrame, tau_max: float
) -> pd.DataFrame:
    """Why a cell of `times` has no time (the commonest status of its missed trials) or does not count."""
    missed = trials[trials["row"] < 0]
    common = missed.groupby(["submission", "workload"])["status"].agg(lambda status: status.mode().iloc[0])
    statuses: dict[object, str] = common.to_dict()
    counted = eligible.reindex(columns=times.columns).fillna(0.0)

    limits = tau_max * times.min()

    def reason(submission: object, workload: object, seconds: float, counts: float, limit: float) -> str:
        if limit < seconds < math.inf:
            return TOO_SLOW
        if math.isfinite(seconds):
            return "" if math.isfinite(counts) else HELD_OUT_MISSED
        return statuses.get((submission, workload), NOT_RUN if math.isnan(seconds) else MISSED)

    rows = {
        submission: [
            reason(submission, *cell)
            for cell in zip(
                times.columns, times.loc[submission], counted.loc[submission], limits, strict=True
            )
        ]
        for submission in times.index
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(times.columns))


def curve_frame(logs: Sequence[TrialLog]) -> pd.DataFrame:
    """All curves, one below the other."""
    lengths = [len(log.evaluations.seconds) for log in logs]
    return pd.DataFrame(
        {
            "trial": np.repeat(np.arange(len(logs)), lengths),
            "seconds": np.concatenate([np.asarray(log.evaluations.seconds) for log in logs]),
            "step": np.concatenate([np.asarray(log.evaluations.steps) for log in logs]),
            "value": np.concatenate([np.asarray(log.evaluations.values) for log in logs]),
        }
    )


def incomplete(studies: pd.Series, trials: pd.DataFrame, rules: Ruleset) -> list[Problem]:
    """One problem for every submission whose medians are over fewer studies than the rules ask for."""
    if studies.empty:
        return []
    found = studies.groupby(level=["submission", "workload"]).size().unstack("workload")
    expected = rules.studies or int(found.max().max())
    problems = []
    for submission, counts in found.reindex(trials["submission"].unique()).fillna(0).iterrows():
        short = [f"{workload} ({n:.0f})" for workload, n in counts.items() if 0 < n < expected]
        if short:
            message = f"fewer than {expected} studies, so medians are over those present: {', '.join(short)}"
            problems.append(Problem(str(submission), message))
    return problems


def _taus(ratio: pd.DataFrame, tau_max: float, mode: Mode) -> list[float]:
    """Where to state the profile: AlgoPerf's grid, or every point at which a profile jumps."""
    if mode == "algoperf":
        return grid(tau_max)
    jumps = np.unique(ratio.to_numpy())
    return sorted({1.0, tau_max, *(float(tau) for tau in jumps if tau <= tau_max)})
