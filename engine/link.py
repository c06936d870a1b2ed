"""The referee's grip on a racer or a judge: send, receive, stop, go on, kill.

`ProcessLink` is a child process in a session of its own, at the end of a channel. `LocalLink` is the same role
inside this process, for a debugger.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from timetrial.engine.errors import Error
from timetrial.engine.family import signal_descendants
from timetrial.engine.messages import Channel, ChannelClosed, Failed, Message, PrepareRacer

Role = Literal["racer", "judge"]


class Gone(Error):
    """The process died, or what it sent was no message; the text says how."""


class Link(Protocol):
    """What the referee holds of a role."""

    def send(self, message: Message) -> None:
        """Gone if the process has died."""

    def receive(self, timeout_sec: float) -> Message | None:
        """The next message, or None if none comes in time. Gone if the process has died."""

    def freeze(self) -> None:
        """Return when every thread of the process has stopped."""

    def thaw(self) -> None:
        """Let it go on."""

    def kill(self) -> None:
        """End it and its children, whatever they do."""


class ProcessLink:
    """A role in a child process. Its output goes to the end of the file `log`."""

    def __init__(self, role: Role, log: Path) -> None:
        ours, theirs = socket.socketpair()
        self._log = log
        self._oom_kills = _oom_kills()
        with theirs, open(log, "ab") as output:
            # -P: the working directory, wherever the user is, must not lend modules to the child.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "timetrial.engine.cli.child", role, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._channel = Channel(ours)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: Message) -> None:
        try:
            self._channel.send(message)
        except ChannelClosed:
            raise Gone(self._how_it_ended()) from None

    def receive(self, timeout_sec: float) -> Message | None:
        try:
            return self._channel.receive(timeout_sec)
        except ChannelClosed:
            raise Gone(self._how_it_ended()) from None
        except msgspec.MsgspecError as error:
            raise Gone(f"it sent something that is no message ({error})") from error

    def freeze(self) -> None:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.killpg(self.pid, signal.SIGSTOP)
            if hasattr(
                os, "waitid"
            ):  # macOS has it from Python 3.13 on; until then stopping is only asked for
                # WNOWAIT leaves the status of a process that has ended for Popen to collect.
                os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        signal_descendants(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        signal_descendants(self.pid, signal.SIGCONT)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        # Descendants first: once the racer is gone, nothing leads to those that left its session.
        self.freeze()
        signal_descendants(self.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self._channel.close()

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return "it closed its channel without ending"
        if code == 0:
            return "it ended without a word"
        if code > 0:
            return f"it ended with exit code {code}{self._last_words()}"
        name = signal.Signals(-code).name
        starved = ", and the kernel had run out of memory" if _oom_kills() > self._oom_kills else ""
        return f"it was killed by {name}{starved}"

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return f" ({lines[-1].strip()})" if lines else ""


class LocalLink:
    """A role in this process: nothing is stopped or killed, and time is kept as well as that allows."""

    def __init__(self, handle: Callable[[Message], Message]) -> None:
        self._handle = handle
        self._sent: list[Message] = []

    def send(self, message: Message) -> None:
        self._sent.append(message)

    def receive(self, timeout_sec: float) -> Message | None:
        del timeout_sec
        return self._handle(self._sent.pop(0))

    def freeze(self) -> None:
        """There is nothing to stop."""

    def thaw(self) -> None:
        """Nothing was stopped."""

    def kill(self) -> None:
        """There is nothing to end."""


class RankedLink:
    """Several ranks as one: a message goes to all, and the answer is the first rank's once all have answered."""

    def __init__(self, ranks: Sequence[Link]) -> None:
        self._ranks = list(ranks)
        self._answers: dict[int, Message] = {}

    def send(self, message: Message) -> None:
        self._answers = {}
        port = free_port() if isinstance(message, PrepareRacer) else 0
        for rank, link in enumerate(self._ranks):
            if isinstance(message, PrepareRacer):
                message = msgspec.structs.replace(message, rank=rank, rendezvous_port=port)
            link.send(message)

    def receive(self, timeout_sec: float) -> Message | None:
        share = timeout_sec / len(self._ranks)
        for rank, link in enumerate(self._ranks):
            if rank not in self._answers:
                answer = link.receive(share)
                if answer is not None:
                    self._answers[rank] = answer
        failed = next((answer for answer in self._answers.values() if isinstance(answer, Failed)), None)
        if failed is not None:
            return failed
        return self._answers[0] if len(self._answers) == len(self._ranks) else None

    def freeze(self) -> None:
        for link in self._ranks:
            link.freeze()

    def thaw(self) -> None:
        for link in self._ranks:
            link.thaw()

    def kill(self) -> None:
        for link in self._ranks:
            link.kill()


def free_port() -> int:
    """A TCP port of the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _oom_kills() -> int:
    """How often the kernel has killed for want of memory since it started; 0 where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
