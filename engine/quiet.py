"""Waiting until a process has no work left in flight.

Device queues are drained by the framework. What remains are threads of the process: a submission's own, or a
framework's pools working on results that nobody holds any more. A thread that sleeps or waits is at rest;
one that runs, or would if it got a core, is not.
"""

import os
import threading
from pathlib import Path

from timetrial.engine.clock import process_cpu_ns, sleep

_TASKS = Path("/proc/self/task")
_PAUSE_SEC = 0.000_5
_AT_REST = 2  # consecutive looks


def wait_until_quiet() -> None:
    """Return once no other thread of this process has been at work for two looks half a millisecond apart."""
    busy = _threads_at_work if _TASKS.exists() else _processor_used
    rested = 0
    while rested < _AT_REST:
        sleep(_PAUSE_SEC)
        rested = 0 if busy() else rested + 1


def _threads_at_work() -> bool:
    """Whether any thread but this one is running, runnable or in uninterruptible input or output (Linux)."""
    this = str(threading.get_native_id())
    for task in os.listdir(_TASKS):
        if task != this:
            try:
                stat = (_TASKS / task / "stat").read_bytes()
            except (FileNotFoundError, ProcessLookupError):  # it ended between the two calls
                continue
            if stat.rpartition(b") ")[2][:1] in (b"R", b"D"):
                return True
    return False


def _processor_used() -> bool:
    """Whether the process used more of a core than this thread's own looking does (other systems)."""
    before = process_cpu_ns()
    sleep(4 * _PAUSE_SEC)
    return process_cpu_ns() - before > 1_000_000
