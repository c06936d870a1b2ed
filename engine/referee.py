"""The referee: owns the clock, decides what happens next, and writes every record of a trial.

It imports neither a framework nor the submission. It speaks with the racer and the judge through links, and
what happens next is decided by `decide.next_action`.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from timetrial.engine.clock import clocks_agree, now_ns, seconds
from timetrial.engine.decide import End, Evaluate, Run, State, next_action
from timetrial.engine.ledger import Account, Ledger
from timetrial.engine.link import Gone, Link
from timetrial.engine.messages import (
    EvalResult,
    Failed,
    Go,
    JudgeSnapshot,
    Message,
    PrepareRacer,
    RacerReady,
    Refused,
    Stopped,
    TakeCheckpoint,
    TakeSnapshot,
    Verdict,
    Written,
)
from timetrial.engine.outcome import BROKEN, SENTENCE, Status
from timetrial.engine.progress import Progress
from timetrial.engine.records import (
    LEDGER_END,
    LedgerEntry,
    append_evaluation,
    append_ledger,
    append_measurements,
)
from timetrial.engine.trial import Sitting, TrialPlan, visible

_TICK_SEC = 0.2


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long the referee waits, in seconds, before it calls a silent process hung."""

    setup_sec: float = 900.0  # import, data, model and optimizer initialisation
    first_step_sec: float = 1_800.0  # compilation included
    step_sec: float = 300.0
    write_sec: float = 600.0
    judge_sec: float = 3_600.0


class Observer(Protocol):
    """Who watches a race: told when something happens, never asked."""

    def account_entered(self, plan: TrialPlan, account: Account) -> None: ...
    def step_counted(self, plan: TrialPlan, step: int, submission_ns: int) -> None: ...
    def evaluated(self, plan: TrialPlan, row: dict[str, float]) -> None: ...


class Crew(Protocol):
    """Where the referee gets its racer and judge (`crew.py`)."""

    scratch: Path  # a folder in memory, for snapshots

    def racer(self, plan: TrialPlan) -> Link:
        """A new racer, not prepared."""

    def summon_judge(self, plan: TrialPlan) -> None:
        """Start to make a judge ready, unless one is."""

    def judge(self, plan: TrialPlan, patience_sec: float) -> Link:
        """The judge, ready; it is kept between trials. Gone if it cannot be made ready in time."""

    def dismiss_judge(self) -> None:
        """The judge is of no use any more; the next one will be another."""


class _Over(Exception):
    """The trial has ended in the middle of something."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Result:
    """What the referee saw of one trial."""

    status: Status
    reason: str
    state: State
    accounts: dict[str, int]
    breakdown: dict[str, int]
    compile: dict[str, float]
    evaluations: int
    flags: list[str]
    ready: RacerReady | None


class Referee:
    """Races one trial, from its beginning or from where an earlier sitting left off."""

    def __init__(
        self, plan: TrialPlan, crew: Crew, observer: Observer, patience: Patience, sitting: Sitting
    ) -> None:
        self._plan = plan
        self._crew = crew
        self._observer = observer
        self._patience = patience
        self._sitting = sitting
        self._state = sitting.state
        self._flags = list(sitting.flags)
        self._breakdown: dict[str, int] = {}
        self._compile: dict[str, float] = {}
        self._evaluations = len(sitting.rows)
        self._goals = {"validation_goal_reached": False, "test_goal_reached": False}
        self._new_results: list[EvalResult] = []
        self._pending: list[LedgerEntry] = []
        self._checkpoints: list[Path] = []
        self._warm = False  # whether a step has ended in this sitting
        self._ready: RacerReady | None = None
        self._racer: Link | None = None

    def race(self) -> Result:
        """Run the trial to its end. OSError if its records cannot be written."""
        self._ledger = Ledger(now_ns(), self._sitting.carried)
        note = {"resumed": self._sitting.resumed} if self._sitting.resumed else {}
        self._note(Account.SETUP, self._ledger.elapsed, note)
        self._progress = Progress(self._crew.scratch / "progress", create=True)
        try:
            status, reason = self._played()
        finally:
            if self._racer is not None:
                self._racer.kill()
            self._progress.close()
        self._enter(Account.LOGGING, {"status": status.value, "reason": reason})
        self._close(status)
        return Result(
            status=status,
            reason=reason,
            state=self._state,
            accounts={account.value: ns for account, ns in self._ledger.totals.items()},
            breakdown=self._breakdown,
            compile=self._compile,
            evaluations=self._evaluations,
            flags=self._flags,
            ready=self._ready,
        )

    def _played(self) -> tuple[Status, str]:
        try:
            return self._play()
        except _Over as over:
            return over.status, over.reason
        except OSError as error:
            return Status.CRASHED, f"the records cannot be written: {error}"

    def _close(self, status: Status) -> None:
        """The last lines of the records, and an end to what only a resumption would need."""
        row = {
            "score": seconds(self._ledger.totals[Account.SUBMISSION]),
            "global_step": self._state.step,
            "preemption_count": self._sitting.resumed,
        }
        append_measurements(self._plan.directory.measurements, [row])
        self._pending.append(LedgerEntry(t=self._ledger.elapsed, account=LEDGER_END))
        self._flush()
        self._plan.heartbeat.unlink(missing_ok=True)
        if status not in BROKEN:
            for path in self._plan.directory.path.glob("checkpoint_*"):
                path.unlink()

    def _play(self) -> tuple[Status, str]:
        self._set_up()
        while True:
            match next_action(self._state, self._plan.rules):
                case Run(run_ns=run_ns, last_step=last_step):
                    self._run(run_ns, last_step)
                case Evaluate():
                    self._evaluate()
                case End(status=status):
                    return status, SENTENCE[status]

    def _set_up(self) -> None:
        plan = self._plan
        self._crew.summon_judge(plan)
        with self._death_means(Status.CRASHED, "the racer died while it was set up"):
            self._racer = self._crew.racer(plan)
            message = PrepareRacer(
                workload=plan.facts.name,
                framework=plan.framework,
                submission=str(plan.submission_path),
                hyperparameters=plan.hyperparameters,
                trial_seed=plan.seed,
                data=str(plan.data),
                forbidden=[] if plan.in_process else [str(plan.data / "evaluation")],
                compile_cache=str(plan.directory.path / "compiled"),
                compile=plan.compile,
                rank=0,
                ranks=plan.ranks,
                rendezvous_port=0,
                progress=str(self._crew.scratch / "progress"),
                max_allowed_runtime_sec=plan.budget_sec,
                eval_period_time_sec=plan.eval_period_sec,
                checkpoint=None if self._sitting.checkpoint is None else str(self._sitting.checkpoint),
            )
            ready = self._ask(message, self._patience.setup_sec, "setting up")
        assert isinstance(ready, RacerReady)
        self._ready = ready
        self._state = replace(self._state, step=ready.global_step)
        self._progress.write(ready.global_step)
        try:
            self._judge = self._crew.judge(plan, self._patience.setup_sec)
        except Gone as gone:
            self._crew.dismiss_judge()
            raise _Over(Status.CRASHED, f"the judge could not be set up: {gone}") from gone

    def _run(self, run_ns: int, last_step: int | None) -> None:
        racer = self._held_racer()
        totals = self._ledger.totals
        go = Go(
            run_ns=run_ns,
            last_step=last_step,
            new_results=self._new_results,
            train_state=self._train_state(totals),
        )
        self._new_results = []
        with self._death_means(Status.CRASHED, "the racer died while it trained"):
            self._enter(Account.SUBMISSION)
            racer.send(go)
            self._flush()
            stopped = self._await_stop()
        self._enter(Account.SNAPSHOT)
        assert isinstance(stopped, Stopped)
        official_ns = self._ledger.totals[Account.SUBMISSION] - totals[Account.SUBMISSION]
        if not clocks_agree(official_ns, stopped.racer_ns):
            self._flag(
                f"clocks disagree: the racer measured {seconds(stopped.racer_ns):.6f} s where the referee "
                f"measured {seconds(official_ns):.6f} s"
            )
        for name, ns in stopped.breakdown.items():
            self._breakdown[name] = self._breakdown.get(name, 0) + ns
        # What the racer did not see: waking up, and telling.
        self._breakdown["signalling"] = (
            self._breakdown.get("signalling", 0) + official_ns - sum(stopped.breakdown.values())
        )
        for name, value in stopped.compile.items():
            self._compile[name] = self._compile.get(name, 0.0) + value
        self._state = replace(
            self._state,
            submission_ns=self._ledger.totals[Account.SUBMISSION],
            step=stopped.global_step,
            training_complete=stopped.training_complete,
        )
        self._observer.step_counted(self._plan, stopped.global_step, self._state.submission_ns)
        if stopped.scalars:
            self._enter(Account.LOGGING)
            rows = [{"global_step": step, **scalars} for step, scalars in stopped.scalars]
            append_measurements(self._plan.directory.measurements, rows)

    def _await_stop(self) -> Message:
        """Stopped; notes signs of life meanwhile and gives up on a step that does not end."""
        racer = self._held_racer()
        begun = changed = now_ns()
        submission_before = self._ledger.totals[Account.SUBMISSION]
        step = self._progress.read()
        patience = self._patience.step_sec if self._warm else self._patience.first_step_sec
        with open(self._plan.heartbeat, "wb", buffering=0) as heartbeat:
            while True:
                answer = racer.receive(_TICK_SEC)
                if answer is not None:
                    self._warm = True
                    return _or_over(answer)
                now = now_ns()
                os.pwrite(heartbeat.fileno(), b"%020d" % self._ledger.elapsed_at(now), 0)
                if self._progress.read() != step:
                    step, changed, patience = self._progress.read(), now, self._patience.step_sec
                    self._observer.step_counted(self._plan, step, submission_before + now - begun)
                elif seconds(now - changed) > patience:
                    raise _Over(Status.HUNG, f"step {step + 1} did not end within {patience:g} s")

    def _evaluate(self) -> None:
        snapshot = self._crew.scratch / "snapshot.safetensors"
        with self._death_means(Status.CRASHED, "the racer died while it wrote a snapshot"):
            self._enter(Account.SNAPSHOT)
            self._ask(TakeSnapshot(path=str(snapshot)), self._patience.write_sec, "writing a snapshot")
            if not self._plan.in_process:
                self._write_checkpoint()
        self._enter(Account.EVALUATION)
        racer = self._held_racer()
        racer.freeze()
        verdict = self._judged(snapshot)
        self._enter(Account.LOGGING)
        snapshot.unlink()
        if verdict.diverged is not None:
            self._state = replace(self._state, diverged=True)
            raise _Over(Status.DIVERGED, f"{verdict.diverged!r} is NaN or infinite at step {self._state.step}")
        row = self._row(verdict)
        self._pending.append(
            LedgerEntry(t=self._ledger.elapsed, account=Account.LOGGING, note={"evaluation": row})
        )
        self._flush()
        append_evaluation(self._plan.directory.evaluations, row)
        append_measurements(self._plan.directory.measurements, [row])
        self._take_in(row)
        racer.thaw()

    def _write_checkpoint(self) -> None:
        path = self._plan.directory.path / f"checkpoint_{self._state.step}.safetensors"
        self._enter(Account.CHECKPOINT)
        written = self._ask(TakeCheckpoint(path=str(path)), self._patience.write_sec, "writing a checkpoint")
        assert isinstance(written, Written)
        if written.left_out:
            self._flag(f"cannot be resumed: no state_dict and no plain value: {', '.join(written.left_out)}")
            return
        note = {"file": path.name, "step": self._state.step, "submission_ns": self._state.submission_ns}
        self._pending.append(
            LedgerEntry(t=self._ledger.elapsed, account=Account.CHECKPOINT, note={"checkpoint": note})
        )
        for old in self._checkpoints[:-1]:
            old.unlink(missing_ok=True)
        self._checkpoints = [*self._checkpoints[-1:], path]

    def _judged(self, snapshot: Path) -> Verdict:
        """The verdict; a judge that dies is replaced once."""
        try:
            answer = self._ask_judge(snapshot)
        except Gone as gone:
            self._crew.dismiss_judge()
            self._flag(f"the judge was replaced: {gone}")
            try:
                self._judge = self._crew.judge(self._plan, self._patience.setup_sec)
                answer = self._ask_judge(snapshot)
            except Gone as again:
                self._crew.dismiss_judge()
                raise _Over(Status.CRASHED, f"the judge died twice: {again}") from again
        if isinstance(answer, Refused):
            raise _Over(Status.VOID, answer.why)
        if isinstance(answer, Failed):
            raise _Over(Status.CRASHED, f"the judge failed: {answer.why}")
        assert isinstance(answer, Verdict)
        return answer

    def _ask_judge(self, snapshot: Path) -> Message:
        self._judge.send(JudgeSnapshot(path=str(snapshot)))
        answer = self._judge.receive(self._patience.judge_sec)
        if answer is None:
            raise Gone(f"it did not answer within {self._patience.judge_sec:g} s")
        return answer

    def _row(self, verdict: Verdict) -> dict[str, float]:
        """One row of eval_measurements.csv: AlgoPerf's columns."""
        facts, totals = self._plan.facts, self._ledger.totals
        kept = totals[Account.SNAPSHOT] + totals[Account.CHECKPOINT] + totals[Account.LOGGING]
        examples = {"validation/num_examples": facts.num_validation_examples}
        if facts.num_test_examples is not None:
            examples["test/num_examples"] = facts.num_test_examples
        return {
            **verdict.metrics,
            **examples,
            "accumulated_submission_time": seconds(totals[Account.SUBMISSION]),
            "accumulated_eval_time": seconds(totals[Account.EVALUATION]),
            "accumulated_logging_time": seconds(kept),
            "total_duration": seconds(self._ledger.elapsed),
            "score": seconds(totals[Account.SUBMISSION]),
            "global_step": self._state.step,
            "preemption_count": self._sitting.resumed,
        }

    def _take_in(self, row: dict[str, float]) -> None:
        facts = self._plan.facts
        metric = facts.metric
        reached = metric.reached(row[f"validation/{metric.name}"], facts.validation_target)
        test = row.get(f"test/{metric.name}")
        test_reached = facts.test_target is None or test is None or metric.reached(test, facts.test_target)
        self._goals["validation_goal_reached"] |= reached
        self._goals["test_goal_reached"] |= test_reached
        self._evaluations += 1
        self._new_results.append((self._state.step, visible(row)))
        self._state = replace(
            self._state,
            evaluated_ns=self._state.submission_ns,
            evaluated_step=self._state.step,
            target_reached=reached,
        )
        self._observer.evaluated(self._plan, row)

    def _train_state(self, totals: dict[Account, int]) -> dict[str, bool | float]:
        kept = totals[Account.SNAPSHOT] + totals[Account.CHECKPOINT] + totals[Account.LOGGING]
        now = seconds(now_ns())
        return {
            **self._goals,
            "is_time_remaining": True,
            "training_complete": False,
            "last_eval_time": now if self._evaluations else 0.0,
            "last_step_end_time": now,
            "accumulated_submission_time": seconds(totals[Account.SUBMISSION]),
            "accumulated_eval_time": seconds(totals[Account.EVALUATION]),
            "accumulated_logging_time": seconds(kept),
        }

    def _ask(self, message: Message, patience_sec: float, doing: str) -> Message:
        """The racer's answer to `message`; the trial is over if it fails or stays silent."""
        racer = self._held_racer()
        racer.send(message)
        answer = racer.receive(patience_sec)
        if answer is None:
            raise _Over(Status.HUNG, f"{doing} took longer than {patience_sec:g} s")
        return _or_over(answer)

    def _held_racer(self) -> Link:
        if self._racer is None:
            raise RuntimeError("the racer is used before it exists")
        return self._racer

    @contextlib.contextmanager
    def _death_means(self, status: Status, when: str) -> Iterator[None]:
        try:
            yield
        except Gone as gone:
            raise _Over(status, f"{when}: {gone}") from gone

    def _enter(self, account: Account, note: dict[str, Any] | None = None) -> None:
        self._note(account, self._ledger.enter(account, now_ns()), note or {})

    def _note(self, account: Account, elapsed: int, note: dict[str, Any]) -> None:
        self._pending.append(LedgerEntry(t=elapsed, account=account.value, note=note))
        self._observer.account_entered(self._plan, account)

    def _flag(self, flag: str) -> None:
        if flag not in self._flags:
            self._flags.append(flag)
            self._pending.append(
                LedgerEntry(t=self._ledger.elapsed, account=self._ledger.account, note={"flags": [flag]})
            )

    def _flush(self) -> None:
        append_ledger(self._plan.directory.ledger, self._pending)
        self._pending = []


def _or_over(answer: Message) -> Message:
    if isinstance(answer, Failed):
        status = Status.VOID if answer.void else Status.CRASHED
        raise _Over(status, answer.why)
    return answer
