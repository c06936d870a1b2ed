"""Rows of the Criteo click logs: from tab-separated text to the arrays that the model reads.

A row has a label (0 or 1), 13 integers and 26 categories of eight hex digits; any integer or category may be
empty. What becomes of them (AlgoPerf's criteo1tb):

    integer x    log(1 + max(x, 0)), float32; empty counts as 0
    category     FarmHash fingerprint of its text and its column's decimal number (0 to 25), modulo the column's
                 number of buckets; empty counts as `00000000`. The bucket is rounded to float32, as the
                 reference does before its model reads it (odd buckets beyond 2^24 become even ones), and reduced
                 modulo the 2^22 rows of the model's one table: float32 holds that exactly, and the model's own
                 reduction changes nothing.

A block of rows is parsed as a whole: fields are found by their separators and read as 64-bit words, eight
characters at a time.
"""

import re

import numpy as np

from timetrial.data_loading.criteo_days import Block
from timetrial.data_loading.farmhash import fingerprint64
from timetrial.engine.errors import DataError

NUM_INTEGERS = 13
# Buckets per categorical column (AlgoPerf's criteo1tb).
VOCABULARIES = (
    *(39884406, 39043, 17289, 7420, 20263, 3, 7120, 1543, 63, 38532951, 2953546, 403346, 10),
    *(2208, 11938, 155, 4, 976, 14, 39979771, 25641295, 39664984, 585935, 12972, 108, 36),
)
NUM_FEATURES = NUM_INTEGERS + len(VOCABULARIES)
NUM_FIELDS = 1 + NUM_FEATURES
TABLE_ROWS = 1 << 22

WORD = 8  # bytes
TAB, NEWLINE, ZERO, ONE = b"\t\n01"
INTEGER = re.compile(rb"-?\d{1,18}")


class Fields:
    """Where the fields of a block lie. DataError where a row has too few or too many."""

    def __init__(self, block: Block) -> None:
        self._block = block
        margin = b" " * WORD  # words may begin before the first field and end behind the last
        self._text = np.frombuffer(margin + block.text + margin, np.uint8)
        # Every eight consecutive bytes as one number, the earliest byte lowest.
        self._words = np.ndarray((len(self._text) - WORD + 1,), "<u8", self._text, strides=(1,))
        separators = np.flatnonzero((self._text == TAB) | (self._text == NEWLINE))
        row_ends = np.flatnonzero(self._text[separators] == NEWLINE)
        counts = np.diff(row_ends, prepend=-1)
        if (row := _first(counts != NUM_FIELDS)) is not None:
            raise DataError(f"{self.place(row)} has {counts[row]} fields, not {NUM_FIELDS}")
        self._ends = np.ascontiguousarray(separators.reshape(-1, NUM_FIELDS).T)  # (fields, rows)
        self._starts = np.empty_like(self._ends)
        self._starts[1:] = self._ends[:-1] + 1
        self._starts[0, :1] = WORD
        self._starts[0, 1:] = self._ends[-1, :-1] + 1

    def place(self, row: int) -> str:
        """A row of the block, for a message."""
        return f"row {self._block.first_row + row:,} of {self._block.file}"

    def quoted(self, field: int, row: int) -> str:
        """A field's text, for a message."""
        return ascii(self._field(field, row).decode("latin-1"))

    def labels(self) -> np.ndarray:
        """(rows,) uint8. DataError where one is neither 0 nor 1."""
        characters = self._text[self._starts[0]]
        wrong = (characters != ZERO) & (characters != ONE) | (self._lengths(0) != 1)
        if (row := _first(wrong)) is not None:
            raise DataError(f"the label of {self.place(row)} is {self.quoted(0, row)}, neither 0 nor 1")
        labels: np.ndarray = characters - np.uint8(ZERO)
        return labels

    def integers(self, column: int) -> np.ndarray:
        """max(x, 0) of an integer column, (rows,) uint64. DataError where a field is no integer."""
        field = 1 + column
        lengths = self._lengths(field)
        words = self._words[self._ends[field] - WORD]
        values, valid = numbers(words, lengths)
        # Negative ones, and those of more than eight digits, are few.
        for row in np.flatnonzero(~valid | (lengths > WORD)).tolist():
            text = self._field(field, row)
            if not INTEGER.fullmatch(text):
                quoted = self.quoted(field, row)
                raise DataError(
                    f"field {field + 1} of {self.place(row)} is {quoted}, neither integer nor empty"
                )
            values[row] = max(int(text), 0)
        return values

    def categories(self, column: int) -> np.ndarray:
        """The eight digits of a categorical column, (rows,) uint64. DataError where they are something else."""
        field = 1 + NUM_INTEGERS + column
        lengths = self._lengths(field)
        words: np.ndarray = self._words[self._starts[field]]
        words[lengths == 0] = _repeated(ZERO)
        wrong = ~are_hexadecimal(words) | ((lengths != WORD) & (lengths != 0))
        if (row := _first(wrong)) is not None:
            quoted = self.quoted(field, row)
            raise DataError(
                f"field {field + 1} of {self.place(row)} is {quoted}, "
                "neither eight hex digits (0-9, a-f) nor empty"
            )
        return words

    def _lengths(self, field: int) -> np.ndarray:
        lengths: np.ndarray = self._ends[field] - self._starts[field]
        return lengths

    def _field(self, field: int, row: int) -> bytes:
        return self._text[self._starts[field, row] : self._ends[field, row]].tobytes()


def parse(block: Block, inputs: np.ndarray, targets: np.ndarray) -> None:
    """Fill `inputs` (rows, 39) float32 and `targets` (rows,) uint8. DataError where a row is malformed."""
    fields = Fields(block)
    targets[:] = fields.labels()
    for column in range(NUM_INTEGERS):
        inputs[:, column] = np.log(fields.integers(column).astype(np.float32) + 1)
    for column, vocabulary in enumerate(VOCABULARIES):
        rounded = buckets(fields.categories(column), column, vocabulary).astype(np.float32)
        inputs[:, NUM_INTEGERS + column] = rounded.astype(np.uint32) & np.uint32(TABLE_ROWS - 1)


def buckets(categories: np.ndarray, column: int, vocabulary: int) -> np.ndarray:
    """The hash buckets, uint64 below `vocabulary`, of a column's categories.

    categories: eight hex digits each, as uint64 words whose lowest byte is the first digit.
    """
    number = str(column).encode()
    last = categories >> np.uint64(8 * len(number))
    last |= np.uint64(int.from_bytes(number, "little") << 8 * (WORD - len(number)))
    fingerprints = fingerprint64(categories, last, WORD + len(number))
    # NumPy divides by a constant several times faster than it takes a remainder.
    divisor = np.uint64(vocabulary)
    remainders: np.ndarray = fingerprints - fingerprints // divisor * divisor
    return remainders


def numbers(words: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The decimal numbers that the last `lengths` characters of each word spell, and whether they are digits.

    Only the last eight characters are looked at. No character spells 0.
    """
    unused = (8 * (WORD - np.minimum(lengths, WORD))).astype(np.uint64)  # bits
    digits = (words ^ _repeated(ZERO)) >> unused << unused
    valid = (digits + _repeated(0x80 - 10) | digits) & _repeated(0x80) == 0
    # Neighbours are joined three times: to numbers below 100, below 10,000 and below 100,000,000.
    pairs = digits * np.uint64(10) + (digits >> np.uint64(8))
    every_second = np.uint64(0x000000FF000000FF)
    upper = (pairs & every_second) * np.uint64(100 + (1_000_000 << 32))
    lower = (pairs >> np.uint64(16) & every_second) * np.uint64(1 + (10_000 << 32))
    return (upper + lower) >> np.uint64(32), valid


def are_hexadecimal(words: np.ndarray) -> np.ndarray:
    """Whether all eight characters of each word are 0-9 or a-f.

    Works on eight bytes at once: a byte below 128 that is n or more reaches its highest bit when 128 - n is
    added. Sums run over into the next byte only from bytes of 128 and more, which are no hex digits anyway.
    """
    digits, letters = words ^ _repeated(ZERO), words ^ _repeated(ord("a") - 1)  # 0-9 and 1-6 are right
    no_digit = digits + _repeated(0x80 - 10) | digits
    no_letter = letters + _repeated(0x80 - 7) | letters | ~(letters + _repeated(0x80 - 1))
    found: np.ndarray = (no_digit & no_letter & _repeated(0x80)) == 0
    return found


def _repeated(byte: int) -> np.uint64:
    """A word whose eight bytes are all this one."""
    return np.uint64(byte * 0x0101010101010101)


def _first(wrong: np.ndarray) -> int | None:
    """Position of the first True."""
    return int(np.argmax(wrong)) if wrong.any() else None
