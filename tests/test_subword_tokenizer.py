"""Subword vocabularies: what is trained, from which text, and sentences there and back."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from timetrial.data_loading.subword_tokenizer import END, UNKNOWN, load, stored, train
from timetrial.engine.errors import DataError

SYLLABLES = ("ka", "lo", "mi", "ter", "ü", "schen", "un", "Ve", "ra", "po")


def sentences(count: int) -> list[str]:
    """Made-up text that repeats its parts, so that there is something to learn."""
    draw = np.random.default_rng(3)
    words = ["".join(draw.choice(SYLLABLES, draw.integers(1, 4))) for _ in range(200)]
    return [" ".join(draw.choice(words, draw.integers(3, 9))) for _ in range(count)]


TEXT = sentences(400)
MODEL = train(TEXT, 120)


def test_the_model_has_the_pieces_that_the_library_learns_by_default():
    by_default = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT),
        model_writer=by_default,
        vocab_size=120,
        character_coverage=1.0,
        minloglevel=2,
    )
    expected, found = (SentencePieceProcessor(model_proto=model) for model in (by_default.getvalue(), MODEL))
    for i in range(120):
        assert found.id_to_piece(i) == expected.id_to_piece(i)
        assert found.get_score(i) == pytest.approx(expected.get_score(i), rel=1e-6)
    assert [expected.id_to_piece(i) for i in (UNKNOWN, END)] == ["<unk>", "</s>"]


def test_ids_end_in_the_end_and_begin_with_no_mark():
    tokenizer = load(MODEL)
    plain = SentencePieceProcessor(model_proto=MODEL).encode(TEXT[:5])
    assert tokenizer.encode(TEXT[:5]) == [[*ids, END] for ids in plain]
    assert tokenizer.encode([""]) == [[END]]
    assert tokenizer.vocab_size == 120


def test_a_character_that_was_not_in_the_text_is_unknown():
    assert UNKNOWN in load(MODEL).encode(["ka 漢 lo"])[0]


def test_a_stored_model_gives_the_same_ids():
    array = stored(MODEL)
    assert array.dtype == np.uint8
    assert load(array).encode(TEXT[:20]) == load(MODEL).encode(TEXT[:20])


@given(st.lists(st.sampled_from(SYLLABLES), min_size=1, max_size=12).map(" ".join))
def test_decoding_gives_the_sentence_back(sentence):
    tokenizer = load(MODEL)
    ids = tokenizer.encode([sentence])
    assert tokenizer.decode(ids) == [sentence]
    assert tokenizer.decode([np.asarray(ids[0], np.int32)]) == [sentence]


def test_no_more_text_is_read_than_stated():
    lines = ["kalomi", "tertermi", "lokapo", "never read"]
    taken = []

    def reading():
        for line in lines:
            taken.append(line)
            yield line

    first = train(reading(), 16, max_bytes=7 + 9 + 1)  # two lines whole, and the one that goes beyond
    assert first == train(lines[:3], 16)
    assert taken == lines  # the one too many is not used


def test_too_little_text_is_an_error():
    with pytest.raises(DataError, match="vocabulary of 5000 pieces"):
        train(["ka lo"], 5000)
    with pytest.raises(DataError, match="vocabulary of 50 pieces"):
        train([], 50)


def test_bytes_that_are_no_model_and_ids_that_are_no_pieces_are_errors():
    with pytest.raises(DataError, match="no SentencePiece model"):
        load(np.arange(50, dtype=np.uint8))
    with pytest.raises(DataError, match="outside the vocabulary's 0 to 119"):
        load(MODEL).decode([[3, 120]])
