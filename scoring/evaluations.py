"""Reads eval_measurements.csv: the curve of one trial, and what in the file cannot be believed.

Only the columns that scoring needs are converted. A file without a flaw takes a short path; any other is read
again line by line, and every line that is left out is reported.
"""

import csv
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

import numpy as np

from timetrial.scoring.problems import Kind, Problem
from timetrial.scoring.whole_file import read_whole

# AlgoPerf writes the submission time twice; scorers read `score`.
TIME_COLUMNS = ("score", "accumulated_submission_time")

_LEFT_OUT = "the line was left out"
_NODE_COLUMNS = {
    "evaluation": "accumulated_eval_time",
    "logging": "accumulated_logging_time",
    "total": "total_duration",
}


def _none() -> np.ndarray:
    return np.empty(0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluations:
    """One trial's curve, a float64 entry an evaluation, and what its last row says of the whole trial.

    seconds      submission time, increasing
    values       validation metric; NaN where it is NaN or absent
    steps        global step, increasing; NaN where the file does not tell
    is_finite    whether the last row's metric is a finite number, and every train and validation figure that was
                 one in the first row still is
    node_seconds by account (`evaluation`, `logging`, `total`), as far as the last row tells
    """

    seconds: np.ndarray = field(default_factory=_none)
    values: np.ndarray = field(default_factory=_none)
    steps: np.ndarray = field(default_factory=_none)
    is_finite: bool = True
    node_seconds: Mapping[str, float] = field(default_factory=dict)


def read_evaluations(path: str, metric: str, problems: list[Problem]) -> Evaluations:
    """The curve of column `validation/<metric>`; empty if the file is absent or cannot be used.

    Left out, with a problem each: a last line without LF, which a crash tore; a line of another width than the
    header; a line in which time, step or metric is not a number; a step that came before; a time that lies
    before an earlier one.
    """
    text = _text(path, problems)
    if not text:
        return Evaluations()
    lines = text.split("\n")
    columns = _columns(lines[0], f"validation/{metric}")
    if isinstance(columns, str):
        problems.append(Problem(Kind.COLUMN, path, f"has no column {columns}", "none of its lines counts"))
        return Evaluations()
    if lines.pop():
        message = f"line {len(lines) + 1}, the last, has no line end: it was torn"
        problems.append(Problem(Kind.TRUNCATED, path, message, _LEFT_OUT))
    rows = [line.split(",") for line in lines[1:]]
    believable = columns.read_all(rows, plain=text.isascii() and text.count("_") == lines[0].count("_"))
    if believable is None:
        rows = columns.read_each(rows, path, problems)
        believable = columns.read_all(rows, plain=True)
        assert believable is not None, f"{path}: what was left is not clean"
    seconds, values, steps = believable
    if not rows:
        return Evaluations()
    return Evaluations(
        seconds=seconds,
        values=values,
        steps=steps,
        is_finite=columns.stays_finite(rows[0], rows[-1]),
        node_seconds={account: _number(rows[-1][at]) for account, at in columns.node.items()},
    )


def _text(path: str, problems: list[Problem]) -> str:
    """The file's text; empty, with a problem unless it is merely absent, where there is none."""
    data = read_whole(path, problems, "its trial was not evaluated")
    if data is None:
        return ""
    if not data.strip():
        problems.append(Problem(Kind.TRUNCATED, path, "is empty", "its trial was not evaluated"))
        return ""
    text = data.decode("utf-8", errors="replace")
    return text.replace("\r\n", "\n") if "\r" in text else text


@functools.lru_cache(maxsize=256)  # a field has thousands of files and few headers
def _columns(header_line: str, value: str) -> "_Columns | str":
    """Where what is needed stands in a line, or the name of the column that is missing."""
    header = next(csv.reader([header_line]), [])
    time = next((name for name in TIME_COLUMNS if name in header), None)
    if time is None:
        return TIME_COLUMNS[0]
    return _Columns(header, time, value) if value in header else value


class _Columns:
    """Where time, metric, step and the rest stand in a line."""

    def __init__(self, header: Sequence[str], time: str, value: str) -> None:
        self._width = len(header)
        self._time = header.index(time)
        self._value = header.index(value)
        self._step = header.index("global_step") if "global_step" in header else None
        self._figures = [
            at
            for at, name in enumerate(header)
            if name.startswith(("train/", "validation/")) and not name.endswith("num_examples")
        ]
        self.node = {account: header.index(name) for account, name in _NODE_COLUMNS.items() if name in header}

    def read_all(
        self, rows: Sequence[Sequence[str]], plain: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Seconds, values and steps of all rows; None if any of them is not as it should be.

        `plain`: the text holds nothing that Python takes for a part of a number and others do not.
        """
        if not plain or not set(map(len, rows)) <= {self._width}:
            return None
        try:
            seconds = np.array(list(map(float, map(itemgetter(self._time), rows))))
            values = np.array([float(row[self._value] or "nan") for row in rows])
            if self._step is None:
                steps = np.full(len(rows), np.nan)
            else:
                steps = np.array(list(map(float, map(itemgetter(self._step), rows))))
        except ValueError:
            return None
        rising = bool((seconds[1:] >= seconds[:-1]).all() and np.isfinite(seconds).all())
        if self._step is not None:
            rising = rising and bool((steps[1:] > steps[:-1]).all() and np.isfinite(steps).all())
        return (seconds, values, steps) if rising else None

    def stays_finite(self, first: Sequence[str], last: Sequence[str]) -> bool:
        """As `Evaluations.is_finite` has it."""
        for at in self._figures:
            if not math.isfinite(_number(last[at])) and (
                at == self._value or math.isfinite(_number(first[at]))
            ):
                return False
        return True

    def read_each(self, rows: list[list[str]], path: str, problems: list[Problem]) -> list[list[str]]:
        """The rows that can be believed, in order; a problem for each that cannot."""
        kept: list[list[str]] = []
        seen = {-math.inf: -math.inf}  # step -> seconds of what was kept
        for number, row in enumerate(rows, start=2):
            flaw = self._flaw(row, seen)
            if flaw is None:
                kept.append(row)
                seconds = _number(row[self._time])
                seen[float(number) if self._step is None else _number(row[self._step])] = seconds
            else:
                kind, message = flaw
                problems.append(Problem(kind, path, f"line {number} {message}", _LEFT_OUT))
        return kept

    def _flaw(self, row: Sequence[str], seen: dict[float, float]) -> tuple[Kind, str] | None:
        """Why a row cannot be believed, given the steps and seconds of those before it."""
        if len(row) != self._width:
            return Kind.CELL, f"has {len(row)} cells, the header {self._width}"
        required = [row[self._time]] + ([] if self._step is None else [row[self._step]])
        for cell in required:
            if not math.isfinite(_number(cell)):
                return Kind.CELL, f"has {cell!r} where a number belongs"
        if row[self._value] and not _is_number(row[self._value]):
            return Kind.CELL, f"has {row[self._value]!r} where a number belongs"
        newest = next(reversed(seen))
        if self._step is not None and (step := _number(row[self._step])) <= newest:
            if step in seen:
                return Kind.STEP, f"is a second evaluation of step {step:g}"
            return Kind.TIME, f"is of step {step:g}, after one of step {newest:g}"
        if (seconds := _number(row[self._time])) < seen[newest]:
            return Kind.TIME, f"lies at {seconds:g} s, after one at {seen[newest]:g} s"
        return None


def _is_number(cell: str) -> bool:
    """Whether every program reads the cell as a number: Python alone takes 1_000, or digits of other scripts."""
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell and cell.isascii()


def _number(cell: str) -> float:
    """The cell's number, NaN if it is none."""
    return float(cell) if _is_number(cell) else math.nan
