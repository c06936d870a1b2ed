"""Reads back what `timetrial score --json` wrote: frozen best times to score against, paces to compare with.

A frozen reference keeps old scores where they are when an entry arrives.
"""

import math
from pathlib import Path
from typing import Any

import pandas as pd

from timetrial.engine.errors import RecordError, UsageError
from timetrial.engine.records import read_json_object
from timetrial.scoring.leaderboard import Leaderboard
from timetrial.scoring.time_to_target import Mode

BEST_TIMES = "best_times"
PACES = "step_seconds"


def best_times(board: Leaderboard) -> pd.Series:
    """The best time of every workload, in seconds: of base workloads the best that counts; infinite for none."""
    best = board.times.min().fillna(math.inf)
    best[board.eligible.columns] = board.eligible.min().fillna(math.inf)
    return best


def read_best_times(path: Path, rules: str, mode: Mode) -> pd.Series:
    """Best times by workload. UsageError if the file holds none, or was made under other rules or in the other mode."""
    document = _document(path)
    best = document.get(BEST_TIMES)
    if not isinstance(best, dict):
        raise UsageError(f"{path} holds no best times; give a file that timetrial score --json wrote")
    for name, value in (("rules", rules), ("mode", mode)):
        if (stored := document.get(name)) != value:
            raise UsageError(
                f"{path} was scored with --{name} {stored}, but these logs with --{name} {value}"
            )
    return pd.Series({str(workload): _number(seconds, path) for workload, seconds in best.items()})


def read_paces(path: Path) -> pd.DataFrame:
    """Seconds a step by submission and workload. UsageError if the file holds none."""
    paces = _document(path).get(PACES)
    if not isinstance(paces, dict) or not all(isinstance(row, dict) for row in paces.values()):
        raise UsageError(f"{path} holds no step times; give a file that timetrial score --json wrote")
    rows = {
        str(submission): {
            str(workload): math.nan if seconds is None else _number(seconds, path)
            for workload, seconds in row.items()
        }
        for submission, row in paces.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def _document(path: Path) -> dict[str, Any]:
    try:
        return read_json_object(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except RecordError as error:
        raise UsageError(str(error)) from error


def _number(value: Any, path: Path) -> float:
    """A null stands for infinity: a workload that nobody reached."""
    if value is None:
        return math.inf
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{path} has {value!r} where seconds belong")
    return float(value)
