"""The books of one trial: the ledger, and every record that is written while the trial runs.

An evaluation is durable in the ledger before it is written anywhere else, and what was entered is made durable
as soon as the racer runs again. So whatever kills the referee, no finished evaluation is lost, and of the charged
time at most what passed since the last sign of life, which it leaves five times a second.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from timetrial.engine.clock import clocks_agree, now_ns, seconds
from timetrial.engine.ledger import Account, Ledger
from timetrial.engine.messages import EvalResult
from timetrial.engine.outcome import BROKEN, Status
from timetrial.engine.records import (
    LEDGER_END,
    LedgerEntry,
    append_evaluation,
    append_ledger,
    append_measurements,
)
from timetrial.engine.trial import Sitting, TrialPlan, joined_uses


class Observer(Protocol):
    """Who watches a race: told when something happens, never asked."""

    def account_entered(self, plan: TrialPlan, account: Account) -> None: ...
    def step_counted(self, plan: TrialPlan, step: int, submission_ns: int) -> None: ...
    def evaluated(self, plan: TrialPlan, row: dict[str, float]) -> None: ...
    def ended(self, plan: TrialPlan, status: Status) -> None: ...


class Books:
    """Opened when the trial begins, or begins again; the account is then `setup`."""

    def __init__(self, plan: TrialPlan, observer: Observer, sitting: Sitting) -> None:
        self._plan = plan
        self._observer = observer
        self._resumed = sitting.resumed
        self._pending: list[LedgerEntry] = []
        self._segments = 0
        self._disagreements: list[int] = []
        self.flags = list(sitting.flags)
        self.evaluations = len(sitting.rows)
        self.breakdown = dict(sitting.breakdown)
        self.compile = dict(sitting.compile)
        self.kernels = dict(sitting.kernels)
        self._ledger = Ledger(now_ns(), sitting.carried)
        again = {
            "resumed": sitting.resumed,
            "lost_ns": sitting.lost_ns,
            "submission_ns": sitting.state.submission_ns,
        }
        self._entry(Account.SETUP, again if sitting.resumed else {})
        observer.account_entered(plan, Account.SETUP)

    def enter(self, account: Account) -> None:
        """Read the clock once: the open account ends here and `account` begins.

        What it takes to tell the observer is never the submission's time.
        """
        if account is Account.SUBMISSION:
            self._observer.account_entered(self._plan, account)
        self._ledger.enter(account, now_ns())
        self._entry(account, {})
        if account is not Account.SUBMISSION:
            self._observer.account_entered(self._plan, account)

    def note(self, **event: Any) -> None:
        """Say in the ledger what happened at the last reading."""
        self._entry(self._ledger.account, event)

    def add_up(
        self, breakdown: Mapping[str, int], compile: Mapping[str, float], kernels: Mapping[str, list[str]]
    ) -> None:
        """What the submission account was spent on since it was entered: nanoseconds, compilation, and by which
        kernels, which is said again when it changes.
        """
        for name, ns in breakdown.items():
            self.breakdown[name] = self.breakdown.get(name, 0) + ns
        for name, value in compile.items():
            self.compile[name] = self.compile.get(name, 0.0) + value
        self.note(breakdown=breakdown, compile=compile)
        joined = joined_uses([self.kernels, kernels])
        if joined != self.kernels:
            self.kernels = joined
            self.note(kernels=joined)

    def compare_clocks(self, official_ns: int, racer_ns: int) -> None:
        """Both measurements of one segment; the trial is flagged once if any two do not agree."""
        self._segments += 1
        if not clocks_agree(official_ns, racer_ns):
            self._disagreements.append(official_ns - racer_ns)
            self.note(clocks={"official_ns": official_ns, "racer_ns": racer_ns})

    def flag(self, flag: str) -> None:
        """Something that a reader of the result must know; said once."""
        if flag not in self.flags:
            self.flags.append(flag)
            self.note(flags=[flag])

    def flush(self) -> None:
        """Make what is in the ledger durable. OSError if the disk is full."""
        append_ledger(self._plan.directory.ledger, self._pending)
        self._pending = []

    @property
    def submission_ns(self) -> int:
        """The official time, at the last reading."""
        return self._ledger.totals[Account.SUBMISSION]

    @property
    def totals(self) -> dict[str, int]:
        """Nanoseconds per account, by its name."""
        return {account.value: ns for account, ns in self._ledger.totals.items()}

    def elapsed_now(self) -> int:
        """The trial's time, now."""
        return self._ledger.elapsed_at(now_ns())

    def accumulated(self) -> dict[str, float]:
        """AlgoPerf's three accumulated times, in seconds: what is neither trained nor evaluated is logging."""
        totals = self._ledger.totals
        kept = totals[Account.SNAPSHOT] + totals[Account.CHECKPOINT] + totals[Account.LOGGING]
        return {
            "accumulated_submission_time": seconds(totals[Account.SUBMISSION]),
            "accumulated_eval_time": seconds(totals[Account.EVALUATION]),
            "accumulated_logging_time": seconds(kept),
        }

    def write_scalars(self, scalars: list[EvalResult]) -> None:
        """What the submission logged, as rows of measurements.csv."""
        rows = [{"global_step": step, **metrics} for step, metrics in scalars]
        append_measurements(self._plan.directory.measurements, rows)

    def write_evaluation(self, metrics: Mapping[str, float], step: int) -> dict[str, float]:
        """Record one evaluation and return its row, with AlgoPerf's columns."""
        facts = self._plan.facts
        examples = {"validation/num_examples": facts.num_validation_examples}
        if facts.num_test_examples is not None:
            examples["test/num_examples"] = facts.num_test_examples
        row: dict[str, float] = {
            **metrics,
            **examples,
            **self.accumulated(),
            "total_duration": seconds(self._ledger.elapsed),
            "score": seconds(self.submission_ns),
            "global_step": step,
            "preemption_count": self._resumed,
        }
        self.note(evaluation=row)
        self.flush()
        append_evaluation(self._plan.directory.evaluations, row)
        append_measurements(self._plan.directory.measurements, [row])
        self.evaluations += 1
        self._observer.evaluated(self._plan, row)
        return row

    def close(self, status: Status, reason: str, step: int) -> None:
        """The last lines of the records, and an end to what only a resumption would need."""
        self.enter(Account.LOGGING)
        if self._disagreements:
            worst = max(self._disagreements, key=abs)
            self.flag(
                f"clocks disagree in {len(self._disagreements)} of {self._segments} segments: by the referee's, "
                f"the official one, up to {worst / 1e6:+.1f} ms (a busy machine, or a submission that tampers)"
            )
        self.note(status=status.value, reason=reason)
        row = {
            "score": seconds(self.submission_ns),
            "global_step": step,
            "preemption_count": self._resumed,
        }
        append_measurements(self._plan.directory.measurements, [row])
        self.enter(Account.LOGGING)
        self._pending.append(LedgerEntry(t=self._ledger.elapsed, account=LEDGER_END))
        self.flush()
        self._observer.ended(self._plan, status)
        self._plan.heartbeat.unlink(missing_ok=True)
        if status not in BROKEN:
            for path in self._plan.directory.path.glob("checkpoint_*"):
                path.unlink()

    def _entry(self, account: Account, note: dict[str, Any]) -> None:
        self._pending.append(LedgerEntry(t=self._ledger.elapsed, account=account.value, note=note))
