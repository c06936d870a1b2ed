"""The leaderboard for other programs: everything as JSON at full precision, or the table as CSV."""

import math
from pathlib import Path
from typing import Any

import pandas as pd

from timetrial.engine.records import write_json_atomic
from timetrial.scoring.leaderboard import Leaderboard

SCHEMA_VERSION = 1


def write_json(board: Leaderboard, path: Path) -> None:
    """Scores, times, reasons, profiles and trials. A time that is infinite or was not measured is null."""
    scores: dict[str, Any] = {
        str(submission): {
            "rank": int(board.scores["rank"].loc[submission]),
            "score": float(board.scores["score"].loc[submission]),
            "trials_at_target": int(board.scores["reached"].loc[submission]),
            "trials": int(board.scores["trials"].loc[submission]),
            "times": _row(board.times, submission),
            "eligible_times": _row(board.eligible, submission),
            "reasons": {name: text for name, text in _row(board.reasons, submission).items() if text},
        }
        for submission in board.scores.index
    }
    goals = {
        name: {"metric": goal.metric.name, "better": goal.metric.better, "target": goal.target}
        for name, goal in board.goals.items()
    }
    trials = [
        {str(key): _plain(value) for key, value in row.items()} for row in board.trials.to_dict("records")
    ]
    for number, parts in board.ledger.iterrows():
        trials[int(str(number))]["ledger_ns"] = {str(part): int(ns) for part, ns in parts.items()}
    document = {
        "schema": SCHEMA_VERSION,
        "rules": board.rules.name,
        "mode": board.mode,
        "goals": goals,
        "submissions": scores,
        "profiles": {
            "tau": board.profiles.index.tolist(),
            "rho": {str(name): column.tolist() for name, column in board.profiles.items()},
        },
        "trials": trials,
        "problems": [problem._asdict() for problem in board.problems],
    }
    write_json_atomic(path, document)


def write_csv(board: Leaderboard, path: Path) -> None:
    """One row a submission: rank, score, counts, then seconds by workload ("inf" missed, empty not run)."""
    board.scores.join(board.times).to_csv(path, lineterminator="\n")


def _row(frame: pd.DataFrame, submission: object) -> dict[str, Any]:
    return {str(key): _plain(value) for key, value in frame.loc[str(submission)].to_dict().items()}


def _plain(value: Any) -> Any:
    """JSON has no infinity: None, as for what is missing."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
