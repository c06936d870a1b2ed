"""Where the trials are: walks our run directories and AlgoPerf's log trees.

    ANY/.../SUBMISSION/study_K/WORKLOAD_FRAMEWORK/trial_N/

A folder given may be a submission or lie at most three levels above one (AlgoPerf trees have a ruleset or a
team level in between). `SUBMISSION-YYYY-MM-DD-HH-MM-SS` counts as SUBMISSION, as AlgoPerf's scorer has it. Folders of
one name with different parents, such as two teams', are different submissions and get their parent's name too.
What does not fit, such as a stray `trial_1` directly in a study, is passed over and reported.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from timetrial.engine.errors import UsageError
from timetrial.scoring.problems import Kind, Problem

LEVELS_ABOVE_A_SUBMISSION = 3

_STUDY = re.compile(r"study_(\d{1,9})", re.ASCII)
_TRIAL = re.compile(r"trial_(\d{1,9})", re.ASCII)
_WORKLOAD = re.compile(r"(.+)_(jax|pytorch|torch)")
_TIMESTAMP = re.compile(r"-\d{4}(-\d{2}){5}$", re.ASCII)

_IGNORED = "left out"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialFolder:
    """One trial's place in the tree. `path` is a string: a field has thousands of them."""

    path: str
    submission: str
    study: int
    workload: str
    framework: str
    trial: int
    tuning: str | None = None  # external or self, as far as the tree tells

    @property
    def key(self) -> tuple[str, int, str, str, int]:
        return (self.submission, self.study, self.workload, self.framework, self.trial)


def find_trials(paths: Sequence[Path], problems: list[Problem]) -> list[TrialFolder]:
    """Every trial below `paths`, sorted by its key, so that no result depends on the order of a directory.

    A trial found twice is read from the first folder only. A submission that ran one workload in two
    frameworks is split in two, named `SUBMISSION (jax)` and `SUBMISSION (pytorch)`.
    Raises UsageError when a path does not exist or no trial is found.
    """
    submissions: dict[str, None] = {}
    for path in paths:
        if not path.is_dir():
            raise UsageError(f"{path} is not a folder; name a folder of submissions or one submission")
        below = _submissions_below(str(path.resolve()), LEVELS_ABOVE_A_SUBMISSION, problems)
        submissions |= dict.fromkeys(below)
    found: dict[tuple[str, int, str, str, int], TrialFolder] = {}
    for submission, name in _names(submissions).items():
        for trial in _trials_of(submission, name, problems):
            first = found.setdefault(trial.key, trial)
            if first is not trial:
                message = f"the same trial as {first.path}"
                problems.append(Problem(Kind.TWICE, trial.path, message, _IGNORED))
    if not found:
        raise UsageError(
            f"no trial below {', '.join(map(str, paths))}; "
            "expected folders SUBMISSION/study_0/WORKLOAD_FRAMEWORK/trial_1"
        )
    trials = _one_framework_each(_with_tuning(list(found.values())))
    return sorted(trials, key=lambda trial: trial.key)


def submission_folder(trial: str) -> str:
    """The folder of the submission that a trial's folder lies in."""
    return trial.rsplit("/", maxsplit=3)[0]


def _submissions_below(path: str, levels: int, problems: list[Problem]) -> Iterator[str]:
    folders = _folders(path)
    if any(_STUDY.fullmatch(name) for name in folders):
        yield path
    elif levels:
        if not folders and not os.listdir(path):
            problems.append(Problem(Kind.EMPTY, path, "nothing in it", _IGNORED))
        for name in folders:
            yield from _submissions_below(f"{path}/{name}", levels - 1, problems)


def _names(submissions: Iterable[str]) -> dict[str, str]:
    """Submissions' names, by folder: without time stamp; with as much of the parents' as tells them apart."""
    folders = {path: _TIMESTAMP.sub("", path) for path in submissions}
    parents: dict[str, set[str]] = defaultdict(set)
    for folder in folders.values():
        parents[os.path.basename(folder)].add(os.path.dirname(folder))
    names = {}
    for path, folder in folders.items():
        parent, name = os.path.split(folder)
        rivals = [other.split("/") for other in parents[name] if other != parent]
        own, depth = parent.split("/"), 1
        while any(rival[-depth:] == own[-depth:] for rival in rivals):
            depth += 1
        names[path] = f"{name} ({'/'.join(own[-depth:])})" if rivals else name
    return names


def _trials_of(submission: str, name: str, problems: list[Problem]) -> Iterator[TrialFolder]:
    strays: list[str] = []
    for study in _folders(submission):
        study_match = _STUDY.fullmatch(study)
        if not study_match:
            strays.append(study)
            continue
        in_study = f"{submission}/{study}"
        yield from _trials_of_study(in_study, name, int(study_match[1]), problems)
    _report_strays(submission, strays, "study_K", problems)


def _trials_of_study(
    path: str, submission: str, study: int, problems: list[Problem]
) -> Iterator[TrialFolder]:
    strays: list[str] = []
    folders = _folders(path)
    if not folders:
        problems.append(Problem(Kind.EMPTY, path, "a study without a workload", _IGNORED))
    for workload in folders:
        match = _WORKLOAD.fullmatch(workload)
        if match is None:
            if any(_TRIAL.fullmatch(name) for name in _folders(f"{path}/{workload}")):
                message = "holds trials, but its name does not end in _jax or _pytorch"
                problems.append(Problem(Kind.FRAMEWORK, f"{path}/{workload}", message, _IGNORED))
            else:
                strays.append(workload)
            continue
        trials = 0
        for trial in _folders(f"{path}/{workload}"):
            trial_match = _TRIAL.fullmatch(trial)
            if trial_match is None:
                _report_strays(f"{path}/{workload}", [trial], "trial_N", problems)
                continue
            trials += 1
            yield TrialFolder(
                path=f"{path}/{workload}/{trial}",
                submission=submission,
                study=study,
                workload=match[1],
                framework="jax" if match[2] == "jax" else "pytorch",
                trial=int(trial_match[1]),
            )
        if not trials:
            message = "a workload without a trial"
            problems.append(Problem(Kind.EMPTY, f"{path}/{workload}", message, _IGNORED))
    _report_strays(path, strays, "WORKLOAD_FRAMEWORK", problems)


def _report_strays(path: str, names: Sequence[str], expected: str, problems: list[Problem]) -> None:
    """Folders of other names; those that begin with a dot or an underscore are nobody's concern."""
    names = [name for name in names if name[0] not in "._"]
    if names:
        message = f"holds {', '.join(names)}, not named {expected}"
        problems.append(Problem(Kind.STRAY, path, message, _IGNORED))


def _folders(path: str) -> list[str]:
    with os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


_TUNING_OF_FOLDER = {"external_tuning": "external", "self_tuning": "self"}  # a level of AlgoPerf's trees


def _with_tuning(trials: Sequence[TrialFolder]) -> Iterator[TrialFolder]:
    """Where the tree tells, whether a submission is tuned or tunes itself: only tuned ones have a second trial."""
    has_second = {trial.submission for trial in trials if trial.trial > 1}
    for trial in trials:
        level = submission_folder(trial.path).split("/")[-2:-1]
        tuning = next((_TUNING_OF_FOLDER[name] for name in level if name in _TUNING_OF_FOLDER), None)
        yield replace(trial, tuning=tuning or ("external" if trial.submission in has_second else None))


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
