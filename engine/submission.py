"""Finding, importing and checking the signatures of a submission: the one dynamic import of a race."""

import ast
import hashlib
import importlib
import importlib.machinery
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from timetrial.engine import algoperf
from timetrial.engine.errors import SubmissionError
from timetrial.engine.spec import (
    DataSelectionFn,
    InitOptimizerFn,
    PrepareForEvalFn,
    UpdateParamsFn,
)

Framework = Literal["torch", "jax"]

SEARCH_SPACE_FILE = "tuning_search_space.json"

# AlgoPerf v0.6: the parameters of each function, in order.
_MODEL = ("workload", "current_param_container", "current_params_types", "model_state", "hyperparameters")
PARAMETERS: dict[str, tuple[str, ...]] = {
    "get_batch_size": ("workload_name",),
    "init_optimizer_state": ("workload", "model_params", "model_state", "hyperparameters", "rng"),
    "update_params": (
        *_MODEL,
        "batch",
        "loss_type",
        "optimizer_state",
        "eval_results",
        "global_step",
        "rng",
    ),
    "prepare_for_eval": (*_MODEL, "loss_type", "optimizer_state", "eval_results", "global_step", "rng"),
    "data_selection": (
        "workload",
        "input_queue",
        "optimizer_state",
        "current_param_container",
        "model_state",
        "hyperparameters",
        "global_step",
        "rng",
    ),
}
OPTIONAL_FUNCTIONS = ("prepare_for_eval",)
CALLED_BY_KEYWORD = ("update_params", "prepare_for_eval")


@dataclass(frozen=True, kw_only=True)
class Functions:
    """The functions of one submission, by their AlgoPerf names."""

    get_batch_size: Callable[[str], int]
    init_optimizer_state: InitOptimizerFn
    update_params: UpdateParamsFn
    data_selection: DataSelectionFn
    prepare_for_eval: PrepareForEvalFn | None = None


@dataclass(frozen=True, kw_only=True)
class Submission:
    """One imported submission."""

    name: str
    path: Path  # its Python file
    functions: Functions
    wants_train_state: bool  # `update_params` has a parameter of that name
    search_space: Path | None  # its tuning_search_space.json, if there is one

    def batch_size(self, workload: str, base: str) -> int:
        """The global batch size for `workload`; a name it refuses (ValueError) is asked again as `base`.

        SubmissionError if both are refused or the answer is not a positive integer.
        """
        ask = self.functions.get_batch_size
        try:
            size = ask(workload)
        except ValueError:
            try:
                size = ask(base)
            except ValueError as refusal:
                raise SubmissionError(
                    f"{self.path}: get_batch_size refuses {workload!r} and its base {base!r} ({refusal}); "
                    "it must return the global batch size for one of them"
                ) from refusal
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise SubmissionError(
                f"{self.path}: get_batch_size({workload!r}) returned {size!r}, not a positive integer"
            )
        return size


def find(path: str | Path, framework: Framework) -> Path:
    """The Python file of a submission: `path` itself or, in a folder, the framework's or the only one.

    SubmissionError if there is none.
    """
    given = Path(path)
    if given.is_file() and given.suffix == ".py":
        return given.resolve()
    candidates = [given / f"submission_{framework}.py", given / "submission.py"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate.resolve()
    if given.is_dir():
        expected = " nor ".join(candidate.name for candidate in candidates)
        raise SubmissionError(f"{given} has neither {expected}: a submission for {framework} is one of them")
    raise SubmissionError(f"{given} is neither a folder nor a Python file: give the path of a submission")


def name_of(file: Path) -> str:
    """The display name: the folder of a `submission*.py`, else the file's own stem."""
    standard = ("submission", "submission_torch", "submission_jax")
    return file.parent.name if file.stem in standard else file.stem


def load(path: str | Path, framework: Framework) -> Submission:
    """Import a submission written for Timetrial or AlgoPerf, and check what can be called.

    Modules beside the file can be imported by name, relatively, or by a dotted name that starts at one of
    the folders above it (as AlgoPerf's runner, started at the root of a checkout, allows). The file's folder
    stays on `sys.path`. SubmissionError for a missing file, module or function and for a wrong signature.
    """
    file = find(path, framework)
    module = _import(file, framework)
    functions: dict[str, Any] = {}
    for function_name in PARAMETERS:
        function = getattr(module, function_name, None)
        if function is None and function_name in OPTIONAL_FUNCTIONS:
            continue
        if not callable(function):
            raise SubmissionError(f"{file} has no function {function_name}: every submission must define it")
        _check_signature(file, function_name, function)
        functions[function_name] = function
    search_space = file.parent / SEARCH_SPACE_FILE
    return Submission(
        name=name_of(file),
        path=file,
        functions=Functions(**functions),
        wants_train_state="train_state" in inspect.signature(functions["update_params"]).parameters,
        search_space=search_space if search_space.is_file() else None,
    )


def _check_signature(file: Path, name: str, function: Callable[..., Any]) -> None:
    signature = inspect.signature(function)
    expected = PARAMETERS[name]
    passed = expected + (("train_state",) if "train_state" in signature.parameters else ())
    try:
        if name in CALLED_BY_KEYWORD:
            signature.bind(**dict.fromkeys(passed))
        else:
            signature.bind(*expected)
    except TypeError as mismatch:
        how = "keyword" if name in CALLED_BY_KEYWORD else "position"
        raise SubmissionError(
            f"{file}: {name}{signature} cannot be called ({mismatch}); it is called by {how} with "
            f"({', '.join(expected)})"
        ) from mismatch


def _import(file: Path, framework: Framework) -> ModuleType:
    _extend_search_path(file)
    # A package around the file's folder makes relative imports work; its name belongs to this path alone.
    package = f"timetrial_submission_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"
    with algoperf.names(framework):
        try:
            _execute_package(package, file.parent)
            return _execute(f"{package}.{file.stem}", file)
        except SyntaxError as error:
            where = f"{error.filename or file}, line {error.lineno}"
            raise SubmissionError(f"{where} is not valid Python: {error.msg}") from error
        except ModuleNotFoundError as error:
            raise SubmissionError(_missing_module(file, error.name or str(error), framework)) from error
        except ImportError as error:
            raise SubmissionError(f"{file} imports a name that does not exist: {error}") from error


def _execute_package(name: str, folder: Path) -> None:
    init = folder / "__init__.py"
    if init.is_file():
        _execute(name, init, package_folder=folder)
        return
    spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    sys.modules[name] = importlib.util.module_from_spec(spec)


def _execute(name: str, file: Path, package_folder: Path | None = None) -> ModuleType:
    locations = None if package_folder is None else [str(package_folder)]
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=locations)
    if spec is None or spec.loader is None:
        raise SubmissionError(f"{file} cannot be imported: it must be a Python source file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _missing_module(file: Path, name: str, framework: Framework) -> str:
    if name.partition(".")[0] in algoperf.ROOTS:
        available = ", ".join(algoperf.provided(framework))
        return (
            f"{file} imports {name}, which Timetrial lacks; a {framework} submission may import {available}"
        )
    return f"{file} imports {name}, which is not installed: install it, or put it beside the submission"


def _extend_search_path(file: Path) -> None:
    """Put the file's folder, and the folders that its dotted imports start from, in front of `sys.path`."""
    folder = file.parent
    roots = {name.partition(".")[0] for name in imported_names(file)}
    _refuse_shadowed(folder, file, roots)
    starts = [folder, *(parent.parent for parent in [folder, *folder.parents] if parent.name in roots)]
    new = [str(start) for start in starts if str(start) not in sys.path]
    sys.path[:0] = new
    importlib.invalidate_caches()


def _refuse_shadowed(folder: Path, file: Path, roots: set[str]) -> None:
    """A helper whose name is taken would silently be another module."""
    for root in sorted(roots):
        helpers = [folder / f"{root}.py", folder / root / "__init__.py"]
        helper = next((path for path in helpers if path.is_file()), None)
        loaded = sys.modules.get(root)
        if helper is None or loaded is None:
            continue
        origin = getattr(loaded, "__file__", None)
        if origin is None or Path(origin).resolve() != helper:
            raise SubmissionError(
                f"{file} imports {root}, but {helper} has the name of a module that is already loaded "
                f"({origin or 'built in'}): rename the helper or import it relatively"
            )


def imported_names(file: Path) -> Iterator[str]:
    """The absolute module names that a Python file imports, anywhere in it; none if it does not parse."""
    try:
        tree = ast.parse(file.read_bytes())
    except SyntaxError:
        return  # the import itself reports it, with the line
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
