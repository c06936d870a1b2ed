"""On what a submission was run, as far as its logs tell: for the head of a report."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from timetrial.engine.errors import RecordError
from timetrial.engine.records import TrialDirectory, read_json_object
from timetrial.scoring.readers import TrialLog

# The keys of AlgoPerf's meta_data_0.json that name the machine and the versions.
_MACHINE_KEYS = ("gpu_count", "gpu_model_name", "gpu_driver", "cpu_count", "cpu_model_name")
_VERSION_KEYS = ("python_version", "git_commit_hash", "os_platform")


def machine_frame(logs: Sequence[TrialLog]) -> pd.DataFrame:
    """Columns machine and versions by submission: every distinct text of its trial records, or, for logs
    without records, that of the first trial's meta data."""
    texts: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for log in logs:
        first = log.folder.submission not in texts
        machines, versions = texts.setdefault(log.folder.submission, ({}, {}))
        if log.record is not None:
            machines[_line(log.record.hardware)] = None
            versions[_line(log.record.versions)] = None
        elif first:
            facts = _meta_data(log)
            machines[_line({key: facts[key] for key in _MACHINE_KEYS if key in facts})] = None
            versions[_line({key: facts[key] for key in _VERSION_KEYS if key in facts})] = None
    rows = {
        submission: ["; ".join(filter(None, machines)), "; ".join(filter(None, versions))]
        for submission, (machines, versions) in texts.items()
    }
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=["machine", "versions"])
    return frame.rename_axis("submission")


def _meta_data(log: TrialLog) -> dict[str, Any]:
    try:
        return read_json_object(TrialDirectory(path=log.folder.path).meta_data)
    except (OSError, RecordError):
        return {}  # the head of a report does without; `goals_of_runs` reports the file where it matters


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
