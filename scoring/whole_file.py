"""Reads one small file at once: three system calls, of which a field of thousands of trials makes thousands."""

import os

from timetrial.scoring.problems import Kind, Problem

_BLOCK = 1 << 16


def read_whole(path: str, problems: list[Problem], consequence: str) -> bytes | None:
    """The file's content; None where there is no such file, or, with a problem, none that can be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    except OSError as error:
        problems.append(_unreadable(error, path, consequence))
        return None
    try:
        blocks = [os.read(descriptor, _BLOCK)]
        while len(blocks[-1]) == _BLOCK:  # of a plain file, only the last read is short
            blocks.append(os.read(descriptor, _BLOCK))
    except OSError as error:
        problems.append(_unreadable(error, path, consequence))
        return None
    finally:
        os.close(descriptor)
    return blocks[0] if len(blocks) == 1 else b"".join(blocks)


def _unreadable(error: OSError, path: str, consequence: str) -> Problem:
    return Problem(Kind.UNREADABLE, path, f"cannot be read: {error.strerror}", consequence)
