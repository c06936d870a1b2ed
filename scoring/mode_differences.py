"""Where the two modes disagree, cell by cell, and why."""

import math

import pandas as pd

from timetrial.engine.outcome import Status
from timetrial.scoring.field import Field
from timetrial.scoring.leaderboard import Leaderboard, score_field
from timetrial.scoring.time_to_target import Mode, is_within_rules


def mode_differences(board: Leaderboard) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores in both modes, by submission; and a row for every workload time in which they differ.

    Columns of the first: algoperf, exact, rank_algoperf, rank_exact. Columns of the second: submission, workload,
    algoperf, exact (seconds; infinite: missed) and why, one clause for each study that differs.
    """
    modes: tuple[Mode, Mode] = ("algoperf", "exact")
    old, new = (
        board if board.mode == mode else score_field(board.field, mode, board.scoring.reference)
        for mode in modes
    )
    scores = pd.DataFrame(
        {
            "algoperf": old.scores["score"],
            "exact": new.scores["score"],
            "rank_algoperf": old.scores["rank"],
            "rank_exact": new.scores["rank"],
        }
    )
    old_cells, new_cells = _by_cell(old.studies), _by_cell(new.studies)
    rows = []
    for submission in board.times.index:
        times = zip(board.times.columns, old.times.loc[submission], new.times.loc[submission], strict=True)
        for workload, before, after in times:
            if before != after and not (math.isnan(before) and math.isnan(after)):
                cell = (str(submission), str(workload))
                why = _why(board.field, old_cells.get(cell, {}), new_cells.get(cell, {}))
                rows.append([submission, workload, before, after, why])
    cells = pd.DataFrame(rows, columns=["submission", "workload", "algoperf", "exact", "why"])
    return scores.loc[board.scores.index], cells


_Studies = dict[int, tuple[float, int]]


def _why(field: Field, before: _Studies, after: _Studies) -> str:
    """One clause for each study of a cell whose time `before` (mode algoperf) is not that `after` (mode exact)."""
    clauses = []
    for study, (seconds, number) in after.items():
        old_seconds, old_number = before.get(study, (math.nan, -1))
        if old_seconds == seconds:
            continue
        if number < 0 or old_number < 0:
            clauses.append(f"study {study} is missing, which counts as a miss")
        elif not is_within_rules(field.trials.iloc[[old_number]], "exact").iloc[0]:
            clauses.append(f"study {study}: {_trial(field, old_number)} used up its budget first")
        else:
            clauses.append(
                f"study {study}: {_trial(field, number)} is faster than {_trial(field, old_number)}, which AlgoPerf "
                "takes for its earlier evaluation"
            )
    return "; ".join(clauses)


def _by_cell(studies: pd.DataFrame) -> dict[tuple[str, str], _Studies]:
    """Seconds and deciding trial of every study, by submission and workload and then by study."""
    cells: dict[tuple[str, str], _Studies] = {}
    for (submission, workload, study), seconds, number in zip(
        studies.index, studies["seconds"], studies["number"], strict=True
    ):
        cells.setdefault((submission, workload), {})[int(study)] = (float(seconds), int(number))
    return cells


def _trial(field: Field, number: int) -> str:
    trial = field.trials.iloc[number]
    if trial["row"] < 0 or trial["status"] == Status.VOID.value:
        return f"trial {trial['trial']}"
    return f"trial {trial['trial']} ({trial['seconds']:,.1f} s, evaluation {trial['row'] + 1})"
