"""Parallel text as the workshops on machine translation distribute it: a file a language, a sentence a line.

A text NAME is the file NAME or NAME.gz in a folder or below it, or a member of that name in a tar archive there.
Lines end in a line feed and in nothing else: other separators that Unicode knows are part of sentences. Files of
tests are SGML, `<seg id="N">SENTENCE</seg>` on a line of its own inside `<doc docid="NAME">`; a sentence is kept as
written, entities such as `&amp;` too, as TensorFlow Datasets reads them.
"""

import gzip
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from timetrial.engine.errors import DataError

ARCHIVES = (".tgz", ".tar.gz", ".tar")
DOCUMENT = re.compile(r'<doc\b[^>]*\bdocid="([^"]*)"', re.IGNORECASE)
SEGMENT = re.compile(r'\s*<seg id="(\d+)">(.*)</seg>\s*')


@dataclass(frozen=True, kw_only=True)
class Text:
    """Where a text lies."""

    file: Path
    member: str | None = None  # of a tar archive

    def __str__(self) -> str:
        return str(self.file) if self.member is None else f"{self.member} in {self.file}"

    @property
    def is_sgml(self) -> bool:
        """Whether its sentences are segments of documents."""
        return (self.member or self.file.name).removesuffix(".gz").endswith(".sgm")

    def lines(self) -> Iterator[str]:
        """Every line without its end. DataError, with file and line, where it cannot be read or is no UTF-8."""
        number = 0
        try:
            with self._opened() as file:
                for line in file:
                    number += 1
                    yield line.removesuffix(b"\n").decode()
        except UnicodeDecodeError as error:
            raise DataError(f"line {number} of {self} is no UTF-8: {error}") from error
        except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
            raise DataError(f"{self} cannot be read beyond line {number}: {error}") from error

    @contextmanager
    def _opened(self) -> Iterator[Iterable[bytes]]:
        if self.member is None:
            with gzip.open(self.file) if self.file.suffix == ".gz" else self.file.open("rb") as file:
                yield file
            return
        with tarfile.open(self.file, "r:*") as tar:
            for member in tar:  # up to this one alone, not to the end of the archive
                content = tar.extractfile(member) if member.name == self.member else None
                if content is not None:
                    yield content
                    return
        raise DataError(f"{self} is not there any more")


def find_texts(source: Path, names: Iterable[str]) -> dict[str, Text]:
    """Where each of the texts lies; archives are read only for those that are not files.

    DataError, with the names of all that are missing.
    """
    if not source.is_dir():
        raise DataError(f"{source} is no folder")
    found: dict[str, Text] = {}
    files = sorted(path for path in source.rglob("*") if path.is_file())
    wanted = set(names)
    for path in files:
        name = path.name.removesuffix(".gz")
        if name in wanted:
            found.setdefault(name, Text(file=path))
    for path in files:
        if wanted - found.keys() and path.name.endswith(ARCHIVES):
            for member in _members(path):
                found.setdefault(member.rpartition("/")[2], Text(file=path, member=member))
    if missing := sorted(wanted - found.keys()):
        raise DataError(f"{source} and the archives in it lack {', '.join(missing)}")
    return {name: found[name] for name in wanted}


def _members(archive: Path) -> list[str]:
    try:
        with tarfile.open(archive, "r:*") as tar:
            return [member.name for member in tar if member.isfile()]
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise DataError(f"{archive} is no whole tar archive: {error}") from error


def line_pairs(source: Text, target: Text) -> Iterator[tuple[str, str]]:
    """The lines of both texts side by side. DataError where one has more than the other."""
    targets = target.lines()
    number = 0
    for number, line in enumerate(source.lines(), start=1):
        other = next(targets, None)
        if other is None:
            raise DataError(f"{target} ends after {number - 1:,} lines, {source} does not")
        yield line, other
    if next(targets, None) is not None:
        raise DataError(f"{source} ends after {number:,} lines, {target} does not")


def segment_pairs(source: Text, target: Text) -> Iterator[tuple[str, str]]:
    """The sentences of two SGML files side by side. DataError where they are not of the same segments."""
    targets = _segments(target)
    for line, place, sentence in _segments(source):
        other_line, other_place, other = next(targets, (None, None, ""))
        if other_place != place:
            raise DataError(
                f"line {line} of {source} is segment {place[1]} of document {place[0]}, "
                + (
                    f"but {target} has no more segments"
                    if other_place is None
                    else f"line {other_line} of {target} segment {other_place[1]} of {other_place[0]}"
                )
            )
        yield sentence, other
    for line, place, _ in targets:
        raise DataError(
            f"line {line} of {target} is segment {place[1]} of document {place[0]}, {source} has none"
        )


def _segments(text: Text) -> Iterator[tuple[int, tuple[str, int], str]]:
    """Line, (document, number) and sentence of every segment."""
    document: str | None = None
    for line_number, line in enumerate(text.lines(), start=1):
        if match := DOCUMENT.search(line):
            document = match[1]
        if "<seg" in line:
            segment = SEGMENT.fullmatch(line)
            if segment is None or document is None:
                raise DataError(
                    f'line {line_number} of {text} should be <seg id="N">SENTENCE</seg> inside a document: {line!r}'
                )
            yield line_number, (document, int(segment[1])), segment[2]
