"""The ledger: every nanosecond of a trial belongs to exactly one account.

One clock reading closes an account and opens the next, so the accounts add up to the elapsed time exactly,
as integers, whatever the order of events. `ledger.jsonl` (see `records.py`) holds the readings; what is here
is the arithmetic.
"""

import enum
from collections.abc import Iterable, Mapping


class Account(enum.StrEnum):
    """What time is spent on. Only `SUBMISSION` is scored."""

    SETUP = "setup"
    SUBMISSION = "submission"
    SNAPSHOT = "snapshot"
    EVALUATION = "evaluation"
    CHECKPOINT = "checkpoint"
    LOGGING = "logging"


class Ledger:
    """The accounts of one trial from `start_ns` on; `carried` are the totals of earlier sittings of it.

    The trial's own time starts at 0, or after a resumption where the earlier sitting ended.
    """

    def __init__(self, start_ns: int, carried: Mapping[Account, int] | None = None) -> None:
        self._totals = dict.fromkeys(Account, 0) | dict(carried or {})
        self._since = start_ns
        self.account = Account.SETUP

    def enter(self, account: Account, now_ns: int) -> int:
        """Close the open account at `now_ns`, open `account`, and return the trial's time in nanoseconds.

        ValueError if `now_ns` lies before the previous reading: a monotonic clock cannot do that.
        """
        if now_ns < self._since:
            raise ValueError(f"the clock went back by {self._since - now_ns} ns")
        self._totals[self.account] += now_ns - self._since
        self._since = now_ns
        self.account = account
        return self.elapsed

    @property
    def totals(self) -> dict[Account, int]:
        """Nanoseconds per account, over all closed spans."""
        return dict(self._totals)

    @property
    def elapsed(self) -> int:
        """The trial's time at the last reading: the sum of all accounts."""
        return sum(self._totals.values())

    def elapsed_at(self, now_ns: int) -> int:
        """The trial's time at a reading between two entries."""
        return self.elapsed + now_ns - self._since


def totals_of(spans: Iterable[tuple[int, Account]], end_ns: int) -> dict[Account, int]:
    """Totals from the (time, account that begins) pairs of a ledger file, the last span ending at `end_ns`."""
    totals = dict.fromkeys(Account, 0)
    begun: tuple[int, Account] | None = None
    for time_ns, account in spans:
        if begun is not None:
            totals[begun[1]] += time_ns - begun[0]
        begun = (time_ns, account)
    if begun is not None:
        totals[begun[1]] += end_ns - begun[0]
    return totals
