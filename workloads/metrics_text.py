"""Metrics of text on the host: word and character error rates."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cpdist

from timetrial.engine.facts import Statistics

BLANK = 0


class Tokenizer(Protocol):
    """What turns the tokens of each row into its text; tokens without text, such as the end's, leave nothing."""

    def decode(self, rows: list[list[int]], /) -> list[str]: ...


def words_of(text: str) -> list[str]:
    """What stands between spaces."""
    return text.split()


def words_of_printed_tensor(text: str) -> list[str]:
    """The words that AlgoPerf v0.6 compares on LibriSpeech: those of a printed tensor that holds the text.

    The first one begins with the tensor's name and a quotation mark, the last one ends with a mark and a comma, and
    two that are always right follow. Its targets are of a rate counted in this way, about a tenth below the plain one.
    """
    return f"tf.Tensor({text.encode()!r}, shape=(), dtype=string)".split()


def word_error_rate(
    statistics: Statistics,
    data: Path,
    *,
    tokenizer: Callable[[Path], Tokenizer],
    words: Callable[[str], list[str]] = words_of,
) -> dict[str, float]:
    """`wer`, and `ctc_loss` in nats per label token.

    The rate is the number of words to insert, delete or replace to turn the hypotheses into the references, over
    the number of the references' words. From the rows `hypotheses` and `references` (tokens, then zeros), of which
    those of `weights` 0 are left out, and the sums `ctc_loss` and `count`. `tokenizer` reads that of the prepared
    `data`, and `words` splits a text. Both metrics are NaN where there is nothing to divide by.
    """
    return {"wer": error_rate(statistics, data, tokenizer, words), "ctc_loss": _mean_loss(statistics)}


def character_error_rate(
    statistics: Statistics, data: Path, *, tokenizer: Callable[[Path], Tokenizer]
) -> dict[str, float]:
    """`cer`, the same rate of characters, spaces included, and `ctc_loss`."""
    return {"cer": error_rate(statistics, data, tokenizer, list), "ctc_loss": _mean_loss(statistics)}


def error_rate(
    statistics: Statistics,
    data: Path,
    tokenizer: Callable[[Path], Tokenizer],
    units: Callable[[str], list[str]],
) -> float:
    """Units to insert, delete or replace over the references' units, which `units` splits a text into."""
    counted = np.asarray(statistics["weights"]) > 0
    decode = tokenizer(data).decode
    hypotheses, references = (
        [units(text) for text in decode([row[row != BLANK].tolist() for row in statistics[name][counted]])]
        for name in ("hypotheses", "references")
    )
    errors = cpdist(hypotheses, references, scorer=Levenshtein.distance, dtype=np.int64)
    return _ratio(float(errors.sum()), sum(map(len, references)))


def _mean_loss(statistics: Statistics) -> float:
    return _ratio(statistics["ctc_loss"], statistics["count"])


def _ratio(total: float, count: float) -> float:
    return total / count if count else math.nan
