"""What happens next in a trial: pure functions of small records, so that every rule can be tested without a race.

Evaluations lie on a fixed grid of submission time (every `period_ns`), the same for every submission: they do
not depend on how long earlier evaluations or logging took.
"""

from dataclasses import dataclass

from timetrial.engine.outcome import Status


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The limits of one trial. `max_steps` is None where only time limits it."""

    budget_ns: int
    period_ns: int
    max_steps: int | None = None


@dataclass(frozen=True, kw_only=True)
class State:
    """Where a trial stands, by the official clock. Times are of the submission account only."""

    submission_ns: int = 0
    step: int = 0
    evaluated_ns: int = 0  # at the last evaluation
    evaluated_step: int = -1
    training_complete: bool = False
    target_reached: bool = False
    diverged: bool = False


@dataclass(frozen=True)
class Run:
    """Run steps until `run_ns` more nanoseconds or the step count `last_step`, whichever comes first."""

    run_ns: int
    last_step: int | None


@dataclass(frozen=True)
class Evaluate:
    """Take a snapshot and judge it."""


@dataclass(frozen=True)
class End:
    """The trial is over."""

    status: Status


def next_evaluation_ns(state: State, rules: Rules) -> int:
    """The first point of the evaluation grid after the last evaluation."""
    return (state.evaluated_ns // rules.period_ns + 1) * rules.period_ns


def next_action(state: State, rules: Rules) -> Run | Evaluate | End:
    """What the referee does now that the racer stands still.

    A state reached at or after the budget's end is never evaluated: what it holds was made too late.
    """
    if state.diverged:
        return End(Status.DIVERGED)
    if state.target_reached:
        return End(Status.TARGET)
    if state.submission_ns >= rules.budget_ns:
        return End(Status.BUDGET)
    evaluated = state.evaluated_step == state.step
    if state.training_complete or state.step == rules.max_steps:
        return End(Status.COMPLETED) if evaluated else Evaluate()
    due_ns = next_evaluation_ns(state, rules)
    if state.submission_ns >= due_ns and not evaluated:
        return Evaluate()
    if due_ns <= state.submission_ns:  # no step has ended since the last evaluation
        due_ns = state.submission_ns + rules.period_ns
    return Run(min(due_ns, rules.budget_ns) - state.submission_ns, rules.max_steps)
