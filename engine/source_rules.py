"""What the text of a submission says, read from its syntax trees; nothing here imports or runs it."""

import ast
import importlib.util
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from timetrial.engine import algoperf
from timetrial.engine.facts import Framework

_DOUBTFUL = dict.fromkeys(
    ("threading", "multiprocessing", "concurrent", "asyncio", "_thread"),
    "work must not go on while the clock stands still; the racer is stopped there",
) | dict.fromkeys(
    ("subprocess", "socket", "urllib", "requests", "ctypes", "signal"),
    "a training algorithm has no need of it; a referee will ask why",
)
_FOREIGN = {"torch": ("jax", "flax", "optax"), "jax": ("torch",)}
_FACTS = frozenset(
    {
        "target_metric_name",
        "validation_target_value",
        "test_target_value",
        "num_train_examples",
        "num_eval_train_examples",
        "num_validation_examples",
        "num_test_examples",
        "eval_batch_size",
        "step_hint",
        "max_allowed_runtime_sec",
        "eval_period_time_sec",
    }
)
_SIZE_FUNCTIONS = ("get_batch_size", "get_eval_batch_size")


def python_files(file: Path, framework: Framework) -> list[Path]:
    """The submission's file and the modules it can use; those named for the other framework are left out."""
    helpers = [path for path in sorted(file.parent.rglob("*.py")) if path != file]
    if file.stem.startswith("submission"):
        foreign = "_jax" if framework == "torch" else "_torch"
        used = [p for p in helpers if not p.stem.startswith("submission") and not p.stem.endswith(foreign)]
    else:  # one file among others: only what it mentions is its own
        mentioned = words([file])
        used = [p for p in helpers if p.relative_to(file.parent).with_suffix("").parts[0] in mentioned]
    return [file, *(path for path in used if parsed(path) is not None)]


def parsed(path: Path) -> ast.Module | None:
    """The syntax tree; None for a file that is not valid Python."""
    try:
        return ast.parse(path.read_bytes())
    except SyntaxError:
        return None


def _walk(path: Path) -> Iterator[ast.AST]:
    tree = parsed(path)
    return iter(()) if tree is None else ast.walk(tree)


def top_level_names(tree: ast.Module) -> dict[str, ast.stmt]:
    """What binds each name at the module's top level: a function, an import or an assignment."""
    bound: dict[str, ast.stmt] = {}
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            bound[statement.name] = statement
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            for alias in statement.names:
                bound[alias.asname or alias.name] = statement
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            for node in ast.walk(statement):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    bound[node.id] = statement
    return bound


def hyperparameters_read(tree: ast.Module) -> dict[str, int]:
    """Names read as `hyperparameters.NAME`, without those that the file asks for first, and their lines."""
    asked = {
        node.args[1].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("hasattr", "getattr")
        and len(node.args) > 1
        and isinstance(node.args[1], ast.Constant)
    }
    read: dict[str, int] = {}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and _is_name(node.value, "hyperparameters")
            and node.attr not in asked
        ):
            read.setdefault(node.attr, node.lineno)
    return read


def words(files: Iterable[Path]) -> set[str]:
    """Every name, attribute, imported name and text constant in these files."""
    found: set[str] = set()
    for node in (node for path in files for node in _walk(path)):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None) or ""
            found.update([module.partition(".")[0], *(a.name.partition(".")[0] for a in node.names)])
    return found


def unresolved_imports(source: Path, folder: Path, framework: Framework) -> Iterator[tuple[str, int, str]]:
    """(module, line, what is wrong) for imports that will fail where the submission is loaded."""
    available = algoperf.provided(framework)
    for node in _walk(source):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = source.parents[node.level - 1]
            target = base.joinpath(*(node.module or "").split("."))
            if not (target.is_dir() or target.with_suffix(".py").is_file()):
                yield "." * node.level + (node.module or ""), node.lineno, f"is not in {base}"
            continue
        for name, line in _absolute(node):
            root = name.partition(".")[0]
            if root in algoperf.ROOTS:
                for module in sorted(_algoperf_modules(node, name) - set(available)):
                    yield module, line, f"is not provided; available are {', '.join(available)}"
            elif not _is_found(root, folder):
                yield name, line, "is neither installed nor beside the submission"
            elif root in sys.stdlib_module_names and (folder / f"{root}.py").is_file():
                yield name, line, f"is the standard library's, not {root}.py beside it: rename that"


def _algoperf_modules(node: ast.AST, name: str) -> set[str]:
    """The modules below `algoperf` that an import needs, in that spelling."""
    rest = name.partition(".")[2]
    below = (
        [rest] if rest else [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
    )
    return {f"algoperf.{module}" for module in below}


def _absolute(node: ast.AST) -> list[tuple[str, int]]:
    """(module, line) of an import that is not relative."""
    if isinstance(node, ast.Import):
        return [(alias.name, node.lineno) for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [(node.module, node.lineno)]
    return []


def _is_found(root: str, folder: Path) -> bool:
    if root in sys.stdlib_module_names or (folder / f"{root}.py").is_file() or (folder / root).is_dir():
        return True
    if any(parent.name == root for parent in (folder, *folder.parents)):
        return True
    return importlib.util.find_spec(root) is not None


def doubtful_imports(source: Path, framework: Framework) -> Iterator[tuple[str, int, str]]:
    """(module, line, why) for imports that the rules leave little use for."""
    for node in _walk(source):
        for name, line in _absolute(node):
            root = name.partition(".")[0]
            if root in _DOUBTFUL:
                yield name, line, _DOUBTFUL[root]
            elif root in _FOREIGN[framework]:
                yield name, line, f"belongs to the other framework; a {framework} race need not have it"


def global_settings(source: Path) -> Iterator[tuple[str, int]]:
    """Assignments to `os.environ` and calls of `jax.config.update`, with their lines."""
    for node in _walk(source):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            if ast.unparse(node.value) == "os.environ":
                yield "os.environ is changed: the environment belongs to the benchmark", node.lineno
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "jax.config.update":
            yield "jax.config is changed: the settings belong to the benchmark", node.lineno


def branches_on_names(source: Path, workload_names: Collection[str]) -> Iterator[tuple[str, int]]:
    """Workload names compared with, matched, used as keys or prefixes, outside the batch size functions.

    A table at the top level that only those functions read is theirs.
    """
    tree = parsed(source)
    if tree is None:
        return
    skipped: set[ast.AST] = set()
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef) and statement.name in _SIZE_FUNCTIONS:
            skipped.update(ast.walk(statement))
    used = set(_loaded(node for node in ast.walk(tree) if node not in skipped))
    in_sizes = set(_loaded(skipped))
    for statement in tree.body:
        bound = {
            n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
        }
        if isinstance(statement, ast.Assign | ast.AnnAssign) and bound & in_sizes and not bound & used:
            skipped.update(ast.walk(statement))
    for node in ast.walk(tree):
        if node not in skipped:
            for constant in _deciding_constants(node):
                if constant.value in workload_names and constant not in skipped:
                    yield str(constant.value), constant.lineno


def _loaded(nodes: Iterable[ast.AST]) -> Iterator[str]:
    return (node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load))


def _deciding_constants(node: ast.AST) -> Iterator[ast.Constant]:
    deciding: list[ast.AST | None] = []
    if isinstance(node, ast.Compare):
        deciding = [node.left, *node.comparators]
    elif isinstance(node, ast.Dict):
        deciding = list(node.keys)
    elif isinstance(node, ast.MatchValue):
        deciding = [node.value]
    elif isinstance(node, ast.Subscript):
        deciding = [node.slice]
    elif isinstance(node, ast.Call) and getattr(node.func, "attr", None) in ("startswith", "endswith", "get"):
        deciding = list(node.args)
    for part in deciding:
        inside = part.elts if isinstance(part, ast.Tuple | ast.List | ast.Set) else [part]
        yield from (item for item in inside if isinstance(item, ast.Constant))


def branches_on_facts(source: Path) -> Iterator[tuple[str, int]]:
    """Facts of the workload, such as its number of examples, compared for equality with a constant."""
    for node in _walk(source):
        if not isinstance(node, ast.Compare):
            continue
        if not all(isinstance(operator, ast.Eq | ast.NotEq | ast.In | ast.NotIn) for operator in node.ops):
            continue
        sides = [node.left, *node.comparators]
        facts = [
            side
            for side in sides
            if isinstance(side, ast.Attribute) and _is_name(side.value, "workload") and side.attr in _FACTS
        ]
        if facts and any(not isinstance(side, ast.Attribute | ast.Name) for side in sides):
            yield facts[0].attr, node.lineno


def work_on_import(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Loops, `with` blocks and bare calls at the top level, with their lines."""
    for statement in tree.body:
        if isinstance(statement, ast.For | ast.While):
            yield "a loop", statement.lineno
        elif isinstance(statement, ast.With):
            yield f"`with {ast.unparse(statement.items[0].context_expr)}`", statement.lineno
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            yield f"`{ast.unparse(statement.value.func)}(…)`", statement.lineno


def _is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name
