"""The size of an encoded photograph, and whether its file is whole, without decoding it.

A JPEG is walked marker by marker through all its scans to the end marker, so a file that was cut off anywhere is
found; a wrong value within the compressed data is not. It costs a hundredth of decoding. Of PNG (ImageNet has one,
named .JPEG) every chunk's checksum is compared. Formats: ITU-T T.81, and the PNG specification (third edition).
"""

import re
import struct
import zlib

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
    try:
        if content.startswith(JPEG_BEGIN):
            return _jpeg_size(content, name)
        if content.startswith(PNG_BEGIN):
            return _png_size(content, name)
    except (IndexError, struct.error) as error:
        raise DataError(f"{name} is cut off: it ends within a header; fetch it again") from error
    raise DataError(f"{name} is neither JPEG nor PNG")


def _jpeg_size(content: bytes, name: str) -> tuple[int, int]:
    size, scans, position = None, 0, len(JPEG_BEGIN)
    while True:
        if content[position] != 0xFF:
            raise DataError(f"{name}: there should be a JPEG marker at byte {position}; fetch it again")
        marker = content[position + 1]
        if marker == 0xFF:  # any number of these may come before a marker
            position += 1
            continue
        if marker == END:
            if size is None or not scans:
                raise DataError(f"{name} is a JPEG without an image; fetch it again")
            return size
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
                raise DataError(f"{name} is cut off: its JPEG data have no end; fetch it again")
            position = found.start()


def _frame_size(content: bytes, position: int, name: str) -> tuple[int, int]:
    bits, height, width = struct.unpack_from(">BHH", content, position + 2)
    if bits != 8 or not height or not width:
        raise DataError(
            f"{name} is a JPEG of {bits} bits and {height} x {width} pixels; 8 bits can be decoded"
        )
    return height, width


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
