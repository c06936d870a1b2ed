"""GPT-2's tokens: byte-pair encoding with the vocabulary of 50,257 that its authors published.

The vocabulary is their list of merges, `merges.txt` or `vocab.bpe`: a line of version, then a pair of tokens a line.
Ids 0 to 255 are the bytes, those that print before the others; then comes one for every merge, in order; the last is
the end of a text. A byte that does not print is written as one of the characters from code 256 on.

Source: A. Radford et al. 2019, Language Models are Unsupervised Multitask Learners; library tiktoken.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from timetrial.data_loading.checksum import sha256_of
from timetrial.engine.errors import DataError

if TYPE_CHECKING:
    from tiktoken import Encoding

MERGES_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"  # as tiktoken states it
NUM_TOKENS = 50_257
END_OF_TEXT = NUM_TOKENS - 1
# What text is cut into before bytes are merged: contractions, words, numbers, other signs, spaces.
PIECES = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""


def load(merges: Path) -> "Encoding":
    """The encoding of GPT-2's own list of merges. DataError where the file is another one."""
    if sha256_of(merges) != MERGES_SHA256:
        raise DataError(f"{merges} should have sha256 {MERGES_SHA256}: GPT-2's list of 50,000 merges")
    return encoding_of(merges.read_text(encoding="utf-8"))


def encoding_of(merges: str) -> "Encoding":
    """The encoding of any list of merges, without the end of a text. DataError where tiktoken is not installed."""
    try:
        from tiktoken import Encoding
    except ImportError as error:
        raise DataError("GPT-2's tokens are made with tiktoken: install timetrial[full]") from error
    shown = [byte for byte in range(256) if chr(byte).isprintable() and byte != ord(" ")]
    others = [byte for byte in range(256) if byte not in shown]
    byte_of = {chr(byte): byte for byte in shown} | {chr(256 + i): byte for i, byte in enumerate(others)}
    ranks = {bytes([byte]): rank for rank, byte in enumerate([*shown, *others])}
    for line in merges.splitlines()[1:]:
        ranks[bytes(byte_of[character] for character in line.replace(" ", ""))] = len(ranks)
    return Encoding("gpt2", pat_str=PIECES, mergeable_ranks=ranks, special_tokens={})
