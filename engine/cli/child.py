"""What a racer or judge process runs: `python -m timetrial.engine.cli.child ROLE DESCRIPTOR`."""

import socket
import sys

from timetrial.engine.cli.places import kernels_folder
from timetrial.engine.family import die_with_the_parent_and_adopt_orphans
from timetrial.engine.messages import Channel, ChannelClosed
from timetrial.kernels.choice import keep_in
from timetrial.kernels.used import uses
from timetrial.workloads import WORKLOADS


def main(role: str, descriptor: int) -> None:
    """Answer messages until the referee closes the channel."""
    die_with_the_parent_and_adopt_orphans()
    keep_in(kernels_folder())
    channel = Channel(socket.socket(fileno=descriptor))
    if role == "racer":
        from timetrial.engine.racer import Racer

        handle = Racer(WORKLOADS, uses).handle
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


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
