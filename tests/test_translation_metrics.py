"""BLEU of translations, against sacreBLEU on the texts and a count by hand."""

import math
from functools import partial

import numpy as np
import pytest
import sacrebleu

from timetrial.workloads.metrics_translation import bleu, sentence

WORDS = ["<unk>", "<s>", "", "The", "cat", "sat", "on", "the", "mat", ".", "dog", "A"]
EOS = 2


class Words:
    """A word a token; the end of a sentence has none."""

    def __init__(self, folder):
        self.folder = folder

    def decode(self, rows):
        assert all(type(token) is int for row in rows for token in row)
        return [" ".join(WORDS[token] for token in row if WORDS[token]).replace(" .", ".") for row in rows]


def tokens(*texts, length=10):
    rows = [[WORDS.index(word) for word in text.split()] + [EOS] for text in texts]
    return np.array([row + [0] * (length - len(row)) for row in rows], np.int32)


def statistics(translations, references, rows=None):
    rows = np.ones(len(references)) if rows is None else rows
    sums = {"loss": 6.0, "correct": 3.0, "count": 4.0}
    return {"translations": translations, "references": references, "rows": rows, **sums}


def metrics(*args, folder=None):
    return bleu(statistics(*args), folder, tokenizer=Words)


REFERENCES = tokens("The cat sat on the mat .", "A dog sat on the cat .")


def test_the_same_texts_are_worth_100():
    found = metrics(REFERENCES, REFERENCES)
    assert found == {"bleu": pytest.approx(100), "accuracy": 0.75, "loss": 1.5}


def test_bleu_counted_by_hand():
    """Of 6 + 7 words 5 + 7 are right, of 5 + 6 pairs 3 + 6, of 4 + 5 threes 1 + 5, of 3 + 4 fours 0 + 4."""
    translations = tokens("The cat sat on mat .", "A dog sat on the cat .")
    precisions = [(6 + 7) / 13, (4 + 6) / 11, (2 + 5) / 9, (1 + 4) / 7]
    brevity = math.exp(1 - 14 / 13)
    wanted = 100 * brevity * math.prod(precisions) ** 0.25
    assert metrics(translations, REFERENCES)["bleu"] == pytest.approx(wanted)


def test_a_missing_order_is_smoothed_exponentially():
    """No four words agree: their precision is half of one in as many fours as there are (Chen and Cherry 2014)."""
    translations, references = tokens("The cat sat dog on the mat"), tokens("The cat sat on the mat .")
    precisions = [6 / 7, 4 / 6, 2 / 5, 1 / (2 * 4)]
    assert metrics(translations, references)["bleu"] == pytest.approx(100 * math.prod(precisions) ** 0.25)


def test_case_and_full_stops_count_as_in_sacrebleu():
    translations = tokens("the cat sat on The mat .", "A dog sat on the mat")
    texts = ["the cat sat on The mat.", "A dog sat on the mat"]
    expected = ["The cat sat on the mat.", "A dog sat on the cat."]
    wanted = sacrebleu.corpus_bleu(texts, [expected], tokenize="13a", smooth_method="exp").score
    assert 0 < wanted < 60
    assert metrics(translations, REFERENCES)["bleu"] == pytest.approx(wanted)


def test_padding_rows_and_what_follows_the_end_change_nothing():
    translations = tokens("The cat sat on mat .", "A dog sat on the cat .")
    exact = metrics(translations, REFERENCES)
    longer = translations.copy()
    longer[longer == 0] = WORDS.index("dog")  # behind the end
    padded = (
        np.concatenate([longer, tokens("dog dog", "A A")]),
        np.concatenate([REFERENCES, np.zeros((2, 10), np.int32)]),
        np.array([1.0, 1.0, 0.0, 0.0]),
    )
    assert metrics(*padded) == exact


def test_a_translation_without_end_counts_as_a_whole():
    assert sentence(np.array([3, 4, 5])) == [3, 4, 5]
    assert sentence(np.array([3, EOS, 5, EOS])) == [3, EOS] and sentence(np.array([EOS])) == [EOS]


def test_nothing_translated_is_worth_0():
    assert metrics(tokens("", ""), REFERENCES)["bleu"] == 0


def test_the_tokenizer_is_loaded_from_the_prepared_data(tmp_path):
    folders = []

    def load(folder):
        folders.append(folder)
        return Words(folder)

    page = partial(bleu, tokenizer=load)
    page(statistics(REFERENCES, REFERENCES), tmp_path)
    assert folders == [tmp_path]
