"""The processes that descend from one, and whether they are at work (Linux; elsewhere there seem to be none).

A submission may start processes, and those may leave its session. They are part of the racer all the same: they
are waited for, stopped and killed with it. Orphans come back to the racer, which is their subreaper.
"""

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_GONE = (FileNotFoundError, ProcessLookupError)


def die_with_the_parent_and_adopt_orphans() -> None:
    """Bind this process to its parent, and the orphans among its descendants to itself.

    The kernel kills it when the parent dies, even while it is stopped. Nothing happens on other systems, where
    the end of the channel tells it that its parent is gone.
    """
    if sys.platform == "linux":
        prctl = ctypes.CDLL(None, use_errno=True).prctl
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        prctl(_PR_SET_CHILD_SUBREAPER, 1)


def descendants(pid: int) -> list[int]:
    """Children, their children and so on, in no particular order."""
    found = []
    waiting = [pid]
    while waiting:
        for child in _children(waiting.pop()):
            found.append(child)
            waiting.append(child)
    return found


def signal_descendants(pid: int, number: signal.Signals) -> None:
    """Send a signal to all of them, again until no new one has appeared meanwhile."""
    reached: set[int] = set()
    while new := set(descendants(pid)) - reached:
        for descendant in new:
            with contextlib.suppress(ProcessLookupError):
                os.kill(descendant, number)
        reached |= new


def others_at_work() -> bool:
    """Whether any thread of this process or its descendants, this thread apart, runs or would if it got a core."""
    this = threading.get_native_id()
    pids = [os.getpid(), *descendants(os.getpid())]
    return any(_is_at_work(pid, task) for pid in pids for task in _tasks(pid) if task != this)


def can_be_seen() -> bool:
    """Whether this system shows its processes."""
    return (_PROC / "self" / "task").exists()


def _tasks(pid: int) -> list[int]:
    try:
        return [int(task) for task in os.listdir(_PROC / str(pid) / "task")]
    except _GONE:
        return []


def _children(pid: int) -> Iterator[int]:
    for task in _tasks(pid):
        with contextlib.suppress(*_GONE):
            listed = (_PROC / str(pid) / "task" / str(task) / "children").read_text()
            yield from (int(child) for child in listed.split())


def _is_at_work(pid: int, task: int) -> bool:
    """Running, runnable, or in uninterruptible input or output."""
    try:
        stat = (_PROC / str(pid) / "task" / str(task) / "stat").read_bytes()
    except _GONE:
        return False
    return stat.rpartition(b") ")[2][:1] in (b"R", b"D")
