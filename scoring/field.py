"""A field: everything that was read of a group of submissions, as pandas frames. Nothing in it depends on a mode."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from timetrial.engine.errors import UsageError
from timetrial.scoring.field_reader import Batch, read_all
from timetrial.scoring.ledger_parts import PARTS
from timetrial.scoring.log_tree import TrialFolder, find_trials, submission_folder
from timetrial.scoring.problems import Kind, Problem
from timetrial.scoring.rules import POCKET, RULESETS, V05, V06, V10, VARIANTS, Goal, Ruleset, base_of
from timetrial.scoring.trial_log import read_meta_data
from timetrial.scoring.trial_row import TrialRow

_NOT_SCORED = "left out"


@dataclass(frozen=True, kw_only=True)
class Field:
    """What was read.

    trials    a row a trial, with the columns of `TrialRow`, in order of submission, study, workload and trial
    curves    a row an evaluation: trial (row of `trials`), seconds, step, value
    ledger    nanoseconds by trial (row of `trials`) and part, for trials that have a ledger
    problems  everything in the logs that was damaged, missing or left out

    `goals` are those of the rules; under rules without held-out workloads also those of variants in the logs, which
    count in mode algoperf alone.
    """

    rules: Ruleset
    goals: Mapping[str, Goal]
    trials: pd.DataFrame
    curves: pd.DataFrame
    ledger: pd.DataFrame
    problems: tuple[Problem, ...]


def read_field(paths: Sequence[Path | str], rules: str | None = None, processes: int = 1) -> Field:
    """Read every submission below `paths`.

    `rules` is a name in `RULESETS`; None finds out which. With `processes` over 1, large fields are read by
    several worker processes; a script that asks for them needs the usual `if __name__ == "__main__":`.
    Raises UsageError if there is nothing to score, or if runs of one workload disagree on its target.
    """
    problems: list[Problem] = []
    folders = find_trials([Path(path) for path in paths], problems)
    ruleset = RULESETS[rules] if rules else detect_rules(folders)
    goals = dict(ruleset.goals) or _goals_of_runs(folders, problems)
    problems += _not_scored(folders, goals, ruleset)
    goals |= _variants_to_read(folders, ruleset)
    scored = [folder for folder in folders if folder.workload in goals]
    if not scored:
        found = ", ".join(sorted({folder.workload for folder in folders}))
        wanted = ", ".join(goals) or f"a goal in the runs ({problems[-1].message})"
        raise UsageError(f"no trial can be scored by the {ruleset.name} rules: found {found}, need {wanted}")
    batch = read_all(scored, goals, ruleset, processes)
    problems += batch.problems
    return Field(
        rules=ruleset,
        goals=goals,
        trials=_trials(batch),
        curves=_curves(batch),
        ledger=_ledger(batch),
        problems=tuple(problems),
    )


def detect_rules(folders: Sequence[TrialFolder]) -> Ruleset:
    """Pocket unless an AlgoPerf workload was run; v1.0 with the language model, v0.5 with its signs, or v0.6.

    The signs of v0.5 are a held-out variant and a fourth study.
    """
    workloads = {folder.workload for folder in folders}
    if not workloads & set(V10.goals) and not workloads & set(V05.goals):
        return POCKET
    if "finewebedu_lm" in workloads:
        return V10
    if workloads & set(V05.held_out.values()) or any(
        folder.study >= (V06.studies or 0) for folder in folders if folder.workload in V06.goals
    ):
        return V05
    return V06


def _goals_of_runs(folders: Sequence[TrialFolder], problems: list[Problem]) -> dict[str, Goal]:
    """The goal of every workload, from the runs' own meta data. UsageError where two runs disagree."""
    goals: dict[str, tuple[Goal, str]] = {}
    for folder in folders:
        path = f"{folder.path}/meta_data_0.json"
        known_problems = len(problems)
        meta = read_meta_data(folder, problems)
        goal = meta.goal() if meta is not None else None
        if goal is None:
            if len(problems) == known_problems:
                problems.append(
                    Problem(
                        Kind.JSON,
                        path,
                        "is missing" if meta is None else "does not name metric, direction and target",
                        "another trial's goal is used",
                    )
                )
            continue
        known, where = goals.setdefault(folder.workload, (goal, path))
        if known != goal:
            raise UsageError(
                f"{folder.workload} has the goal {known} in {where} but {goal} in {path}; "
                "score runs of one version of a workload at a time"
            )
    return {workload: goal for workload, (goal, _) in sorted(goals.items())}


def _variants_to_read(folders: Sequence[TrialFolder], rules: Ruleset) -> dict[str, Goal]:
    """The variants in the logs that take their base along in mode algoperf: where a version has no held-out ones."""
    if rules.held_out:
        return {}
    present = {folder.workload for folder in folders}
    return {
        name: goal for base in rules.goals for name, goal in VARIANTS.get(base, {}).items() if name in present
    }


def _not_scored(folders: Sequence[TrialFolder], goals: Mapping[str, Goal], rules: Ruleset) -> list[Problem]:
    """One problem for each submission and workload whose trials the rules do not score."""
    first: dict[tuple[str, str], str] = {}
    count: dict[tuple[str, str], int] = {}
    for folder in folders:
        if folder.workload not in goals:
            key = (folder.submission, folder.workload)
            first.setdefault(key, folder.path)
            count[key] = count.get(key, 0) + 1
    problems = []
    for (submission, workload), path in first.items():
        base = base_of(workload)
        if rules is POCKET:
            why = "none of its runs names a goal"
        elif base is None:
            why = "no workload of AlgoPerf"
        elif workload in VARIANTS[base]:
            why = f"a variant of {base} that the {rules.name} rules do not score"
            if not rules.held_out:
                why += (
                    ", though in mode algoperf a missed variant takes its base along, as in AlgoPerf's scorer"
                )
        else:
            why = f"not a workload of the {rules.name} rules"
        message = f"{submission} on {workload}, {count[submission, workload]} trials: {why}"
        problems.append(Problem(Kind.WORKLOAD, submission_folder(path), message, _NOT_SCORED))
    return problems


def _trials(batch: Batch) -> pd.DataFrame:
    """A column for each field of `TrialRow`. Seeds stay Python integers: as floats, two could become one."""
    columns = dict(zip(TrialRow._fields, zip(*batch.rows, strict=True), strict=True))
    seeds = pd.Series(columns.pop("seed"), dtype=object)
    return pd.DataFrame({name: list(values) for name, values in columns.items()}).assign(seed=seeds)


def _curves(batch: Batch) -> pd.DataFrame:
    """All curves, one below the other."""
    lengths = [row.evaluations for row in batch.rows]
    return pd.DataFrame(
        {
            "trial": np.repeat(np.arange(len(lengths)), lengths),
            "seconds": np.concatenate(batch.seconds),
            "step": np.concatenate(batch.steps),
            "value": np.concatenate(batch.values),
        }
    )


def _ledger(batch: Batch) -> pd.DataFrame:
    rows = {number: parts for number, parts in enumerate(batch.ledgers) if parts is not None}
    return pd.DataFrame.from_dict(rows, orient="index", columns=PARTS, dtype="int64").rename_axis("trial")
