"""The names that a submission written for AlgoPerf imports, standing for ours while it is loaded.

`algoperf.*` are the names since v0.6 and `algorithmic_efficiency.*` those before it. Ours win over an
installed package of the same name, and afterwards the names are gone, or the installed package is back.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Literal

Framework = Literal["torch", "jax"]

ROOTS = ("algoperf", "algorithmic_efficiency")

_SHARDING = (
    "get_mesh",
    "get_replicate_sharding",
    "get_batch_dim_sharding",
    "shard_along_batch_dim",
    "replicate",
    "display_shard_info",
)
_RANDOM = ("PRNGKey", "fold_in", "split")

# Per framework: submodule -> (the module of ours that has the names, the names; None for all public ones).
# A submodule of the other framework is absent, because importing it would import that framework.
_PROVIDED: Mapping[Framework, Mapping[str, tuple[str, tuple[str, ...] | None]]] = {
    "torch": {
        "spec": ("timetrial.engine.spec", None),
        "pytorch_utils": (
            "timetrial.engine.algoperf_torch",
            ("pytorch_setup", "sync_ddp_time", "update_batch_norm_fn"),
        ),
        "random_utils": ("timetrial.engine.algoperf_torch", _RANDOM),
    },
    "jax": {
        "spec": ("timetrial.engine.spec", None),
        "jax_sharding_utils": ("timetrial.engine.algoperf_jax", _SHARDING),
        "random_utils": ("timetrial.engine.algoperf_jax", _RANDOM),
    },
}


def provided(framework: Framework) -> list[str]:
    """The module names a submission may import, for messages."""
    return [f"algoperf.{name}" for name in _PROVIDED[framework]]


class names:
    """Make AlgoPerf's module names importable, as ours, inside a `with` block; blocks may nest.

    Ours are imported when asked for, so a torch submission never imports JAX. A submission that imports one
    of these names inside a function needs the block around its whole race: `names(framework).__enter__()`
    holds for the rest of the process.
    """

    def __init__(self, framework: Framework) -> None:
        self._finder = _Finder(framework)

    def __enter__(self) -> None:
        self._installed = _take_out()
        sys.meta_path.insert(0, self._finder)

    def __exit__(self, *exception: object) -> None:
        sys.meta_path.remove(self._finder)
        _take_out()
        sys.modules.update(self._installed)


def forget() -> None:
    """Undo what holds for the rest of a process, where the process goes on after its race."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]
    _take_out()


def _take_out() -> dict[str, ModuleType]:
    taken = [name for name in sys.modules if name.partition(".")[0] in ROOTS]
    return {name: sys.modules.pop(name) for name in taken}


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, framework: Framework) -> None:
        self._provided = _PROVIDED[framework]

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        root, _, submodule = fullname.partition(".")
        if root not in ROOTS:
            return None
        if not submodule:
            return importlib.machinery.ModuleSpec(fullname, _Loader(None, ()), is_package=True)
        if submodule not in self._provided:
            return None
        return importlib.machinery.ModuleSpec(fullname, _Loader(*self._provided[submodule]))


class _Loader(importlib.abc.Loader):
    """Fills the module asked for with names of a module of ours; the objects are the same, not copies."""

    def __init__(self, source: str | None, exported: tuple[str, ...] | None) -> None:
        self._source = source
        self._exported = exported

    def exec_module(self, module: ModuleType) -> None:
        if self._source is None:
            return
        source = vars(importlib.import_module(self._source))
        exported = self._exported or tuple(name for name in source if not name.startswith("_"))
        vars(module).update({name: source[name] for name in exported})
