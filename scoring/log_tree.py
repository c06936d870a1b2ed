"""Where the trials are: walks our run directories and AlgoPerf's log trees.

    ANY/.../SUBMISSION/study_K/WORKLOAD_FRAMEWORK/trial_N/

A folder given may be a submission or lie at most three levels above one (AlgoPerf trees have a ruleset or a
team level in between). `SUBMISSION-YYYY-MM-DD-HH-MM-SS` counts as SUBMISSION, as AlgoPerf's scorer has it.
Folders of other names, such as a stray `trial_1` directly in a study, are passed over.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from timetrial.engine.errors import UsageError

LEVELS_ABOVE_A_SUBMISSION = 3

_STUDY = re.compile(r"study_(\d+)")
_TRIAL = re.compile(r"trial_(\d+)")
_WORKLOAD = re.compile(r"(.+)_(jax|pytorch|torch)")
_TIMESTAMP = re.compile(r"-\d{4}(-\d{2}){5}$")


class Problem(NamedTuple):
    """Something in the logs that a reader should know of, and the file or folder it is about."""

    file: str
    message: str


@dataclass(frozen=True, kw_only=True)
class TrialFolder:
    """One trial's place in the tree."""

    path: Path
    submission: str
    study: int
    workload: str
    framework: str
    trial: int

    @property
    def key(self) -> tuple[str, int, str, str, int]:
        return (self.submission, self.study, self.workload, self.framework, self.trial)


def find_trials(paths: Sequence[Path], problems: list[Problem]) -> list[TrialFolder]:
    """Every trial below `paths`, sorted by its key, so that no result depends on the order of a directory.

    A trial found twice is read from the first folder only, and a problem is added. A submission that ran one
    workload in two frameworks is split in two, named `SUBMISSION (jax)` and `SUBMISSION (pytorch)`.
    Raises UsageError when a path does not exist or no trial is found.
    """
    found: dict[tuple[str, int, str, str, int], TrialFolder] = {}
    seen: set[Path] = set()
    for path in paths:
        if not path.is_dir():
            raise UsageError(f"{path} is not a folder; name a folder of submissions or one submission")
        for submission in _submissions_below(path.resolve(), LEVELS_ABOVE_A_SUBMISSION):
            if submission in seen:
                continue
            seen.add(submission)
            for trial in _trials_of(submission):
                first = found.setdefault(trial.key, trial)
                if first is not trial:
                    problems.append(
                        Problem(str(trial.path), f"the same trial as {first.path}; only that counts")
                    )
    if not found:
        raise UsageError(
            f"no trial below {', '.join(map(str, paths))}; "
            "expected folders SUBMISSION/study_0/WORKLOAD_FRAMEWORK/trial_1"
        )
    return sorted(_one_framework_each(found.values()), key=lambda trial: trial.key)


def _submissions_below(path: Path, levels: int) -> Iterator[Path]:
    folders = _folders(path)
    if any(_STUDY.fullmatch(name) for name in folders):
        yield path
    elif levels:
        for name in folders:
            yield from _submissions_below(path / name, levels - 1)


def _trials_of(submission: Path) -> Iterator[TrialFolder]:
    name = _TIMESTAMP.sub("", submission.name)
    for study in _folders(submission):
        study_match = _STUDY.fullmatch(study)
        for workload in _folders(submission / study) if study_match else ():
            workload_match = _WORKLOAD.fullmatch(workload)
            for trial in _folders(submission / study / workload) if workload_match else ():
                trial_match = _TRIAL.fullmatch(trial)
                if study_match and workload_match and trial_match:
                    yield TrialFolder(
                        path=submission / study / workload / trial,
                        submission=name,
                        study=int(study_match[1]),
                        workload=workload_match[1],
                        framework="jax" if workload_match[2] == "jax" else "pytorch",
                        trial=int(trial_match[1]),
                    )


def _folders(path: Path) -> list[str]:
    with os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def _one_framework_each(trials: Iterable[TrialFolder]) -> Iterator[TrialFolder]:
    trials = list(trials)
    frameworks = defaultdict(set)
    for trial in trials:
        frameworks[trial.submission, trial.workload].add(trial.framework)
    in_two = {submission for (submission, _), names in frameworks.items() if len(names) > 1}
    for trial in trials:
        if trial.submission in in_two:
            yield replace(trial, submission=f"{trial.submission} ({trial.framework})")
        else:
            yield trial
