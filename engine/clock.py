"""The one file that reads time.

Every official reading is of the monotonic clock, in integer nanoseconds, equal in all processes of a machine.
The functions are bound when this module is imported, which in a racer is before the submission is: patching
`time` later changes nothing here, and in any case the referee's own readings are the official ones.
"""

import datetime
import time

now_ns = time.monotonic_ns
sleep = time.sleep
process_cpu_ns = time.process_time_ns

SECOND = 1_000_000_000


def seconds(ns: int) -> float:
    """Nanoseconds as seconds."""
    return ns / SECOND


def nanoseconds(sec: float) -> int:
    """Seconds as whole nanoseconds."""
    return round(sec * SECOND)


def utc_timestamp() -> str:
    """The date and time for records, never for measuring: ISO 8601, UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def clocks_agree(first_ns: int, second_ns: int) -> bool:
    """Whether two measurements of the same span agree within 0.1 % + 1 ms."""
    return abs(first_ns - second_ns) <= max(first_ns, second_ns) / 1_000 + 1_000_000
