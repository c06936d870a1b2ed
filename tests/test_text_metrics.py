"""Word error rates against jiwer."""

import math
from functools import partial
from pathlib import Path

import jiwer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timetrial.workloads.metrics_text import character_error_rate, word_error_rate, words_of_printed_tensor

DATA = Path("prepared")
PIECES = {2: "", 3: " ", 4: "A", 5: "B", 6: "'", 7: " A"}  # 2 is the end of a text


class Letters:
    """A tokenizer whose tokens are the pieces above."""

    def decode(self, rows):
        return ["".join(PIECES[token] for token in row) for row in rows]


def tokenizer(folder):
    assert folder == DATA
    return Letters()


wer = partial(word_error_rate, tokenizer=tokenizer)


def statistics(hypotheses, references, weights=None, loss=6.0, count=4.0):
    def rows(lists, length):
        return np.array([[*row, *[0] * (length - len(row))] for row in lists], np.int32).reshape(-1, length)

    weights = np.ones(len(references), np.float32) if weights is None else np.array(weights, np.float32)
    named = {"hypotheses": rows(hypotheses, 9), "references": rows(references, 7), "weights": weights}
    return named | {"ctc_loss": loss, "count": count}


tokens = partial(st.lists, st.sampled_from(sorted(PIECES)))
pairs = st.lists(st.tuples(tokens(max_size=9), tokens(max_size=7), st.booleans()), min_size=1, max_size=5)


@settings(max_examples=200, deadline=None)
@given(pairs)
def test_the_rate_is_jiwers(rows):
    hypotheses, references, weights = zip(*rows, strict=True)
    got = wer(statistics(hypotheses, references, weights), DATA)["wer"]
    texts = [Letters().decode(list(row[:2])) for row in rows if row[2]]
    words = sum(len(reference.split()) for _, reference in texts)
    errors = 0
    for hypothesis, reference in texts:
        if reference.split():
            counted = jiwer.process_words(reference, hypothesis)
            errors += counted.substitutions + counted.deletions + counted.insertions
        else:
            errors += len(hypothesis.split())  # jiwer refuses an empty reference
    assert math.isnan(got) if not words else got == pytest.approx(errors / words, rel=1e-12)


def test_known_rates():
    a, b = [4], [5]
    space, end = [3], [2]
    # "A B" for "A A", of two words; "" for "B", of one; "A" and one more word for "A".
    hypotheses = [a + space + b, end, a + space + a]
    references = [a + space + a + end, b + end, a + end]
    assert wer(statistics(hypotheses, references), DATA) == {"wer": 3 / 4, "ctc_loss": 1.5}
    assert wer(statistics(hypotheses, references, [0, 0, 1]), DATA)["wer"] == 1
    assert wer(statistics(references, references), DATA)["wer"] == 0


def test_nothing_to_divide_by_is_not_a_number():
    got = wer(statistics([[4], [4]], [[4], [4]], [0, 0], 0.0, 0.0), DATA)
    assert math.isnan(got["wer"]) and math.isnan(got["ctc_loss"])


# Of "A B" and the like as printed tensors: errors, and words with the two that are always right.
PRINTED = [
    ("A B", "A A", 1, 4),
    ("A B", "A B", 0, 4),
    ("", "", 0, 3),
    ("", "A", 1, 3),
    ("A A A", "A' A A", 2, 5),  # an apostrophe in one of them changes the quotation marks
    ("A A' A", "A' A A", 2, 5),
]


@pytest.mark.parametrize(("hypothesis", "reference", "errors", "words"), PRINTED)
def test_printed_tensors_have_two_more_words(hypothesis, reference, errors, words):
    spelled = {piece: token for token, piece in PIECES.items()}
    rows = [[[spelled[letter] for letter in text]] for text in (hypothesis, reference)]
    got = wer(statistics(*rows), DATA, words=words_of_printed_tensor)["wer"]
    assert got == pytest.approx(errors / words, rel=1e-12)


def test_what_is_printed_is_tensorflows():
    assert words_of_printed_tensor("A B'S") == ['tf.Tensor(b"A', "B'S\",", "shape=(),", "dtype=string)"]


def test_characters_are_counted_with_their_spaces():
    counted = character_error_rate(statistics([[4, 3, 5, 2]], [[4, 5, 5, 2]]), DATA, tokenizer=tokenizer)
    assert counted == {"cer": 1 / 3, "ctc_loss": 1.5}  # "A B" for "ABB"
