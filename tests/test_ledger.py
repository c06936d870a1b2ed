"""The ledger's accounts add up to the elapsed time, exactly, whatever happens in whatever order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timetrial.engine.clock import clocks_agree
from timetrial.engine.ledger import Account, Ledger, totals_of

spans = st.lists(st.tuples(st.sampled_from(list(Account)), st.integers(0, 10**13)), max_size=60)


@given(start=st.integers(0, 2**62), events=spans)
def test_accounts_sum_to_the_elapsed_time(start: int, events: list[tuple[Account, int]]) -> None:
    ledger = Ledger(start)
    now = start
    for account, duration in events:
        now += duration
        assert ledger.enter(account, now) == now - start
    assert sum(ledger.totals.values()) == ledger.elapsed == now - start


@given(events=spans)
def test_each_account_gets_exactly_its_own_spans(events: list[tuple[Account, int]]) -> None:
    ledger, now, expected, open_account = Ledger(0), 0, dict.fromkeys(Account, 0), Account.SETUP
    for account, duration in events:
        now += duration
        expected[open_account] += duration
        ledger.enter(account, now)
        open_account = account
    assert ledger.totals == expected


@given(events=spans, cut=st.integers(0, 60), rest=st.integers(0, 10**12))
def test_the_file_gives_the_totals_back_wherever_a_sitting_ended(
    events: list[tuple[Account, int]], cut: int, rest: int
) -> None:
    first, now = Ledger(0), 0
    lines = [(0, Account.SETUP)]
    for account, duration in events[:cut]:
        now += duration
        lines.append((first.enter(account, now), account))
    end = now + rest
    carried = totals_of(lines, end)
    assert sum(carried.values()) == end
    second, start = Ledger(999, carried), 999
    for account, duration in events[cut:]:
        start += duration
        second.enter(account, start)
    assert second.elapsed == end + start - 999


def test_a_clock_that_goes_back_is_refused() -> None:
    ledger = Ledger(100)
    ledger.enter(Account.SUBMISSION, 150)
    with pytest.raises(ValueError, match="went back by 1 ns"):
        ledger.enter(Account.LOGGING, 149)


@pytest.mark.parametrize(
    ("first", "second", "agree"),
    [
        (0, 1_000_000, True),
        (0, 1_002_000, False),
        (10_000_000_000, 10_010_900_000, True),
        (10_000_000_000, 10_011_100_000, False),
    ],
)
def test_two_clocks_agree_within_a_thousandth_and_a_millisecond(first: int, second: int, agree: bool) -> None:
    assert clocks_agree(first, second) is agree
    assert clocks_agree(second, first) is agree
