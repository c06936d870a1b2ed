"""On what a trial was run, as far as its logs tell: a line of text each for machine, versions and kernels."""

import functools
from collections.abc import Mapping
from typing import Any

from timetrial.scoring.trial_log import TrialLog

# What of AlgoPerf's meta_data_0.json names the machine and the versions.
_MACHINE = ("gpu_count", "gpu_model_name", "gpu_driver", "cpu_count", "cpu_model_name")
_VERSIONS = ("python_version", "git_commit_hash", "os_platform")


def machine_of(log: TrialLog) -> str:
    """The machine, by the trial's record or else its meta data; empty where neither tells."""
    if log.record is not None:
        return _line(log.record.hardware)
    return _line_of(_MACHINE, tuple(getattr(log.meta, name) for name in _MACHINE))


def versions_of(log: TrialLog) -> str:
    """The versions of everything that ran, from the same sources."""
    if log.record is not None:
        return _line(log.record.versions)
    return _line_of(_VERSIONS, tuple(getattr(log.meta, name) for name in _VERSIONS))


def kernels_of(log: TrialLog) -> str:
    """Which of the workload's kernels ran, how launched, or why in plain form; empty where none is recorded."""
    used = {} if log.record is None else log.record.kernels
    return "; ".join(f"{kernel}: {', '.join(uses)}" for kernel, uses in sorted(used.items()))


@functools.lru_cache(maxsize=256)  # a field has thousands of trials and few machines
def _line_of(names: tuple[str, ...], values: tuple[Any, ...]) -> str:
    return _line(dict(zip(names, values, strict=True)))


def _line(facts: Mapping[str, Any]) -> str:
    """One line of text; nested objects are flattened, what is empty is left out."""
    return ", ".join(_text(key, value) for key, value in facts.items() if value not in (None, "", [], {}))


def _text(key: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return _line(value)
    if isinstance(value, list):
        value = " + ".join(map(str, value))
    elif key.endswith("_bytes"):
        key, value = key.removesuffix("_bytes"), f"{value / 2**30:.0f} GiB"
    return f"{key.replace('_', ' ')} {value}"
