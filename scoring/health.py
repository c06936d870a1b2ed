"""How healthy every trial was, so that a broken harness is never read as a slow algorithm.

A trial has one outcome, and any number of concerns: signs that its time, or that it has none, says something of the
machine or the harness instead of the algorithm. Nothing here changes a score.
"""

import enum
import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from timetrial.engine.outcome import Status
from timetrial.scoring.leaderboard import Leaderboard
from timetrial.scoring.memory_logs import ran_out_of_memory
from timetrial.scoring.problems import Kind
from timetrial.scoring.rules import Ruleset
from timetrial.scoring.time_to_target import CELL
from timetrial.scoring.trial_row import EXTERNAL, UNFINISHED

TOO_SLOW = 1.5  # times the pace expected of a step
LONG_GAP = 2.0  # times the usual interval: an evaluation is missing
NEARLY = 0.99  # of the steps planned


class Outcome(enum.StrEnum):
    """How a trial ended."""

    TARGET = "target"
    MISSED = "missed"  # it had its whole budget
    DIVERGED = "diverged"
    TRUNCATED = "truncated"  # it ended early, without a word
    CRASHED = "crashed"
    OUT_OF_MEMORY = "out of memory"
    HUNG = "hung"
    VOID = "void"
    UNFINISHED = "unfinished"


class Concern(enum.StrEnum):
    """Why a trial's time may not be the algorithm's."""

    SLOWER_THAN_ITSELF = "slower than its other trials"
    SLOWER_THAN_EXPECTED = "slower than expected"
    SAME_SEED = "same seed"
    SEED_OF_ANOTHER_STUDY = "seed of another study"
    SAME_HYPERPARAMETERS = "same hyperparameters"
    CLOCK = "time going backwards"
    EVALUATION_MISSING = "evaluation missing"
    OTHER_MACHINE = "another machine"
    OTHER_KERNELS = "other kernels"


SLOW = {Concern.SLOWER_THAN_ITSELF, Concern.SLOWER_THAN_EXPECTED}

_OF_STATUS = {
    Status.TARGET.value: Outcome.TARGET.value,
    Status.BUDGET.value: Outcome.MISSED.value,
    Status.COMPLETED.value: Outcome.MISSED.value,
    Status.DIVERGED.value: Outcome.DIVERGED.value,
    Status.CRASHED.value: Outcome.CRASHED.value,
    Status.HUNG.value: Outcome.HUNG.value,
    Status.VOID.value: Outcome.VOID.value,
    UNFINISHED: Outcome.UNFINISHED.value,
}


def trial_health(board: Leaderboard, stored_paces: pd.DataFrame | None = None) -> pd.DataFrame:
    """A row a trial, as in `Leaderboard.trials`: outcome, detail (a sentence), concerns (a tuple), label,
    expected_pace (seconds a step).

    The label is what to read first: the outcome, but "too slow" for a miss at a pace that is not the algorithm's,
    and "suspicious" for a time or a miss with any other concern.

    `stored_paces`: seconds a step by submission and workload (`step_seconds` of an earlier scoring) to expect
    instead of the rules' pace.
    """
    trials = board.trials
    outcome, detail = _outcomes(trials, board.rules)
    expected = _expected_pace(trials, stored_paces)
    concerns: list[list[str]] = [[] for _ in range(len(trials))]
    slow, doubtful = np.zeros((2, len(trials)), dtype=bool)
    for concern, mask in _concerns(board, expected):
        holds = mask.to_numpy(dtype=bool)
        slow |= holds & (concern in SLOW)
        doubtful |= holds & (concern not in SLOW)
        for number in np.flatnonzero(holds):
            concerns[number].append(concern.value)
    label = outcome.mask(outcome.isin([Outcome.TARGET.value, Outcome.MISSED.value]) & doubtful, "suspicious")
    return pd.DataFrame(
        {
            "outcome": outcome,
            "detail": detail,
            "concerns": list(map(tuple, concerns)),
            "label": label.mask((outcome == Outcome.MISSED.value) & slow, "too slow"),
            "expected_pace": expected,
        },
        index=trials.index,
    )


def step_seconds(board: Leaderboard) -> pd.DataFrame:
    """Seconds a step: the median over trials, by submission and workload; NaN where the logs do not tell."""
    paces = board.trials.groupby(CELL)["step_seconds"].median().unstack("workload")
    return paces.reindex(index=board.times.index, columns=board.times.columns)


def _outcomes(trials: pd.DataFrame, rules: Ruleset) -> tuple[pd.Series, pd.Series]:
    """How every trial ended, and a sentence on it where the outcome does not say it all."""
    ours = trials["is_ours"]
    evaluated = trials["evaluations"] > 0
    cut_off = evaluated & _is_cut_off(trials, rules.ends_at_step_hint)
    known = [
        (ours, trials["status"].map(_OF_STATUS)),
        (trials["row"] >= 0, Outcome.TARGET.value),
        (~evaluated, Outcome.CRASHED.value),
        (~trials["is_finite"], Outcome.DIVERGED.value),
        (cut_off, Outcome.TRUNCATED.value),
    ]
    outcome = pd.Series(Outcome.MISSED.value, index=trials.index)
    for holds, value in reversed(known):
        outcome = outcome.mask(holds, value)
    share = 100 * trials["end_seconds"] / trials["budget"]
    detail = trials["reason"].mask(outcome == Outcome.TARGET.value, "")
    for ended, text in (
        (Outcome.CRASHED, "ended before the first evaluation"),
        (Outcome.DIVERGED, "the last evaluation holds NaN or infinity"),
        (Outcome.TRUNCATED, share.map("ended at {:.2g} % of its budget".format)),
    ):
        detail = detail.mask(~ours & (outcome == ended.value), text)
    for number in trials.index[outcome.isin([Outcome.CRASHED.value, Outcome.TRUNCATED.value])]:
        if "memory" in str(trials.at[number, "reason"]) or ran_out_of_memory(str(trials.at[number, "path"])):
            outcome[number] = Outcome.OUT_OF_MEMORY.value
    return outcome, detail


def _is_cut_off(trials: pd.DataFrame, ends_at_step_hint: bool) -> pd.Series:
    """Whether one more evaluation would have fitted into the budget, and the steps planned were not done."""
    interval = trials[["gap", "eval_period"]].max(axis=1).fillna(0.0)
    has_time = trials["end_seconds"] + 1.5 * interval < trials["budget"]
    done = ends_at_step_hint & (trials["end_step"] >= NEARLY * trials["step_hint"])
    return has_time & ~done


def _concerns(board: Leaderboard, expected_pace: pd.Series) -> Iterator[tuple[Concern, pd.Series]]:
    """Every concern, and the trials it is about."""
    trials = board.trials
    pace = trials["step_seconds"]
    usual = pace.groupby([trials[name] for name in CELL]).transform("median")
    yield Concern.SLOWER_THAN_ITSELF, pace > TOO_SLOW * usual
    yield Concern.SLOWER_THAN_EXPECTED, pace > TOO_SLOW * expected_pace
    seed = trials["seed"]
    has_seed = seed.notna()
    yield Concern.SAME_SEED, has_seed & trials.duplicated([*CELL, "study", "seed"], keep=False)
    studies = trials["study"].groupby([trials["submission"], trials["workload"], seed]).transform("nunique")
    yield Concern.SEED_OF_ANOTHER_STUDY, has_seed & (studies > 1)
    same = trials.duplicated([*CELL, "study", "hyperparameters"], keep=False)
    tuned = (trials["tuning"] == EXTERNAL) & trials["hyperparameters"].notna()
    yield Concern.SAME_HYPERPARAMETERS, tuned & same
    went_back = {problem.file.rpartition("/")[0] for problem in board.problems if problem.kind is Kind.TIME}
    yield Concern.CLOCK, trials["path"].isin(went_back)
    interval = np.fmax(trials["gap"], trials["eval_period"].fillna(0.0))
    yield Concern.EVALUATION_MISSING, trials["largest_gap"] > LONG_GAP * interval
    yield Concern.OTHER_MACHINE, _is_not_as_most(trials, "machine")
    yield Concern.OTHER_KERNELS, _is_not_as_most(trials, "kernels")


def _is_not_as_most(trials: pd.DataFrame, column: str) -> pd.Series:
    """Whether what is recorded is another than of most trials of the submission on the workload."""
    known = trials[column].where(trials[column] != "")
    most = known.groupby([trials[name] for name in CELL]).transform(
        lambda texts: texts.mode().iloc[0] if texts.notna().any() else None
    )
    return known.notna() & (known != most)


def _expected_pace(trials: pd.DataFrame, stored_paces: pd.DataFrame | None) -> pd.Series:
    """Seconds a step to expect of every trial: stored, or what budget and steps planned amount to."""
    if stored_paces is None:
        return trials["budget"] / trials["step_hint"]
    table = stored_paces.stack().to_dict()
    keys = zip(trials["submission"], trials["workload"], strict=True)
    return pd.Series([table.get(key, math.nan) for key in keys], index=trials.index)
