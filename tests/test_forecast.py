"""How long a race is said to take: the bound adds up, and what has ended tells of what has not."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from conftest import Track
from hypothesis import given
from hypothesis import strategies as st

from timetrial.engine import forecast
from timetrial.engine.calibration import Pace
from timetrial.engine.forecast import Forecast, in_words, most_sec
from timetrial.engine.records import TrialDirectory
from timetrial.engine.trial import TrialPlan

PACE = Pace(first_step_sec=2.0, step_sec=0.1, setup_sec=3.0, evaluation_sec=0.5)


@pytest.fixture
def plans(track: Track) -> list[TrialPlan]:
    """Four trials of a budget of 60 s, judged every 10 s, that differ in their folders."""
    plan = track.plan(budget_sec=60.0, eval_period_sec=10.0)
    return [
        replace(plan, directory=TrialDirectory(path=track.folder / f"trial_{number}")) for number in range(4)
    ]


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets the forecast's clock go on."""
    now = 0.0

    def go_on(sec: float) -> None:
        nonlocal now
        now += sec

    monkeypatch.setattr(forecast, "now_ns", lambda: round(now * 1e9))
    return go_on


def test_a_trial_takes_at_most_set_up_budget_and_every_evaluation(plans: list[TrialPlan]) -> None:
    assert most_sec(plans[0], PACE) == 3.0 + 60.0 + 7 * 0.5
    assert most_sec(plans[0], None) == 60.0
    short = replace(plans[0], max_steps=100)
    assert most_sec(short, PACE) == 3.0 + (2.0 + 100 * 0.1) + 2 * 0.5
    assert Forecast([short, plans[1]], {"toy": PACE}).submission_sec == (2.0 + 100 * 0.1) + 60.0


def test_what_has_ended_tells_of_what_has_not(plans: list[TrialPlan], wait: Callable[[float], None]) -> None:
    most = most_sec(plans[0], PACE)
    race = Forecast(plans, {"toy": PACE})
    assert race.is_known and race.submission_sec == 240.0
    assert race.left_sec() == race.most_left_sec() == 4 * most
    wait(most / 2)
    race.ended(plans[0])
    assert race.num_left == 3
    assert race.most_left_sec() == pytest.approx(3 * most)
    assert race.left_sec() == pytest.approx(3 * most / 2)
    wait(10.0)
    assert race.most_left_sec() == pytest.approx(3 * most - 10.0)
    assert race.left_sec() == pytest.approx(3 * most / 2 - 10.0)
    assert race.elapsed_sec == pytest.approx(most / 2 + 10.0)
    wait(10 * most)
    assert race.left_sec() == race.most_left_sec() == 0.0


def test_the_most_grows_on_a_machine_that_is_slower_than_it_was_when_calibrated(
    plans: list[TrialPlan], wait: Callable[[float], None]
) -> None:
    most = most_sec(plans[0], PACE)
    race = Forecast(plans, {"toy": PACE})
    wait(1.5 * most)
    race.ended(plans[0])
    assert race.left_sec() == race.most_left_sec() == pytest.approx(4.5 * most)


def test_without_a_pace_only_budgets_count(plans: list[TrialPlan], wait: Callable[[float], None]) -> None:
    race = Forecast(plans, {})
    assert not race.is_known
    assert race.most_left_sec() == race.submission_sec == 240.0


@given(st.floats(0.01, 1e6))
def test_words_never_say_less_than_it_is(sec: float) -> None:
    words = in_words(sec).split()
    units = {"s": 1, "min": 60, "h": 3_600}
    said = sum(int(count) * units[unit] for count, unit in zip(words[::2], words[1::2], strict=True))
    assert sec <= said <= sec + (1 if sec <= 120 else 60) + math.ulp(sec)
