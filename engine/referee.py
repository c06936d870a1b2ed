"""The referee: owns the clock, decides what happens next, and writes every record of a trial.

It imports neither a framework nor the submission. It speaks with the racer and the judge through links, and
what happens next is decided by `decide.next_action`.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from timetrial.engine.books import Books, Observer
from timetrial.engine.clock import now_ns, seconds
from timetrial.engine.decide import End, Evaluate, Run, State, next_action
from timetrial.engine.ledger import Account
from timetrial.engine.link import Gone, Link
from timetrial.engine.messages import (
    EvalResult,
    Failed,
    Go,
    JudgeSnapshot,
    Message,
    RacerReady,
    Refused,
    Stopped,
    TakeCheckpoint,
    TakeSnapshot,
    Verdict,
    Written,
)
from timetrial.engine.outcome import SENTENCE, Status
from timetrial.engine.progress import Progress
from timetrial.engine.trial import Sitting, TrialPlan, preparation, visible

_TICK_SEC = 0.2


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long the referee waits, in seconds, before it calls a silent process hung."""

    setup_sec: float = 900.0  # import, data, model and optimizer initialisation
    first_step_sec: float = 1_800.0  # compilation included
    step_sec: float = 300.0
    write_sec: float = 600.0
    judge_sec: float = 3_600.0


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
    kernels: dict[str, list[str]]
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
        self._goals = {"validation_goal_reached": False, "test_goal_reached": False}
        self._new_results: list[EvalResult] = []
        self._checkpoints: list[Path] = []
        self._warm = False  # whether a step has ended in this sitting
        self._ready: RacerReady | None = None
        self._racer: Link | None = None

    def race(self) -> Result:
        """Run the trial to its end. OSError if its records cannot be written."""
        self._books = Books(self._plan, self._observer, self._sitting)
        self._progress = Progress(self._crew.scratch / "progress", create=True)
        try:
            status, reason = self._played()
        finally:
            if self._racer is not None:
                self._racer.kill()
            self._progress.close()
        self._books.close(status, reason, self._state.step)
        return Result(
            status=status,
            reason=reason,
            state=self._state,
            accounts=self._books.totals,
            breakdown=self._books.breakdown,
            compile=self._books.compile,
            kernels=self._books.kernels,
            evaluations=self._books.evaluations,
            flags=self._books.flags,
            ready=self._ready,
        )

    def _played(self) -> tuple[Status, str]:
        try:
            return self._play()
        except _Over as over:
            return over.status, over.reason
        except OSError as error:
            return Status.CRASHED, f"the records cannot be written: {error}"

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
            message = preparation(
                plan,
                progress=self._crew.scratch / "progress",
                compile_cache=plan.directory.path / "compiled",
                forbidden=[] if plan.in_process else [plan.data / "evaluation"],
                checkpoint=self._sitting.checkpoint,
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
        before_ns = self._books.submission_ns
        go = Go(
            run_ns=run_ns,
            last_step=last_step,
            new_results=self._new_results,
            train_state=self._train_state(),
        )
        self._new_results = []
        with self._death_means(Status.CRASHED, "the racer died while it trained"):
            self._books.enter(Account.SUBMISSION)
            racer.send(go)
            self._books.flush()
            stopped = self._await_stop()
        self._books.enter(Account.SNAPSHOT)
        assert isinstance(stopped, Stopped)
        official_ns = self._books.submission_ns - before_ns
        self._books.compare_clocks(official_ns, stopped.racer_ns)
        # What the racer did not see: waking up, and telling.
        signalling = official_ns - sum(stopped.breakdown.values())
        self._books.add_up({**stopped.breakdown, "signalling": signalling}, stopped.compile, stopped.kernels)
        self._state = replace(
            self._state,
            submission_ns=self._books.submission_ns,
            step=stopped.global_step,
            training_complete=stopped.training_complete,
        )
        self._observer.step_counted(self._plan, stopped.global_step, self._state.submission_ns)
        if stopped.scalars:
            self._books.enter(Account.LOGGING)
            self._books.write_scalars(stopped.scalars)

    def _await_stop(self) -> Message:
        """Stopped; notes signs of life meanwhile and gives up on a step that does not end."""
        racer = self._held_racer()
        begun = changed = now_ns()
        submission_before = self._books.submission_ns
        step = self._progress.read()
        patience = self._patience.step_sec if self._warm else self._patience.first_step_sec
        with open(self._plan.heartbeat, "wb", buffering=0) as heartbeat:
            while True:
                answer = racer.receive(_TICK_SEC)
                if answer is not None:
                    self._warm = True
                    return _or_over(answer)
                now = now_ns()
                os.pwrite(heartbeat.fileno(), b"%020d" % self._books.elapsed_now(), 0)
                if self._progress.read() != step:
                    step, changed, patience = self._progress.read(), now, self._patience.step_sec
                    self._observer.step_counted(self._plan, step, submission_before + now - begun)
                elif seconds(now - changed) > patience:
                    raise _Over(Status.HUNG, f"step {step + 1} did not end within {patience:g} s")

    def _evaluate(self) -> None:
        snapshot = self._crew.scratch / "snapshot.safetensors"
        with self._death_means(Status.CRASHED, "the racer died while it wrote a snapshot"):
            self._books.enter(Account.SNAPSHOT)
            message = TakeSnapshot(path=str(snapshot))
            written = self._ask(message, self._patience.write_sec, "writing a snapshot")
            assert isinstance(written, Written)
            self._books.note(snapshot={"bytes": written.bytes, "write_ns": written.write_ns})
            if not self._plan.in_process:
                self._write_checkpoint()
        self._books.enter(Account.EVALUATION)
        racer = self._held_racer()
        racer.freeze()
        verdict = self._judged(snapshot)
        self._books.enter(Account.LOGGING)
        snapshot.unlink()
        if verdict.diverged is not None:
            self._state = replace(self._state, diverged=True)
            raise _Over(
                Status.DIVERGED, f"{verdict.diverged!r} is NaN or infinite at step {self._state.step}"
            )
        self._books.note(judge={"read_ns": verdict.read_ns, "judge_ns": verdict.judge_ns})
        self._take_in(self._books.write_evaluation(verdict.metrics, self._state.step))
        racer.thaw()

    def _write_checkpoint(self) -> None:
        path = self._plan.directory.path / f"checkpoint_{self._state.step}.safetensors"
        self._books.enter(Account.CHECKPOINT)
        written = self._ask(TakeCheckpoint(path=str(path)), self._patience.write_sec, "writing a checkpoint")
        assert isinstance(written, Written)
        if written.left_out:
            self._books.flag(
                f"cannot be resumed: no state_dict and no plain value: {', '.join(written.left_out)}"
            )
            return
        note = {"file": path.name, "step": self._state.step, "submission_ns": self._state.submission_ns}
        self._books.note(checkpoint=note)
        for old in self._checkpoints[:-1]:
            old.unlink(missing_ok=True)
        self._checkpoints = [*self._checkpoints[-1:], path]

    def _judged(self, snapshot: Path) -> Verdict:
        """The verdict; a judge that dies is replaced once."""
        try:
            answer = self._ask_judge(snapshot)
        except Gone as gone:
            self._crew.dismiss_judge()
            self._books.flag(f"the judge was replaced: {gone}")
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

    def _take_in(self, row: dict[str, float]) -> None:
        facts = self._plan.facts
        metric = facts.metric
        reached = metric.reached(row[f"validation/{metric.name}"], facts.validation_target)
        test = row.get(f"test/{metric.name}")
        test_reached = facts.test_target is None or test is None or metric.reached(test, facts.test_target)
        self._goals["validation_goal_reached"] |= reached
        self._goals["test_goal_reached"] |= test_reached
        self._new_results.append((self._state.step, visible(row)))
        self._state = replace(
            self._state,
            evaluated_ns=self._state.submission_ns,
            evaluated_step=self._state.step,
            target_reached=reached,
        )

    def _train_state(self) -> dict[str, bool | float]:
        now = seconds(now_ns())
        return {
            **self._goals,
            **self._books.accumulated(),
            "is_time_remaining": True,
            "training_complete": False,
            "last_eval_time": now if self._books.evaluations else 0.0,
            "last_step_end_time": now,
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


def _or_over(answer: Message) -> Message:
    if isinstance(answer, Failed):
        status = Status.VOID if answer.void else Status.CRASHED
        raise _Over(status, answer.why)
    return answer
