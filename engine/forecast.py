"""How long a race takes: at most, before it starts; and by how its first trials went, while it runs.

A trial takes at most its budget, an evaluation at every place of the grid within it, and one at the end, and the
time to set up. What a trial that reached its target took less than that tells what the others will.
"""

import math
from collections.abc import Mapping, Sequence

from timetrial.engine.calibration import Pace
from timetrial.engine.clock import now_ns, seconds
from timetrial.engine.trial import TrialPlan


class Forecast:
    """Seconds of wall time that a race's trials take, one after the other, from when this is made on.

    `paces` are those of the plans' workloads; without one, how long evaluations take is not known (`is_known`), and
    only budgets count.
    """

    def __init__(self, plans: Sequence[TrialPlan], paces: Mapping[str, Pace]) -> None:
        self.is_known = all(plan.facts.name in paces for plan in plans)
        self.submission_sec = sum(_training_sec(plan, paces.get(plan.facts.name)) for plan in plans)
        self._left = {_key(plan): most_sec(plan, paces.get(plan.facts.name)) for plan in plans}
        self._started_ns = self._since_ns = now_ns()
        self._done_sec = 0.0  # what trials that have ended were allowed

    @property
    def num_left(self) -> int:
        """Trials that have not ended."""
        return len(self._left)

    @property
    def elapsed_sec(self) -> float:
        """Since this was made."""
        return seconds(now_ns() - self._started_ns)

    def ended(self, plan: TrialPlan) -> None:
        """A trial is over; the next one begins."""
        self._done_sec += self._left.pop(_key(plan))
        self._since_ns = now_ns()

    def most_left_sec(self) -> float:
        """What the other trials, and the rest of this one, take at most; more where those before them took more."""
        return self._left_sec(max(self._share, 1.0))

    def left_sec(self) -> float:
        """The same if they take that share of it which those before them took; all of it while none has ended."""
        return self._left_sec(self._share)

    @property
    def _share(self) -> float:
        if not self._done_sec:
            return 1.0
        return seconds(self._since_ns - self._started_ns) / self._done_sec

    def _left_sec(self, share: float) -> float:
        return max(share * sum(self._left.values()) - seconds(now_ns() - self._since_ns), 0.0)


def most_sec(plan: TrialPlan, pace: Pace | None) -> float:
    """What one trial takes at most; its budget alone where no pace is known."""
    training = _training_sec(plan, pace)
    if pace is None:
        return training
    return pace.setup_sec + training + (math.floor(training / plan.eval_period_sec) + 1) * pace.evaluation_sec


def _training_sec(plan: TrialPlan, pace: Pace | None) -> float:
    """The budget, or less where the trial ends after so many steps and their pace is known."""
    if pace is None or plan.max_steps is None:
        return plan.budget_sec
    return min(plan.budget_sec, pace.budget_sec(plan.max_steps))


def in_words(sec: float) -> str:
    """Seconds below two minutes, else minutes, else hours and minutes; rounded up."""
    if sec <= 120:
        return f"{math.ceil(sec)} s"
    minutes = math.ceil(sec / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _key(plan: TrialPlan) -> str:
    return str(plan.directory.path)
