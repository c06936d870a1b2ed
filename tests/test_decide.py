"""The rules of a trial, without a race."""

import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from timetrial.engine.decide import End, Evaluate, Rules, Run, State, next_action
from timetrial.engine.outcome import Status

RULES = Rules(budget_ns=1_000, period_ns=100)


def test_a_trial_begins_with_a_run_to_the_first_point_of_the_grid() -> None:
    assert next_action(State(), RULES) == Run(100, None)


def test_an_evaluation_is_due_at_the_grid_and_not_before() -> None:
    assert next_action(State(submission_ns=99, step=3), RULES) == Run(1, None)
    assert next_action(State(submission_ns=100, step=3), RULES) == Evaluate()


def test_the_grid_does_not_drift_with_late_evaluations() -> None:
    late = State(submission_ns=399, step=9, evaluated_ns=399, evaluated_step=9)
    assert next_action(late, RULES) == Run(1, None)


def test_a_segment_never_reaches_past_the_budget() -> None:
    late = State(submission_ns=950, step=9, evaluated_ns=950, evaluated_step=9)
    assert next_action(late, replace(RULES, period_ns=400)) == Run(50, None)


def test_what_was_reached_at_the_end_of_the_budget_is_not_evaluated() -> None:
    assert next_action(State(submission_ns=1_000, step=9), RULES) == End(Status.BUDGET)
    assert next_action(State(submission_ns=1_000, step=9, training_complete=True), RULES) == End(
        Status.BUDGET
    )


def test_training_that_ends_by_itself_is_evaluated_once_and_ends() -> None:
    complete = State(submission_ns=50, step=5, training_complete=True)
    assert next_action(complete, RULES) == Evaluate()
    assert next_action(replace(complete, evaluated_step=5), RULES) == End(Status.COMPLETED)


def test_the_step_limit_counts_like_an_end_of_training() -> None:
    rules = replace(RULES, max_steps=5)
    assert next_action(State(submission_ns=50, step=4), rules) == Run(50, 5)
    assert next_action(State(submission_ns=50, step=5), rules) == Evaluate()


def test_target_and_divergence_end_a_trial_before_anything_else() -> None:
    spent = State(submission_ns=2_000, step=5)
    assert next_action(replace(spent, target_reached=True), RULES) == End(Status.TARGET)
    assert next_action(replace(spent, target_reached=True, diverged=True), RULES) == End(Status.DIVERGED)


@given(
    step_ns=st.integers(1, 400),
    budget=st.integers(1, 3_000),
    period=st.integers(1, 700),
    limit=st.integers(1, 60),
)
def test_every_trial_ends_within_its_limits_and_evaluates_on_the_grid(
    step_ns: int, budget: int, period: int, limit: int
) -> None:
    """A racer of constant pace: whatever the numbers, the trial ends, late by at most one step."""
    rules, state = Rules(budget_ns=budget, period_ns=period, max_steps=limit), State()
    evaluations = []
    for _ in range(10_000):
        match next_action(state, rules):
            case Run(run_ns=run_ns, last_step=last_step):
                assert run_ns > 0 and last_step == limit
                steps = min(math.ceil(run_ns / step_ns), limit - state.step)
                state = replace(
                    state, step=state.step + steps, submission_ns=state.submission_ns + steps * step_ns
                )
            case Evaluate():
                assert state.step not in evaluations and state.submission_ns < budget
                evaluations.append(state.step)
                state = replace(state, evaluated_ns=state.submission_ns, evaluated_step=state.step)
            case End(status=status):
                break
    else:
        raise AssertionError("the trial did not end")
    assert state.submission_ns < budget + step_ns and state.step <= limit
    assert status is (Status.BUDGET if state.submission_ns >= budget else Status.COMPLETED)
    crossed = {min(math.ceil(k * period / step_ns), limit) for k in range(1, budget // period + 1)}
    due = {step for step in crossed if step * step_ns < budget} - {0}
    assert due <= set(evaluations)
