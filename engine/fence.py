"""Keeping the racer away from the evaluation data.

An audit hook sees every file that the interpreter opens and cannot be removed again. It refuses the folders it
was given and remembers the attempt, so that a submission that swallows the refusal is found out all the same.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any

from timetrial.engine.errors import SubmissionError

_EVENTS = frozenset({"open", "os.listdir", "os.scandir", "os.symlink", "os.link", "os.rename"})


class Fence:
    """Refuses `folders` from now on, in this process, for good. `breach` is the first path that was refused."""

    def __init__(self, folders: Sequence[str]) -> None:
        self._folders = tuple(os.path.realpath(folder) + os.sep for folder in folders)
        self.breach: str | None = None
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _EVENTS or not self._folders:
            return
        path = arguments[0] if arguments else None
        if not isinstance(path, str | bytes | os.PathLike):
            return
        real = os.path.realpath(os.fsdecode(path))
        if (real + os.sep).startswith(self._folders):
            self.breach = self.breach or real
            raise SubmissionError(f"{real} belongs to the evaluation data, which a submission may not open")
