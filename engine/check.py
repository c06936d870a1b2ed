"""Everything that can be said about a submission without racing it, and mostly without importing it."""

import ast
import enum
import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from timetrial.engine import source_rules
from timetrial.engine.errors import Error, SubmissionError
from timetrial.engine.facts import Framework
from timetrial.engine.search import PointList, load_space
from timetrial.engine.submission import (
    CALLED_BY_KEYWORD,
    OPTIONAL_FUNCTIONS,
    PARAMETERS,
    SEARCH_SPACE_FILE,
    find,
)

OFFICIAL_STUDIES = 3  # AlgoPerf v0.6, external tuning
OFFICIAL_TRIALS = 5

# Takes one step on a small workload; says what it did, or raises an Error.
DryStep = Callable[[Path, Framework], str]


class Level(enum.Enum):
    """How much a finding matters; its value is the word shown."""

    OK = "ok"
    NOTE = "note"
    ERROR = "error"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing found, in one sentence."""

    level: Level
    subject: str
    text: str
    line: int | None = None  # of the file named in the subject, or of the submission's file


def check(
    path: Path, framework: Framework, *, workload_names: Collection[str], dry_step: DryStep | None = None
) -> list[Finding]:
    """All findings about the submission at `path`, in the order in which its parts are met.

    workload_names: names whose appearance outside `get_batch_size` tells workloads apart.
    SubmissionError if there is no such submission.
    """
    file = find(path, framework)
    try:
        tree = ast.parse(file.read_bytes())
    except SyntaxError as error:
        text = f"not valid Python: {error.msg}"
        return [Finding(level=Level.ERROR, subject=file.name, text=text, line=error.lineno)]
    files = source_rules.python_files(file, framework)
    findings = [
        *_functions(tree),
        *_search_space(file, tree, files),
        *_imports(file, files, framework),
        *_telling_workloads_apart(file, files, workload_names),
        *_module_level(tree),
    ]
    if dry_step is not None:
        findings.append(_dry_step(dry_step, file, framework))
    return findings


def _functions(tree: ast.Module) -> Iterator[Finding]:
    defined = source_rules.top_level_names(tree)
    for name in PARAMETERS:
        node = defined.get(name)
        if node is None:
            if name in OPTIONAL_FUNCTIONS:
                yield Finding(level=Level.OK, subject=name, text="not defined; it is optional")
            else:
                yield Finding(
                    level=Level.ERROR, subject=name, text="not defined, but every submission needs it"
                )
        elif isinstance(node, ast.FunctionDef):
            yield _signature(name, node)
        else:
            text = "made elsewhere: its signature is checked when it is loaded"
            yield Finding(level=Level.OK, subject=name, text=text, line=node.lineno)
    if (hook := defined.get("get_eval_batch_size")) is not None:
        text = "never called here: the evaluation's batch size belongs to the workload"
        yield Finding(level=Level.NOTE, subject="get_eval_batch_size", text=text, line=hook.lineno)


def _signature(name: str, node: ast.FunctionDef) -> Finding:
    expected = list(PARAMETERS[name])
    given = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
    by_name = [argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)]
    known = [*expected, "train_state"] if name == "update_params" else expected

    def finding(level: Level, text: str) -> Finding:
        return Finding(level=level, subject=name, text=text, line=node.lineno)

    if name in CALLED_BY_KEYWORD:
        lacking = [] if node.args.kwarg else [parameter for parameter in expected if parameter not in by_name]
        if lacking:
            return finding(Level.ERROR, f"called by keyword, but has no parameter {', '.join(lacking)}")
        unknown = [parameter for parameter in _required(node) if parameter not in known]
        if unknown:
            return finding(Level.ERROR, f"nothing is passed for its parameter {', '.join(unknown)}")
    else:
        required = [parameter for parameter in _required(node) if parameter in given]
        keyword_only = [parameter for parameter in _required(node) if parameter not in given]
        fits = len(required) <= len(expected) and (node.args.vararg or len(given) >= len(expected))
        if keyword_only or not fits:
            return finding(Level.ERROR, f"called by position with ({', '.join(expected)})")
    compared = [parameter for parameter in given if parameter != "train_state"]
    if compared != expected and not node.args.vararg and not node.args.kwarg:
        return finding(Level.NOTE, f"callable, but AlgoPerf's order and names are ({', '.join(expected)})")
    return finding(Level.OK, "parameters as in AlgoPerf")


def _required(node: ast.FunctionDef) -> list[str]:
    arguments = [*node.args.posonlyargs, *node.args.args]
    positional = arguments[: len(arguments) - len(node.args.defaults)]
    keyword_only = [
        argument
        for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
        if default is None
    ]
    return [argument.arg for argument in (*positional, *keyword_only)]


def _search_space(file: Path, tree: ast.Module, files: list[Path]) -> Iterator[Finding]:
    path = file.parent / SEARCH_SPACE_FILE
    subject = SEARCH_SPACE_FILE
    if not path.is_file():
        yield Finding(level=Level.NOTE, subject=subject, text="absent: the self-tuning ruleset only")
        return
    try:
        space = load_space(path)
    except SubmissionError as error:
        yield Finding(level=Level.ERROR, subject=subject, text=str(error))
        return
    if isinstance(space, PointList):
        names, text = set(space.points[0]), f"a list of {len(space.points)} points"
        enough = len(space.points) >= OFFICIAL_TRIALS
    else:
        names = set(space.dimensions)
        count = "any number of" if space.size == math.inf else f"{space.size:g}"
        text = f"{len(names)} hyperparameters, {count} different points"
        enough = space.size >= OFFICIAL_STUDIES * OFFICIAL_TRIALS
    yield Finding(level=Level.OK, subject=subject, text=text)
    if not enough:
        text = f"too few for the official {OFFICIAL_STUDIES} studies of {OFFICIAL_TRIALS} trials"
        yield Finding(level=Level.NOTE, subject=subject, text=text)
    for name, line in source_rules.hyperparameters_read(tree).items():
        if name not in names:
            text = f"hyperparameters.{name} is read, but the search space does not have it"
            yield Finding(level=Level.NOTE, subject=subject, text=text, line=line)
    unread = sorted(names - source_rules.words(files)) if source_rules.hyperparameters_read(tree) else []
    for name in unread:
        text = f"{name} is in the search space, but no file of the submission reads it"
        yield Finding(level=Level.NOTE, subject=subject, text=text)


def _imports(file: Path, files: list[Path], framework: Framework) -> Iterator[Finding]:
    for source in files:
        for name, line, defect in source_rules.unresolved_imports(source, file.parent, framework):
            yield Finding(level=Level.ERROR, subject=_shown(source, file), text=f"{name} {defect}", line=line)
        for name, line, why in source_rules.doubtful_imports(source, framework):
            yield Finding(level=Level.NOTE, subject=_shown(source, file), text=f"{name}: {why}", line=line)
        for text, line in source_rules.global_settings(source):
            yield Finding(level=Level.NOTE, subject=_shown(source, file), text=text, line=line)


def _telling_workloads_apart(
    file: Path, files: list[Path], workload_names: Collection[str]
) -> Iterator[Finding]:
    for source in files:
        for name, line in source_rules.branches_on_names(source, workload_names):
            text = f"{name!r} outside get_batch_size tells a workload apart, which the rules forbid"
            yield Finding(level=Level.ERROR, subject=_shown(source, file), text=text, line=line)
        for name, line in source_rules.branches_on_facts(source):
            text = (
                f"comparing workload.{name} with a constant can tell a workload apart, which the rules forbid"
            )
            yield Finding(level=Level.NOTE, subject=_shown(source, file), text=text, line=line)


def _module_level(tree: ast.Module) -> Iterator[Finding]:
    for what, line in source_rules.work_on_import(tree):
        text = f"{what} runs on import, which is not charged, but limited in time and recorded"
        yield Finding(level=Level.NOTE, subject="import", text=text, line=line)


def _dry_step(dry_step: DryStep, file: Path, framework: Framework) -> Finding:
    try:
        return Finding(level=Level.OK, subject="steps", text=dry_step(file, framework))
    except Error as error:
        return Finding(level=Level.ERROR, subject="steps", text=str(error))


def _shown(source: Path, file: Path) -> str:
    return str(source.relative_to(file.parent))
