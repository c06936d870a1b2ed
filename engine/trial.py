"""One trial as planned, and what an earlier sitting of it has left behind."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timetrial.engine import checkpoint
from timetrial.engine.clock import nanoseconds
from timetrial.engine.decide import Rules, State
from timetrial.engine.errors import RecordError
from timetrial.engine.facts import Framework, WorkloadFacts
from timetrial.engine.ledger import Account, totals_of
from timetrial.engine.messages import EvalResult, PrepareRacer
from timetrial.engine.records import LEDGER_END, TrialDirectory, read_ledger


@dataclass(frozen=True, kw_only=True)
class TrialPlan:
    """Everything that decides a trial before it starts. Times are seconds of this machine."""

    facts: WorkloadFacts
    framework: Framework
    submission: str  # its name
    submission_path: Path
    ruleset: str
    study: int
    trial: int
    seed: int
    hyperparameters: dict[str, Any] | None
    budget_sec: float
    eval_period_sec: float
    max_steps: int | None
    compile: bool
    data: Path
    caches: Path  # where compiled programs are kept
    directory: TrialDirectory
    ranks: int = 1
    in_process: bool = False

    @property
    def rules(self) -> Rules:
        return Rules(
            budget_ns=nanoseconds(self.budget_sec),
            period_ns=nanoseconds(self.eval_period_sec),
            max_steps=self.max_steps,
        )

    @property
    def heartbeat(self) -> Path:
        """Where the referee notes the trial's time while it waits, for a resumption after its own death."""
        return self.directory.path / "heartbeat"


@dataclass(frozen=True, kw_only=True)
class Sitting:
    """Where an earlier sitting of a trial got to; an untouched trial by default."""

    carried: Mapping[Account, int] = field(default_factory=dict)
    state: State = field(default_factory=State)
    checkpoint: Path | None = None
    rows: tuple[dict[str, float], ...] = ()  # all evaluations so far, as rows of eval_measurements.csv
    resumed: int = 0
    lost_ns: int = 0  # charged work that was done in vain, over all interruptions
    breakdown: Mapping[str, int] = field(default_factory=dict)
    compile: Mapping[str, float] = field(default_factory=dict)
    kernels: Mapping[str, list[str]] = field(default_factory=dict)
    flags: tuple[str, ...] = ()

    @property
    def results(self) -> list[EvalResult]:
        """What a submission may see of the evaluations."""
        return [(int(row["global_step"]), visible(row)) for row in self.rows]


def visible(row: Mapping[str, float]) -> dict[str, float]:
    """An evaluation without its test metrics: no training algorithm may decide by those."""
    return {name: value for name, value in row.items() if not name.startswith("test/")}


def preparation(
    plan: TrialPlan,
    *,
    progress: Path,
    compile_cache: Path,
    forbidden: Sequence[Path],
    checkpoint: Path | None,
) -> PrepareRacer:
    """What a racer is told before it runs; each rank gets its own number on the way (`link.RankedLink`)."""
    return PrepareRacer(
        workload=plan.facts.name,
        framework=plan.framework,
        submission=str(plan.submission_path),
        hyperparameters=plan.hyperparameters,
        trial_seed=plan.seed,
        data=str(plan.data),
        forbidden=[str(folder) for folder in forbidden],
        compile_cache=str(compile_cache),
        compile=plan.compile,
        rank=0,
        ranks=plan.ranks,
        rendezvous_port=0,
        progress=str(progress),
        max_allowed_runtime_sec=plan.budget_sec,
        eval_period_time_sec=plan.eval_period_sec,
        checkpoint=None if checkpoint is None else str(checkpoint),
    )


def earlier_sitting(plan: TrialPlan) -> Sitting:
    """What can be continued of a trial that was broken off, from its ledger, heartbeat and checkpoints.

    The account that was open is charged up to the last sign of life, so work that was lost stays charged.
    """
    if not plan.directory.ledger.exists():
        return Sitting()
    entries = read_ledger(plan.directory.ledger)
    if not entries:
        return Sitting()
    end_ns = max(entries[-1].t, _last_heartbeat(plan.heartbeat))
    spans = [(entry.t, Account(entry.account)) for entry in entries if entry.account != LEDGER_END]
    carried = totals_of(spans, end_ns)
    rows = tuple(entry.note["evaluation"] for entry in entries if "evaluation" in entry.note)
    saved = [entry.note["checkpoint"] for entry in entries if "checkpoint" in entry.note]
    flags = [flag for entry in entries for flag in entry.note.get("flags", [])]
    resumed = 1 + sum("resumed" in entry.note for entry in entries)
    chosen: dict[str, Any] | None = None
    for candidate in reversed(saved[-2:]):
        path = plan.directory.path / candidate["file"]
        try:
            checkpoint.verify(path)
        except RecordError as error:
            flags.append(f"checkpoint damaged: {error}")
            continue
        chosen = candidate
        break
    saved_ns = 0 if chosen is None else int(chosen["submission_ns"])
    # What was lost before an earlier resumption is counted already.
    resumed_ns = max((entry.note["submission_ns"] for entry in entries if "resumed" in entry.note), default=0)
    lost_before = max((entry.note.get("lost_ns", 0) for entry in entries), default=0)
    breakdown = _summed(entry.note.get("breakdown", {}) for entry in entries)
    # A segment that never ended was charged, and nobody can say any more what it was spent on.
    breakdown["broken_off"] = carried[Account.SUBMISSION] - sum(breakdown.values())
    last = rows[-1] if rows else None
    step = 0 if chosen is None else int(chosen["step"])
    submission_ns = carried[Account.SUBMISSION]
    evaluated_step = -1 if last is None or int(last["global_step"]) != step else step
    return Sitting(
        carried=carried,
        state=State(
            submission_ns=submission_ns,
            step=step,
            evaluated_ns=0 if last is None else nanoseconds(last["accumulated_submission_time"]),
            evaluated_step=evaluated_step,
        ),
        checkpoint=None if chosen is None else plan.directory.path / chosen["file"],
        rows=rows,
        resumed=resumed,
        lost_ns=lost_before + submission_ns - max(saved_ns, resumed_ns),
        breakdown=breakdown,
        compile=_summed(entry.note.get("compile", {}) for entry in entries),
        kernels=joined_uses(entry.note.get("kernels", {}) for entry in entries),
        flags=tuple(dict.fromkeys(flags)),
    )


def joined_uses(parts: Iterable[Mapping[str, list[str]]]) -> dict[str, list[str]]:
    """What several sittings used of each kernel, each thing once."""
    joined: dict[str, list[str]] = {}
    for part in parts:
        for kernel, uses in part.items():
            joined[kernel] = list(dict.fromkeys((*joined.get(kernel, ()), *uses)))
    return joined


def _last_heartbeat(path: Path) -> int:
    content = path.read_bytes() if path.exists() else b""
    return int(content) if content.strip().isdigit() else 0


def _summed(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total.get(name, 0) + value
    return total
