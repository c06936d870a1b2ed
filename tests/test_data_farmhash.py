"""Fingerprints equal published values and a computation in Python's integers."""

import numpy as np
import pytest
from criteo_logs import fingerprint
from hypothesis import given
from hypothesis import strategies as st

from timetrial.data_loading.farmhash import fingerprint64


def fingerprints(texts):
    """Of strings of one length."""
    first = np.array([int.from_bytes(text[:8], "little") for text in texts], np.uint64)
    last = np.array([int.from_bytes(text[-8:], "little") for text in texts], np.uint64)
    return fingerprint64(first, last, len(texts[0])).tolist()


@pytest.mark.parametrize(
    ("text", "signed"),
    # The example of BigQuery's FARM_FINGERPRINT, which prints signed numbers.
    [(b"1footrue", -1541654101129638711), (b"2applefalse", 2794438866806483259)],
)
def test_published_fingerprints(text, signed):
    assert fingerprints([text]) == [signed % 2**64]


@given(st.integers(8, 16).flatmap(lambda n: st.lists(st.binary(min_size=n, max_size=n), min_size=1)))
def test_fingerprints_equal_those_in_unbounded_integers(texts):
    assert fingerprints(texts) == [fingerprint(text) for text in texts]


@pytest.mark.parametrize("length", [7, 17])
def test_other_lengths_are_refused(length):
    words = np.zeros(1, np.uint64)
    with pytest.raises(ValueError, match="only 8 to 16 are possible"):
        fingerprint64(words, words, length)
