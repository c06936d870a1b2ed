"""What a trial leaves on disk: names, columns and schema, and the only code that writes or reads them.

A run directory is an AlgoPerf log directory, so other scorers read it, plus two files of our own:

    OUT/SUBMISSION/study_K/WORKLOAD_FRAMEWORK/trial_N/       K from 0, N from 1, FRAMEWORK jax or pytorch
      eval_measurements.csv   one row an evaluation; columns sorted by name
      measurements.csv        the submission's scalars, the evaluations and one closing row
      hparams.json            the trial's hyperparameters (external tuning only)
      meta_data_0.json        facts of the workload (`workload.<name>`), machine, versions
      ledger.jsonl            which account ran from when on; append-only, the source of truth
      trial.json              how the trial ended, its totals and its provenance: a `TrialRecord`

No line is ever half believed: a line counts once it ends in LF, writers cut off a torn last line before they
append and readers skip it. JSON files are replaced whole or not at all.
"""

import csv
import io
import math
import numbers
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsFloat

import msgspec

from timetrial.engine.errors import RecordError
from timetrial.engine.outcome import Status

SCHEMA_VERSION = 1

# AlgoPerf's folder names end in `_pytorch` or `_jax`.
FOLDER_SUFFIX = {"torch": "pytorch", "pytorch": "pytorch", "jax": "jax"}

LEDGER_END = "end"  # the account name of a ledger's closing entry

Number = SupportsFloat  # int, float, or a NumPy, torch or JAX scalar


@dataclass(frozen=True, kw_only=True)
class TrialDirectory:
    """One trial's folder and the files in it. Nothing is created."""

    path: Path

    @classmethod
    def below(
        cls, out: Path, *, submission: str, study: int, workload: str, framework: str, trial: int
    ) -> "TrialDirectory":
        """`framework` is torch, pytorch or jax; `study` counts from 0, `trial` from 1."""
        folder = f"{workload}_{FOLDER_SUFFIX[framework]}"
        return cls(path=Path(out) / submission / f"study_{study}" / folder / f"trial_{trial}")

    @property
    def evaluations(self) -> Path:
        return self.path / "eval_measurements.csv"

    @property
    def measurements(self) -> Path:
        return self.path / "measurements.csv"

    @property
    def hyperparameters(self) -> Path:
        return self.path / "hparams.json"

    @property
    def meta_data(self) -> Path:
        return self.path / "meta_data_0.json"

    @property
    def ledger(self) -> Path:
        return self.path / "ledger.jsonl"

    @property
    def trial(self) -> Path:
        return self.path / "trial.json"


class TrialRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of trial.json. Times are integer nanoseconds of monotonic clocks, budgets seconds.

    Every field but the first four has a default, so that the schema can grow: readers of older files see the
    default, readers of newer files ignore what they do not know.
    """

    status: Status
    submission: str
    workload: str
    framework: str
    schema: int = SCHEMA_VERSION
    reason: str = ""  # one sentence for people
    ruleset: str = ""
    study: int = 0
    trial: int = 1
    seed: int | None = None
    official: bool = False
    flags: list[str] = []  # such as "clocks disagree"
    submission_ns: int = 0  # the official, charged time
    wall_ns: int = 0  # equals the sum of `accounts`
    accounts: dict[str, int] = {}  # nanoseconds per `ledger.Account`
    breakdown: dict[str, int] = {}  # the racer's split of `submission`: data_wait, update, drain, ...
    lost_ns: int = 0  # charged work that an interruption lost and a resumed trial did again
    steps: int = 0
    evaluations: int = 0
    batch_size: int | None = None
    parameters: int | None = None
    step_hint: int | None = None
    budget_sec: float | None = None
    eval_period_sec: float | None = None
    compile: dict[str, Any] = {}
    kernels: dict[str, list[str]] = {}  # of each fused operator, which form ran, how, and if not fused, why
    hyperparameters: dict[str, Any] | None = None
    hardware: dict[str, Any] = {}
    versions: dict[str, Any] = {}
    hashes: dict[str, str] = {}
    resumed: int = 0  # how often the trial was continued from a checkpoint


class LedgerEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of ledger.jsonl: from `t` (nanoseconds since the trial began) on, time belongs to `account`.

    `account` is one of `ledger.Account`, or `LEDGER_END` in the closing entry.
    """

    t: int
    account: str
    note: dict[str, Any] = {}


def append_evaluation(path: Path, row: Mapping[str, Number]) -> None:
    """Append one evaluation to eval_measurements.csv, durable when this returns.

    The first row's columns, sorted, are the header. A column that appears later is put at the end of the
    header and the file is replaced by a wider one. NaN is written as an empty cell; ints stay ints.
    Raises RecordError for a value that is not a number or a column name with a line break in it.
    """
    _append_rows(path, [row])


def append_measurements(path: Path, rows: Iterable[Mapping[str, Number]]) -> None:
    """Append rows to measurements.csv as `append_evaluation` does; durable once, when all are written.

    Header order is AlgoPerf's: the first row's columns sorted, then new ones in order of appearance.
    """
    _append_rows(path, list(rows))


def append_ledger(path: Path, entries: Iterable[LedgerEntry]) -> None:
    """Append entries to ledger.jsonl, durable when this returns."""
    lines = b"".join(msgspec.json.encode(entry) + b"\n" for entry in entries)
    if lines:
        _append_bytes(path, lines)


def read_ledger(path: Path) -> list[LedgerEntry]:
    """The ledger's entries, without a torn last line. RecordError names the line that cannot be read."""
    lines = path.read_bytes().split(b"\n")[:-1]
    entries = []
    for number, line in enumerate(lines, start=1):
        try:
            entries.append(msgspec.json.decode(line, type=LedgerEntry))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise RecordError(f"{path}, line {number}: not a ledger entry ({error})") from error
    return entries


def write_json_atomic(path: Path, value: Any) -> None:
    """Replace `path` by `value` as indented JSON, whole or not at all; durable when this returns.

    Takes what msgspec encodes: dicts, lists, dataclasses, Structs. NaN and infinity become null.
    """
    _replace(path, msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


def write_text_atomic(path: Path, text: str) -> None:
    """Replace `path` by the text in UTF-8, whole or not at all; durable when this returns."""
    _replace(path, text.encode())


def read_trial(path: Path) -> TrialRecord:
    """A trial.json. RecordError when it is damaged or lacks a required field."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=TrialRecord)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RecordError(f"{path} is no trial record: {error}") from error


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON object such as hparams.json or meta_data_0.json. RecordError when it is anything else."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RecordError(f"{path} is not a JSON object: {error}") from error


def _append_rows(path: Path, rows: Sequence[Mapping[str, Number]]) -> None:
    if not rows:
        return
    _cut_torn_line(path)
    old = _header(path)
    columns = old or sorted(rows[0])
    known = set(columns)
    for row in rows:
        new = [name for name in row if name not in known]
        columns = columns + new
        known.update(new)
    lines = "".join(_csv_line([_cell(name, row.get(name)) for name in columns]) for row in rows)
    if not old:
        _append_bytes(path, (_header_line(columns) + lines).encode())
    elif len(columns) == len(old):
        _append_bytes(path, lines.encode())
    else:
        padding = "," * (len(columns) - len(old)) + "\n"
        with open(path, encoding="utf-8", newline="") as file:
            next(file)
            kept = "".join(line.rstrip("\n") + padding for line in file)
        _replace(path, (_header_line(columns) + kept + lines).encode())


def _header(path: Path) -> list[str]:
    """The column names, or none if the file is absent or empty."""
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return next(csv.reader(file), [])


def _header_line(columns: Sequence[str]) -> str:
    for name in columns:
        if "\n" in name or "\r" in name:
            raise RecordError(f"column name {name!r} has a line break in it; use one line of text")
    return _csv_line(columns)


def _csv_line(cells: Sequence[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()


def _cell(column: str, value: Number | None) -> str:
    if value is None:
        return ""
    if isinstance(value, numbers.Integral):
        return str(int(value))
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise RecordError(f"column {column!r}: {value!r} is not a number") from error
    return "" if math.isnan(number) else repr(number)


def _append_bytes(path: Path, data: bytes) -> None:
    _cut_torn_line(path)
    is_new = not path.exists()
    with open(path, "ab") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    if is_new:
        _sync_folder(path.parent)


def _cut_torn_line(path: Path) -> None:
    """Cut off what follows the last LF: a line that a crash left unfinished."""
    if not path.exists():
        return
    with open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return
        file.seek(size - 1)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.flush()
        os.fsync(file.fileno())


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # only there if something went wrong
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
