"""Everything that is known of a scored field as one JSON document, at full precision, for other programs."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from timetrial.engine.records import write_json_atomic
from timetrial.scoring.analysis import Analysis
from timetrial.scoring.anytime import targets_by_budget
from timetrial.scoring.resampling import Bootstrap
from timetrial.scoring.stored import BEST_TIMES, PACES, best_times

SCHEMA_VERSION = 2

Json = dict[str, Any]


def write_json(analysis: Analysis, path: Path) -> None:
    """Write the document. A number that is infinite, or was not measured, is null."""
    write_json_atomic(path, document(analysis))


def document(analysis: Analysis) -> Json:
    """The document as plain dicts and lists; frames are {row: {column: value}}."""
    board = analysis.board
    return {
        "schema": SCHEMA_VERSION,
        "rules": board.rules.name,
        "mode": board.mode,
        "tau_max": board.rules.tau_max,
        "frozen": None if board.scoring.reference is None else _series(board.scoring.reference),
        "goals": {
            name: {"metric": goal.metric.name, "better": goal.metric.better, "target": goal.target}
            for name, goal in board.field.goals.items()
        },
        BEST_TIMES: _series(best_times(board)),
        PACES: _frame(analysis.paces),
        "submissions": {str(name): _submission(analysis, str(name)) for name in board.scores.index},
        "resampled": {
            "studies": _bootstrap(analysis.over_studies),
            "studies_and_workloads": _bootstrap(analysis.over_workloads),
        },
        "cadence": _frame(analysis.cadence),
        "without_workload": _frame(analysis.without_workload),
        "without_submission": _frame(analysis.without_submission),
        "by_tau_max": _frame(analysis.by_tau),
        "modes": {"scores": _frame(analysis.mode_scores), "times": _rows(analysis.mode_cells)},
        "speedups": {"reference": analysis.reference, **_frame(analysis.speedups)},
        "par2": _frame(analysis.penalised),
        "steps": {"scores": _frame(analysis.step_scores), "to_target": _frame(analysis.steps)},
        "profiles": {"tau": board.profiles.index.tolist(), "rho": _columns(board.profiles)},
        "anytime": _anytime(analysis),
        "outcomes": _frame(analysis.outcomes),
        "findings": _rows(analysis.findings),
        "studies": _rows(board.studies.drop(columns="number").reset_index()),
        "trials": _trials(analysis),
        "problems": [problem._asdict() for problem in board.problems],
    }


def _submission(analysis: Analysis, name: str) -> Json:
    board = analysis.board
    reasons = _row(board.reasons, name)
    scores = _row(board.scores.rename(columns={"reached": "trials_at_target"}), name)
    return scores | {
        "times": _row(board.times, name),
        "eligible_times": _row(board.eligible, name),
        "reasons": {workload: text for workload, text in reasons.items() if text},
    }


def _bootstrap(sample: Bootstrap | None) -> Json | None:
    if sample is None:
        return None
    return {
        "resamples": sample.resamples,
        "seed": sample.seed,
        "intervals": _frame(sample.intervals),
        "rank_probability": _frame(sample.rank_probability),
        "faster": _frame(sample.faster),
        "outscores": _frame(sample.outscores),
    }


def _anytime(analysis: Analysis) -> Json:
    curves = targets_by_budget(analysis.board)
    return {"budget_share": curves.index.tolist(), "targets_reached": _columns(curves)}


def _trials(analysis: Analysis) -> list[Json]:
    """Every trial with its health, and its ledger where it has one."""
    board = analysis.board
    rows = _rows(board.trials.join(analysis.health))
    for number, parts in board.field.ledger.iterrows():
        rows[int(str(number))]["ledger_ns"] = {str(part): int(ns) for part, ns in parts.items()}
    return rows


def _frame(frame: pd.DataFrame) -> Json:
    rows = frame.to_dict("index")
    return {str(row): {str(key): _plain(cell) for key, cell in cells.items()} for row, cells in rows.items()}


def _row(frame: pd.DataFrame, name: str) -> Json:
    return {str(column): _plain(values[name]) for column, values in frame.items()}


def _columns(frame: pd.DataFrame) -> Json:
    return {str(name): [_plain(cell) for cell in column.tolist()] for name, column in frame.items()}


def _series(series: pd.Series) -> Json:
    return {str(key): _plain(value) for key, value in series.to_dict().items()}


def _rows(frame: pd.DataFrame) -> list[Json]:
    return [{str(key): _plain(cell) for key, cell in row.items()} for row in frame.to_dict("records")]


def _plain(value: Any) -> Any:
    """JSON has no infinity and no NaN: None, as for what is missing."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
