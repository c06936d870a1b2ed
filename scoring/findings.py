"""What health has to tell, for people: one row for each submission and sign, naming workloads and studies."""

from collections.abc import Sequence

import pandas as pd

from timetrial.scoring.health import Concern, Outcome
from timetrial.scoring.leaderboard import Leaderboard

_WORTH_TELLING = [outcome for outcome in Outcome if outcome not in (Outcome.TARGET, Outcome.MISSED)]

COLUMNS = ["submission", "finding", "trials", "where", "detail"]


def findings(board: Leaderboard, health: pd.DataFrame) -> pd.DataFrame:
    """Every outcome but target and missed, and every concern: a row for each submission that has it.

    Columns: submission, finding, trials (how many), where (workloads and their studies), detail.
    """
    table = board.trials.join(health)
    workloads = board.trials.groupby("submission")["workload"].nunique().to_dict()
    signs: list[tuple[Outcome | Concern, pd.Series]] = [
        (outcome, table["outcome"] == outcome.value) for outcome in _WORTH_TELLING
    ]
    signs += [
        (concern, table["concerns"].map(lambda found, sign=concern.value: sign in found))
        for concern in Concern
    ]
    machines = table.groupby("submission")["machine"].agg(lambda names: names.mode().iloc[0]).to_dict()
    rows = []
    for sign, holds in signs:
        for submission, hit in table[holds].groupby("submission"):
            detail = _end(hit) if isinstance(sign, Outcome) else _size(sign, hit, machines[submission])
            rows.append([submission, sign.value, len(hit), _where(hit, workloads[submission]), detail])
    place = {name: rank for rank, name in enumerate(board.scores.index)}
    return pd.DataFrame(sorted(rows, key=lambda row: place[row[0]]), columns=COLUMNS)


def outcome_counts(board: Leaderboard, health: pd.DataFrame) -> pd.DataFrame:
    """How many trials of each submission had each outcome: a row a submission, a column an outcome that occurs."""
    counts = (
        health["outcome"]
        .groupby([board.trials["submission"], health["outcome"]])
        .size()
        .unstack(fill_value=0)
    )
    order = [outcome.value for outcome in Outcome if outcome.value in counts.columns]
    return counts.loc[board.scores.index, order]


def _where(hit: pd.DataFrame, everywhere: int) -> str:
    """Workloads with their studies, such as "wmt: studies 0-2, 4"; workloads that share their studies stand together.

    `everywhere`: how many workloads the submission ran.
    """
    studies: dict[str, set[int]] = {}
    for workload, study in zip(hit["workload"], hit["study"], strict=True):
        studies.setdefault(workload, set()).add(study)
    sharing: dict[str, list[str]] = {}
    for workload in sorted(studies):
        sharing.setdefault(ranges(sorted(studies[workload])), []).append(workload)
    parts = []
    for numbers, workloads in sharing.items():
        names = f"all {everywhere} workloads" if len(workloads) == everywhere > 2 else ", ".join(workloads)
        parts.append(f"{names}: {'study' if numbers.isdecimal() else 'studies'} {numbers}")
    return "; ".join(parts)


def ranges(numbers: Sequence[int]) -> str:
    """Increasing numbers as text: "0-2, 4"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _end(hit: pd.DataFrame) -> str:
    """When trials ended that were not heard of again; for others what their records say, at most three reasons."""
    share = 100 * hit["end_seconds"] / hit["budget"]
    if hit["outcome"].iloc[0] == Outcome.TRUNCATED.value and share.notna().all():
        return f"ended {_span(share)} % into the budget"
    counted = [text for text in hit["detail"].value_counts().index if text]
    more = f" and {len(counted) - 3} more" if len(counted) > 3 else ""
    return "; ".join(counted[:3]) + more


def _size(concern: Concern, hit: pd.DataFrame, machine: str) -> str:
    """How large a concern is, where that can be told. `machine`: that of most of the submission's trials."""
    if concern is Concern.SLOWER_THAN_EXPECTED:
        factor = hit["step_seconds"] / hit["expected_pace"]
        return f"{_span(factor)} times the seconds a step that were expected"
    if concern is Concern.SAME_SEED:
        seeds = hit.groupby(["workload", "study"])["seed"].nunique().max()
        return "one seed for all of a study's trials" if seeds == 1 else f"at most {seeds} seeds a study"
    if concern is Concern.OTHER_MACHINE:
        usual = set(machine.split(", "))
        others = [
            [fact for fact in text.split(", ") if fact not in usual] for text in hit["machine"].unique()
        ]
        return "; ".join(sorted({", ".join(facts) for facts in others if facts}))
    if concern is Concern.OTHER_KERNELS:
        return "; ".join(sorted(hit["kernels"].unique()))
    return ""


def _span(values: pd.Series) -> str:
    """The least and the greatest, or one number where they read the same."""
    low, high = (f"{end:.2g}" if end < 100 else f"{end:,.0f}" for end in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"
