"""LibriSpeech's utterances where its owner's files hold them.

    SPLIT.tar.gz            with LibriSpeech/SPLIT/SPEAKER/CHAPTER/SPEAKER-CHAPTER-UTTERANCE.flac, and beside these
                            SPEAKER-CHAPTER.trans.txt, which has a line `SPEAKER-CHAPTER-UTTERANCE TRANSCRIPT` each
    LibriSpeech/SPLIT/      or SPLIT/: the same, extracted

An archive can only be read from its beginning on, so utterances come in its order and not by their numbers.
Whatever is wrong with the files is a DataError that names the file or the utterance; whether they are all there,
`librispeech.py` checks.
"""

import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from timetrial.engine.errors import DataError

OWNER_FOLDER = "LibriSpeech"
FLAC, TRANSCRIPTS = ".flac", ".trans.txt"
NAME = re.compile(r"(\d+)-(\d+)-(\d+)")  # of an utterance: speaker, chapter, number
BUFFER_BYTES = 1 << 20  # of an archive, read at once


@dataclass(frozen=True, kw_only=True, slots=True)
class Utterance:
    """One recording as it is shipped."""

    name: str  # SPEAKER-CHAPTER-UTTERANCE
    where: str  # for a message
    transcript: str
    flac: bytes

    @property
    def numbers(self) -> tuple[int, ...]:
        """Speaker, chapter and number; no two utterances of the corpus share them."""
        return numbers_of(self.name)


@dataclass(frozen=True, kw_only=True)
class OwnerFiles:
    """One split: a folder, or an archive of one."""

    path: Path
    split: str

    @property
    def num_bytes(self) -> int:
        """Of all files."""
        if self.path.is_file():
            return self.path.stat().st_size
        return sum(path.stat().st_size for path in self.path.rglob("*") if path.is_file())

    def read(self, suffixes: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
        """Name (for a message) and content of the files that end so: in the archive's order, or sorted."""
        if self.path.is_dir():
            for path in sorted(path for path in self.path.glob("*/*/*") if path.name.endswith(suffixes)):
                yield str(path), path.read_bytes()
            return
        begin = f"{OWNER_FOLDER}/{self.split}/"
        with _readable(self.path), tarfile.open(self.path, "r|gz", bufsize=BUFFER_BYTES) as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                if name.startswith(begin) and name.endswith(suffixes):
                    file = archive.extractfile(member)
                    if file is not None:
                        yield f"{self.path}, {name}", file.read()


def numbers_of(name: str) -> tuple[int, ...]:
    """The numbers that an utterance's name is made of."""
    match = NAME.fullmatch(name)
    if match is None:
        raise DataError(f"{name} is no utterance of LibriSpeech: these are named SPEAKER-CHAPTER-UTTERANCE")
    return tuple(int(number) for number in match.groups())


def owner_files(source: Path, split: str) -> OwnerFiles:
    """Where a split lies. DataError where it does not."""
    archive = source / f"{split}.tar.gz"
    for path in (source / OWNER_FOLDER / split, source / split):
        if path.is_dir():
            return OwnerFiles(path=path, split=split)
    if archive.is_file():
        return OwnerFiles(path=archive, split=split)
    raise DataError(f"{source} holds neither {archive.name} nor {OWNER_FOLDER}/{split}/")


def transcripts(files: OwnerFiles) -> dict[str, str]:
    """Every transcript by the utterance's name, sorted by its numbers."""
    found: dict[str, str] = {}
    for where, content in files.read((TRANSCRIPTS,)):
        found |= parse_transcripts(content, where)
    return {name: found[name] for name in sorted(found, key=numbers_of)}


def utterances(files: OwnerFiles) -> Iterator[Utterance]:
    """Every utterance, a chapter's as soon as its transcripts have come.

    DataError where a recording has no transcript or a transcript no recording.
    """
    unread: dict[str, str] = {}  # transcripts whose recordings have not come
    waiting: dict[str, list[tuple[str, str, bytes]]] = {}  # of chapters whose transcripts have not come
    chapters: set[str] = set()
    for where, content in files.read((FLAC, TRANSCRIPTS)):
        file_name = where.rpartition("/")[2]
        if file_name.endswith(TRANSCRIPTS):
            chapter = file_name.removesuffix(TRANSCRIPTS)
            chapters.add(chapter)
            unread |= parse_transcripts(content, where)
            ready = waiting.pop(chapter, [])
        else:
            name = file_name.removesuffix(FLAC)
            chapter = name.rpartition("-")[0]
            ready = [(name, where, content)]
            if chapter not in chapters:
                waiting.setdefault(chapter, []).extend(ready)
                continue
        for name, place, flac in ready:
            if name not in unread:
                raise DataError(f"{place} has no line in {chapter}{TRANSCRIPTS}")
            yield Utterance(name=name, where=place, transcript=unread.pop(name), flac=flac)
    for chapter in waiting:
        raise DataError(
            f"{files.path} lacks {chapter}{TRANSCRIPTS}, the transcripts of recordings that are there"
        )
    for name in unread:
        raise DataError(f"{files.path} lacks {name}{FLAC}, of which there is a transcript")


def parse_transcripts(content: bytes, where: str) -> dict[str, str]:
    """Transcripts by the utterance's name, in the file's order."""
    found = {}
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is no text in UTF-8") from error
    for number, line in enumerate(lines, 1):
        name, _, transcript = line.partition(" ")
        if not NAME.fullmatch(name) or not transcript.strip():
            raise DataError(
                f"{where}, line {number}: {line[:40]!r} is not the name of an utterance and its transcript"
            )
        found[name] = transcript
    return found


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path} cannot be read to its end: {error}; fetch it again") from error
