"""Segments that end and begin where chunks do, and what a NaN reaches."""

import os
from unittest import mock

import pytest
import torch

with mock.patch.dict(os.environ, TRITON_INTERPRET="1"):
    from timetrial.kernels.segment_sum_triton import CHUNK, fused, order_by_segment


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    """Some of Triton is imported late, and asks again."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")


def numbers_of(lengths):
    """A number for each row of segments of these lengths, in random order."""
    numbers = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    return numbers[torch.randperm(len(numbers), generator=torch.Generator().manual_seed(0))]


def test_order_names_the_rows_of_each_segment_as_they_came():
    numbers = torch.tensor([2, 0, 2, 5, 0, 2])
    order, first = order_by_segment(numbers, 7)
    assert order.tolist() == [1, 4, 0, 2, 5, 3]
    assert first.tolist() == [0, 2, 2, 5, 5, 5, 6, 6]


@pytest.mark.parametrize(
    "lengths",
    [
        [CHUNK, CHUNK, CHUNK],
        [CHUNK, CHUNK + 1, CHUNK - 1],
        [2 * CHUNK, 0, CHUNK + 1],
        [1, 2 * CHUNK, 2 * CHUNK - 1],
        [CHUNK - 1, CHUNK + 1, 3 * CHUNK + 2, CHUNK + 7, 0],
        [CHUNK * CHUNK + 3],
    ],
)
def test_wherever_a_segment_begins_and_ends_each_of_its_rows_counts_once(lengths):
    numbers = numbers_of(lengths)
    rows = torch.stack([torch.ones(len(numbers)), numbers.float()], 1)
    sums = fused(rows, numbers, *order_by_segment(numbers, len(lengths)))
    expected = torch.tensor(lengths).float()
    assert torch.equal(sums, torch.stack([expected, expected * torch.arange(len(lengths))], 1))


def test_a_nan_reaches_its_own_segment_alone():
    lengths = [3, CHUNK + 1, CHUNK + 2, 2, 0]
    numbers = numbers_of(lengths)
    for segment in range(4):
        rows = torch.ones(len(numbers), 2)
        rows[(numbers == segment).nonzero()[0], 1] = torch.nan
        sums = fused(rows, numbers, *order_by_segment(numbers, len(lengths)))
        is_nan = torch.zeros(len(lengths), 2, dtype=torch.bool)
        is_nan[segment, 1] = True
        assert torch.equal(sums.isnan(), is_nan)
