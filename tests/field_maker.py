"""Makes fields in memory, for the tests of scoring that need no files."""

import math

import numpy as np
import pandas as pd

from timetrial.engine.facts import Metric
from timetrial.scoring.field import Field
from timetrial.scoring.rules import POCKET, Goal, Ruleset
from timetrial.scoring.trial_row import TrialRow

GOAL = Goal(metric=Metric(name="accuracy", better="higher"), target=0.9)

DEFAULTS = {
    "framework": "jax",
    "tuning": "external",
    "is_ours": False,
    "status": "missed",
    "reason": "",
    "flags": "",
    "official": None,
    "evaluations": 10,
    "row": -1,
    "seconds": math.inf,
    "before": math.inf,
    "step": math.inf,
    "best": 0.0,
    "end_seconds": 1e6,
    "end_step": 1e7,
    "is_finite": True,
    "step_seconds": 0.1,
    "gap": 10.0,
    "largest_gap": 10.0,
    "budget": 1e6,
    "step_hint": 1e7,
    "eval_period": 10.0,
    "seed": None,
    "hyperparameters": None,
    "evaluation_seconds": 1.0,
    "logging_seconds": 0.1,
    "other_seconds": 0.1,
    "machine": "",
    "versions": "",
}


def trial(submission, workload, study=0, number=1, seconds=math.inf, **values):
    """One row of `Field.trials`; a finite time was reached at evaluation 3, after one 10 seconds before."""
    hit = {}
    if seconds < math.inf:
        hit = {
            "row": 3,
            "seconds": float(seconds),
            "before": max(float(seconds) - 10, 0.0),
            "step": float(seconds) * 10,
            "status": "target",
        }
    where = {
        "submission": submission,
        "workload": workload,
        "study": study,
        "trial": number,
        "path": f"/logs/{submission}/study_{study}/{workload}_jax/trial_{number}",
    }
    return DEFAULTS | where | hit | values


def field_of(trials, rules: Ruleset = POCKET, problems=()):
    """A field of such rows; pocket rules have a goal for every workload there is."""
    frame = pd.DataFrame(trials).reindex(columns=TrialRow._fields)
    frame["seed"] = frame["seed"].astype(object).where(frame["seed"].notna(), None)
    goals = dict(rules.goals) or dict.fromkeys(sorted(frame["workload"].unique()), GOAL)
    frame = frame.sort_values(["submission", "study", "workload", "trial"], kind="stable").reset_index(
        drop=True
    )
    return Field(
        rules=rules,
        goals=goals,
        trials=frame,
        curves=pd.DataFrame({"trial": np.empty(0, int), "seconds": [], "step": [], "value": []}),
        ledger=pd.DataFrame(),
        problems=tuple(problems),
    )


def field_of_times(times, rules: Ruleset = POCKET):
    """A field from {submission: {workload: [seconds of study 0, of study 1, ...]}}."""
    return field_of(
        [
            trial(submission, workload, study, seconds=seconds)
            for submission, cells in times.items()
            for workload, studies in cells.items()
            for study, seconds in enumerate(studies)
        ],
        rules,
    )
