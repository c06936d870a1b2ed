"""The owner's files of the Criteo click logs: which of them make up a day, and their rows in order.

A day N lies in a folder as `day_N.gz`, as the plain `day_N`, or cut into `day_N_00`, `day_N_01`, ... (plain too).
"""

import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from itertools import chain
from pathlib import Path

import numpy as np

from timetrial.engine.errors import DataError

BLOCK_BYTES = 4 << 20  # what is parsed at once: columns of it fit into the processor's cache
LONGEST_ROW = 4096  # bytes; rows have about 250


@dataclass(frozen=True, kw_only=True)
class Block:
    """Whole rows of one file, each with its newline."""

    file: Path
    first_row: int  # its number in the file, from 1
    text: bytes
    num_rows: int

    def cut(self, num_rows: int) -> tuple["Block", "Block"]:
        """The first `num_rows` rows (at least one), and the others."""
        newlines = np.flatnonzero(np.frombuffer(self.text, np.uint8) == ord("\n"))
        end = int(newlines[num_rows - 1]) + 1
        return (
            Block(file=self.file, first_row=self.first_row, text=self.text[:end], num_rows=num_rows),
            Block(
                file=self.file,
                first_row=self.first_row + num_rows,
                text=self.text[end:],
                num_rows=self.num_rows - num_rows,
            ),
        )


def files_of_day(source: Path, day: int) -> tuple[Path, ...]:
    """The files of a day, in order. DataError where there are none, or one of a cut day is missing."""
    for whole in (source / f"day_{day}", source / f"day_{day}.gz"):
        if whole.is_file():
            return (whole,)
    pattern = re.compile(rf"day_{day}_(\d\d)")
    names = (path.name for path in source.iterdir()) if source.is_dir() else ()
    numbers = sorted(int(match[1]) for name in names if (match := pattern.fullmatch(name)))
    if not numbers:
        raise DataError(f"{source} has no day_{day}.gz, day_{day} or day_{day}_00")
    if missing := sorted(set(range(numbers[-1])) - set(numbers)):
        raise DataError(f"{source} has day_{day}_{numbers[-1]:02} and lacks day_{day}_{missing[0]:02}")
    return tuple(source / f"day_{day}_{number:02}" for number in numbers)


class DayReader:
    """The rows of a day's files, one after another. DataError where a file is damaged."""

    def __init__(self, files: tuple[Path, ...]) -> None:
        self._blocks = chain.from_iterable(map(_blocks, files))
        self._left: Block | None = None

    def take(self, most: int) -> Block | None:
        """The next rows, at least one and at most `most`; None at the end."""
        block, self._left = self._left or next(self._blocks, None), None
        if block is not None and block.num_rows > most:
            block, self._left = block.cut(most)
        return block


def _blocks(file: Path) -> Iterator[Block]:
    """A file's rows in blocks of about `BLOCK_BYTES`; a last row without newline gets one."""
    row = 1
    rest = b""
    for chunk in _chunks(file):
        end = chunk.rfind(b"\n") + 1
        if end:
            text, rest = rest + chunk[:end], b""
            block = Block(file=file, first_row=row, text=text, num_rows=text.count(b"\n"))
            row += block.num_rows
            yield block
        rest += chunk[end:]
        if len(rest) > LONGEST_ROW:
            raise DataError(f"row {row:,} of {file} has no end in {LONGEST_ROW:,} bytes")
    if rest:
        yield Block(file=file, first_row=row, text=rest + b"\n", num_rows=1)


def _chunks(file: Path) -> Iterator[bytes]:
    """The file's bytes, unpacked."""
    read = 0
    with _opened(file) as stream:
        while True:
            try:
                chunk = stream.read(BLOCK_BYTES)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise DataError(
                    f"{file} is damaged behind its first {read:,} unpacked bytes: {error}"
                ) from error
            if not chunk:
                return
            read += len(chunk)
            yield chunk


def _opened(file: Path) -> gzip.GzipFile | BufferedReader:
    return gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb")
