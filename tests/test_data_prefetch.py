"""Working ahead changes neither the order nor what is raised, and is bounded."""

import itertools
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timetrial.data_loading.prefetch import in_order


@given(count=st.integers(0, 20), workers=st.integers(1, 4), depth=st.integers(1, 6))
def test_results_come_in_order(count, workers, depth):
    assert list(in_order(lambda i: i * i, iter(range(count)), workers, depth)) == [
        i * i for i in range(count)
    ]


def test_an_endless_iterator_is_read_at_most_depth_ahead():
    taken = itertools.count()
    made = in_order(lambda i: i, taken, workers=2, depth=3)
    assert [next(made) for _ in range(5)] == [0, 1, 2, 3, 4]
    made.close()
    assert next(taken) <= 5 + 3


def test_items_are_worked_on_at_the_same_time():
    barrier = threading.Barrier(2, timeout=10)  # breaks unless two are in `make` at once

    def make(item):
        barrier.wait()
        return item

    assert list(in_order(make, iter(range(4)), workers=2, depth=2)) == [0, 1, 2, 3]


def test_an_error_comes_where_its_result_would():
    def make(item):
        if item == 2:
            raise ValueError("item 2")
        return item

    made = in_order(make, iter(range(5)), workers=2, depth=4)
    assert [next(made), next(made)] == [0, 1]
    with pytest.raises(ValueError, match="item 2"):
        next(made)


def test_closing_ends_the_threads():
    made = in_order(lambda i: i, itertools.count(), workers=3, depth=3)
    next(made)
    made.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]
