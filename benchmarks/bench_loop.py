"""What the loop costs beside the submission: its steps, the clock, the ledger, the keys, the channel."""

import socket
import statistics
import subprocess
import sys
from collections.abc import Iterator

import pytest
from conftest import MakeRacer
from pytest_benchmark.fixture import BenchmarkFixture

from timetrial.engine.clock import now_ns
from timetrial.engine.facts import Framework
from timetrial.engine.ledger import Account, Ledger
from timetrial.engine.messages import Channel, Go, Stopped
from timetrial.engine.seeds import StepKeys

STEPS = 1_000
FRAMEWORKS: tuple[Framework, ...] = ("torch", "jax")
ECHO = """
import socket, sys
from timetrial.engine.messages import Channel, ChannelClosed
channel = Channel(socket.socket(fileno=int(sys.argv[1])))
try:
    while True:
        channel.send(channel.receive())
except ChannelClosed:
    pass
"""


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_thousand_steps_of_nothing(
    benchmark: BenchmarkFixture, make_racer: MakeRacer, framework: Framework
) -> None:
    """One segment: 1,000 steps, then the drain, which lasts a millisecond where nothing is in flight."""
    racer = make_racer("toy", framework)
    reached = 0
    per_step_us: list[float] = []

    def segment() -> None:
        nonlocal reached
        reached += STEPS
        go = Go(run_ns=10**15, last_step=reached, new_results=[], train_state={})
        stopped = racer.handle(go)
        assert isinstance(stopped, Stopped), stopped
        assert stopped.global_step == reached
        per_step_us.append((stopped.racer_ns - stopped.breakdown["drain"]) / STEPS / 1e3)

    benchmark.pedantic(segment, rounds=30, warmup_rounds=2)
    benchmark.extra_info["microseconds_per_step_without_drain"] = statistics.median(per_step_us[2:])


def test_clock_reading(benchmark: BenchmarkFixture) -> None:
    benchmark(now_ns)


def test_ledger_entry(benchmark: BenchmarkFixture) -> None:
    """Reading the clock and changing the account, in memory."""
    ledger = Ledger(now_ns())
    benchmark(lambda: ledger.enter(Account.SUBMISSION, now_ns()))


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_thousand_step_keys(benchmark: BenchmarkFixture, framework: Framework) -> None:
    """Keys of 1,000 consecutive steps; the average includes making their blocks."""
    keys = StepKeys(0, framework)
    first = 0

    def thousand() -> None:
        nonlocal first
        for step in range(first, first + STEPS):
            keys(step)
        first += STEPS

    benchmark(thousand)


@pytest.fixture
def echo() -> Iterator[Channel]:
    """A channel to a process that sends back what it receives."""
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-c", ECHO, str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
    channel = Channel(ours)
    yield channel
    channel.close()
    process.wait(timeout=10)


def test_channel_round_trip(benchmark: BenchmarkFixture, echo: Channel) -> None:
    """A Go to another process and back: encoding, two wake-ups, decoding."""
    go = Go(run_ns=1, last_step=None, new_results=[(1, {"validation/loss": 1.0})], train_state={})

    def there_and_back() -> None:
        echo.send(go)
        assert echo.receive(10.0) is not None

    there_and_back()  # the other process has started
    benchmark(there_and_back)
