"""The step count that a racer leaves where the referee can see it, without a word between them.

One shared page: the racer stores an integer after each step (0.2 microseconds), the referee reads it when it
likes, to show progress and to notice a step that does not end.
"""

import mmap
import struct
from pathlib import Path

_COUNT = struct.Struct("=q")


class Progress:
    """The page behind `path`; created by the referee, opened by the racer."""

    def __init__(self, path: Path, *, create: bool) -> None:
        if create:
            path.write_bytes(bytes(_COUNT.size))
        with open(path, "r+b") as file:
            self._page = mmap.mmap(file.fileno(), _COUNT.size)

    def write(self, step: int) -> None:
        _COUNT.pack_into(self._page, 0, step)

    def read(self) -> int:
        step: int = _COUNT.unpack_from(self._page)[0]
        return step

    def close(self) -> None:
        self._page.close()
