"""Waiting until a process has no work left in flight.

Device queues are drained by the framework. What remains are threads: a submission's own, a framework's pools
working on results that nobody holds any more, and the threads of processes that the submission started. A thread
that sleeps or waits is at rest; one that runs, or would if it got a core, is not.
"""

from timetrial.engine.clock import process_cpu_ns, sleep
from timetrial.engine.family import can_be_seen, others_at_work

_PAUSE_SEC = 0.000_5
_AT_REST = 2  # consecutive looks


def wait_until_quiet() -> None:
    """Return once nothing else of this process has been at work for two looks half a millisecond apart."""
    busy = others_at_work if can_be_seen() else _processor_used
    rested = 0
    while rested < _AT_REST:
        sleep(_PAUSE_SEC)
        rested = 0 if busy() else rested + 1


def _processor_used() -> bool:
    """Whether the process used more of a core than this thread's own looking does."""
    before = process_cpu_ns()
    sleep(4 * _PAUSE_SEC)
    return process_cpu_ns() - before > 1_000_000
