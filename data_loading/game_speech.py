"""The spoken lines of the game Flight of the Amazon Queen: where they lie in its data file, and what is said in them.

The file begins with `QTBL` and the version `CEM10`; byte 12 is 1 where recordings are mp3; bytes 13 and 14 are the
number of entries, which follow: a name of 12 bytes, a bundle's number (1 byte), an offset and a size in the file
(4 bytes each). All integers are big-endian. Of the entries,

    KEY.DOG         a dialogue. After 20 bytes: five int16 (levels, unused, the dialogue's key, the number of the hero's
                    lines, that of the others'), at byte 22 the place of the others' lines. The hero's begin at byte
                    32 + 96 x levels. A line is: 2 unused bytes, its number (int16), its text
    NAME.CUT        a scene. After 20 bytes: at byte 2 the number of lines (int16, negative where the scene cannot be
                    skipped), at byte 8 the place of the texts
    QUEEN2.JAS      descriptions, one a line, which the hero speaks
    VOICE.SB        a recording, mp3

A text is its length (1 byte) and its letters, filled up to a multiple of four bytes (dialogues) or two (scenes). The
asterisk and two characters after it are a stage direction; they cut a text into segments, from 1 on, which are
recorded each. VOICE is, with hexadecimal numbers n of segments,

    KKLLLLJn, KKLLLLPn      of a dialogue with key KK: the hero's line LLLL (four hexadecimal digits), or another's
    SSSSSLLn                of scene SSSSS, filled up with `_`: line LL, of which the empty one before the first is 0
    JOELLLLn                of the description in line LLLL, of which the first is 41

What no text belongs to, noises and stock replies, is left out.

Source: the layout of the file as found in it; the game's rights, its licence and readme are in the package.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from timetrial.engine.errors import DataError

MAGIC, COMPRESSION, MP3 = b"QTBLCEM10", 12, 1
ENTRIES, ENTRY = 15, struct.Struct(">12sBII")
RECORDING, DIALOGUE, SCENE, DESCRIPTIONS = ".SB", ".DOG", ".CUT", "QUEEN2.JAS"
HEADER_BYTES = 20  # of dialogues and scenes
LEVELS_AT, LEVEL_BYTES = 32, 96
FIRST_DESCRIPTION = 41
DIRECTION = re.compile(r"\*..", re.DOTALL)
ENCODING = "latin-1"


@dataclass(frozen=True, kw_only=True)
class SpokenLine:
    """A recording and what is said in it."""

    voice: str  # the recording's name
    where: str  # what it belongs to: a dialogue, a scene, or `descriptions`
    text: str
    mp3: bytes


def spoken_lines(content: bytes) -> list[SpokenLine]:
    """All recordings whose text is known, by name. DataError where the content is not the game's data file."""
    try:
        entries = _entries(content)
        texts: dict[str, tuple[str, str]] = {}
        for name, entry in entries.items():
            for voice, where, text in _texts(name, entry):
                texts.setdefault(voice, (where, text))
    except (struct.error, IndexError) as error:
        raise DataError(f"the game's data file is damaged: {error}") from error
    lines = []
    for name in sorted(entries):
        voice = name.removesuffix(RECORDING)
        if name.endswith(RECORDING) and voice in texts:
            where, text = texts[voice]
            lines.append(SpokenLine(voice=voice, where=where, text=text, mp3=entries[name]))
    return lines


def _entries(content: bytes) -> dict[str, bytes]:
    if not content.startswith(MAGIC) or content[COMPRESSION] != MP3:
        raise DataError("this is not the data file of Flight of the Amazon Queen with recordings in mp3")
    (number,) = struct.unpack_from(">H", content, ENTRIES - 2)
    entries = {}
    for i in range(number):
        name, _, offset, size = ENTRY.unpack_from(content, ENTRIES + i * ENTRY.size)
        if offset + size > len(content):
            raise DataError(f"the game's data file is cut off: it has {len(content)} bytes")
        entries[name.rstrip(b"\0 ").decode(ENCODING)] = content[offset : offset + size]
    return entries


def _texts(name: str, entry: bytes) -> Iterator[tuple[str, str, str]]:
    """Voice, place and text of every segment of an entry that has texts."""
    if name.endswith(DIALOGUE):
        lines = _of_dialogue(entry[HEADER_BYTES:])
    elif name.endswith(SCENE):
        lines = _of_scene(name.removesuffix(SCENE), entry[HEADER_BYTES:])
    elif name == DESCRIPTIONS:
        texts = entry.decode(ENCODING).split("\r\n")
        lines = (
            (f"JOE{number:04}", "descriptions", text) for number, text in enumerate(texts, FIRST_DESCRIPTION)
        )
    else:
        return
    for prefix, where, line in lines:
        for number, segment in enumerate(DIRECTION.split(line), 1):
            if segment.strip():
                yield f"{prefix}{number:X}", where, segment.strip()


def _of_dialogue(data: bytes) -> Iterator[tuple[str, str, str]]:
    levels, _, key, num_hero, num_others = struct.unpack_from(">5h", data)
    (others,) = struct.unpack_from(">H", data, 22)
    for speaker, place, number in (
        ("J", LEVELS_AT + LEVEL_BYTES * abs(levels), num_hero),
        ("P", others, num_others),
    ):
        for _ in range(number):
            (line,) = struct.unpack_from(">2xH", data, place)
            text, place = _text(data, place + 4, 4)
            yield f"{key:02}{line:04X}{speaker}", f"dialogue {key:02}", text


def _of_scene(name: str, data: bytes) -> Iterator[tuple[str, str, str]]:
    (number,) = struct.unpack_from(">h", data, 2)
    (place,) = struct.unpack_from(">H", data, 8)
    for line in range(abs(number) + 1):
        text, place = _text(data, place, 2)
        yield f"{name:_<5}{line:02}", f"scene {name}", text


def _text(data: bytes, place: int, alignment: int) -> tuple[str, int]:
    """A text and the place after it; an empty one is not filled up."""
    end = place + 1 + data[place]
    text = data[place + 1 : end].decode(ENCODING)
    return text, end if end == place + 1 else end + -end % alignment
