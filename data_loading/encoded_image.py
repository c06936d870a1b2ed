"""The size of an encoded photograph, and whether its file is whole, without decoding it.

A JPEG is walked marker by marker through all its scans to the end marker, so a file that was cut off anywhere is
noticed; a wrong value within the compressed data is not. A file whose markers are not in order is decoded by Pillow
and refused if that fails, for decoders forgive stray bytes. Of PNG (ImageNet has one, named .JPEG) every chunk's
checksum is compared. Formats: ITU-T T.81, and the PNG specification (third edition).
"""

import io
import re
import struct
import warnings
import zlib

from PIL import Image

from timetrial.engine.errors import DataError

JPEG_BEGIN = b"\xff\xd8"
PNG_BEGIN = b"\x89PNG\r\n\x1a\n"
# What ends compressed data: a marker, that is 0xff and neither a stuffed zero, a restart nor another 0xff.
SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended and progressive, with Huffman codes
OTHER_FRAMES = {*range(0xC3, 0xD0)} - {0xC4, 0xC8, 0xCC}
END, SCAN = 0xD9, 0xDA
WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}


def image_size(content: bytes, name: str) -> tuple[int, int]:
    """Height and width in pixels, before any rotation that metadata asks for.

    DataError, naming the file, where `content` is cut off, or is no JPEG of eight bits and no PNG.
    """
    if content.startswith(JPEG_BEGIN):
        try:
            size = _walked_jpeg_size(content, name)
        except (IndexError, struct.error):  # it ends within a header
            size = None
        return size or _decoded_jpeg_size(content, name)
    if content.startswith(PNG_BEGIN):
        try:
            return _png_size(content, name)
        except struct.error as error:
            raise DataError(f"{name} is a PNG that was cut off; fetch it again") from error
    raise DataError(f"{name} is neither JPEG nor PNG")


def _walked_jpeg_size(content: bytes, name: str) -> tuple[int, int] | None:
    """None where the markers are not in order."""
    size, scans, position = None, 0, len(JPEG_BEGIN)
    while content[position] == 0xFF:
        marker = content[position + 1]
        if marker == 0xFF:  # any number of these may come before a marker
            position += 1
            continue
        if marker == END:
            return size if scans else None
        position += 2
        if marker in WITHOUT_LENGTH:
            continue
        (length,) = struct.unpack_from(">H", content, position)
        if marker in FRAMES:
            size = _frame_size(content, position, name)
        elif marker in OTHER_FRAMES:
            raise DataError(f"{name} is a JPEG of a kind (marker {marker:#x}) that cannot be decoded")
        position += length
        if marker == SCAN:
            scans += 1
            found = SCAN_END.search(content, position)
            if found is None:
                return None
            position = found.start()
    return None


def _frame_size(content: bytes, position: int, name: str) -> tuple[int, int]:
    bits, height, width = struct.unpack_from(">BHH", content, position + 2)
    if bits != 8 or not height or not width:
        raise DataError(
            f"{name} is a JPEG of {bits} bits and {height} x {width} pixels; 8 bits can be decoded"
        )
    return height, width


def _decoded_jpeg_size(content: bytes, name: str) -> tuple[int, int]:
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(io.BytesIO(content), formats=["JPEG"]) as image,
        ):
            image.load()
            return image.height, image.width
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{name} cannot be decoded to its end: {error}; fetch it again") from error


def _png_size(content: bytes, name: str) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", content, len(PNG_BEGIN) + 8)
    position = len(PNG_BEGIN)
    while True:
        length, kind = struct.unpack_from(">I4s", content, position)
        end = position + 8 + length
        (checksum,) = struct.unpack_from(">I", content, end)
        if zlib.crc32(content[position + 4 : end]) != checksum:
            raise DataError(f"{name}: the PNG chunk at byte {position} is damaged; fetch it again")
        if kind == b"IEND":
            return height, width
        position = end + 4
