"""Files inside Debian packages: an `ar` archive, whose member `data.tar.*` holds what would be installed."""

import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from timetrial.engine.errors import DataError

MAGIC = b"!<arch>\n"
HEADER_BYTES, NAME_BYTES, SIZE_FIELD = 60, 16, slice(48, 58)  # of a member, after deb(5) and ar(5)
HEADER_END = b"`\n"


def files(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Name, without a leading `./`, and content of every regular file whose name is `wanted`.

    DataError where the package is damaged or compressed in a way that Python's tarfile cannot read.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(_data(path)), mode="r:*") as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                file = tar.extractfile(member) if member.isreg() and wanted(name) else None
                if file is not None:
                    yield name, file.read()
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError) as error:
        raise DataError(f"the data of {path} cannot be read: {error}; delete it to fetch it again") from error


def _data(path: Path) -> bytes:
    """The member `data.tar.*`. DataError where there is none."""
    content = path.read_bytes()
    if not content.startswith(MAGIC):
        raise DataError(f"{path} is no Debian package: it does not begin as an ar archive")
    place = len(MAGIC)
    while place < len(content):
        header = content[place : place + HEADER_BYTES]
        digits = header[SIZE_FIELD].strip()
        if not header.endswith(HEADER_END) or not digits.isdigit():
            raise DataError(f"{path} is damaged: there is no ar member at byte {place}")
        begin = place + HEADER_BYTES
        if begin + int(digits) > len(content):
            raise DataError(f"{path} is cut short: an ar member ends at byte {begin + int(digits)}")
        if header[:NAME_BYTES].startswith(b"data.tar"):
            return content[begin : begin + int(digits)]
        place = begin + int(digits) + int(digits) % 2  # members begin at even bytes
    raise DataError(f"{path} has no member data.tar")
