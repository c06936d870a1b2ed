"""What is missing from a field, or too much in it: studies and trials that the rules ask for."""

import os
from collections.abc import Iterator

import pandas as pd

from timetrial.scoring.field import Field
from timetrial.scoring.log_tree import submission_folder
from timetrial.scoring.problems import Kind, Problem
from timetrial.scoring.time_to_target import CELL, Mode
from timetrial.scoring.trial_row import EXTERNAL


def incomplete(field: Field, studies: pd.DataFrame, mode: Mode) -> Iterator[Problem]:
    """One problem for each submission and workload that has not as many studies, or trials a study, as it should.

    Should: what the rules say; where they leave it open, what the submission has elsewhere. `studies` are those
    that the mode takes into account.
    """
    decided = studies[studies["number"] >= 0].groupby(level=CELL).size()
    yield from _studies(field, decided, mode)
    yield from _trials(field)
    yield from _tuning(field)


def _studies(field: Field, decided: pd.Series, mode: Mode) -> Iterator[Problem]:
    effect = "a missing study counts as a miss" if mode == "exact" else "the median is over those present"
    most = decided.groupby(level="submission").max()
    scored = field.trials[field.trials["workload"].isin(field.rules.goals or field.goals)]
    for (submission, workload), trials in scored.groupby(CELL):
        present = int(decided.get((submission, workload), 0))
        expected = field.rules.studies or int(most.get(submission, 0))
        if present == expected:
            continue
        message = f"{submission} on {workload}: {present} studies were evaluated, {expected} should be"
        consequence = effect if 0 < present < expected else "all count" if present else "no time, no credit"
        yield Problem(Kind.STUDIES, submission_folder(trials["path"].iloc[0]), message, consequence)


def _trials(field: Field) -> Iterator[Problem]:
    """Folders of trials, evaluated or not: what was never begun, or begun too often."""
    external = field.trials[field.trials["tuning"] == EXTERNAL]
    counts = external.groupby([*CELL, "study"]).agg(count=("trial", "size"), path=("path", "first"))
    most = counts["count"].groupby(level="submission").transform("max")
    counts["expected"] = field.rules.trials or most
    wrong = counts[counts["count"] != counts["expected"]]
    for (submission, workload), group in wrong.groupby(level=CELL):
        found = ", ".join(
            f"study {study} has {count}"
            for study, count in zip(group.index.get_level_values("study"), group["count"], strict=True)
        )
        message = f"{submission} on {workload}: {found}; {group['expected'].iloc[0]} trials a study should be"
        where = submission_folder(group["path"].iloc[0])
        yield Problem(Kind.TRIALS, where, message, "the fastest of those there counts")


def _tuning(field: Field) -> Iterator[Problem]:
    """Submissions that are tuned and submissions that tune themselves have other budgets and are no one group."""
    by_tuning = field.trials.groupby("tuning")["submission"].unique()
    if len(by_tuning) > 1:
        groups = [f"{', '.join(map(str, names))} ({tuning} tuning)" for tuning, names in by_tuning.items()]
        where = os.path.commonpath([submission_folder(path) for path in field.trials["path"].iloc[[0, -1]]])
        message = f"the rules score these apart: {'; '.join(groups)}"
        yield Problem(Kind.TUNING, where, message, "scored together all the same")
