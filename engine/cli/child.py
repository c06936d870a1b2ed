"""What a racer or judge process runs: `python -m timetrial.engine.cli.child ROLE DESCRIPTOR`."""

import ctypes
import signal
import socket
import sys

from timetrial.engine.messages import Channel, ChannelClosed
from timetrial.workloads import WORKLOADS

_PR_SET_PDEATHSIG = 1


def main(role: str, descriptor: int) -> None:
    """Answer messages until the referee closes the channel."""
    _die_with_the_referee()
    channel = Channel(socket.socket(fileno=descriptor))
    if role == "racer":
        from timetrial.engine.racer import Racer

        handle = Racer(WORKLOADS).handle
    else:
        from timetrial.engine.judge import Judge

        handle = Judge(WORKLOADS).handle
    try:
        while True:
            message = channel.receive()
            if message is not None:
                channel.send(handle(message))
    except ChannelClosed:
        return


def _die_with_the_referee() -> None:
    """Linux kills this process when its parent dies, even while it is stopped; elsewhere the channel tells."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
