"""Bootstrap, rank probabilities and cadence bounds: known distributions, and what must not matter."""

import itertools
import math
import random

import numpy as np
import pandas as pd
import pytest
from field_maker import field_of, field_of_times, trial
from hypothesis import given, settings
from hypothesis import strategies as st

from timetrial.scoring.leaderboard import score_field
from timetrial.scoring.resampling import bootstrap, cadence_bounds, profile_bands
from timetrial.scoring.rules import V05

INF = math.inf


def board_of(times, mode="exact"):
    return score_field(field_of_times(times), mode)


def exact_distribution(times):
    """Score of the second submission for every possible resample of both, by enumeration: {score: probability}."""
    first, second = times["a"]["w"], times["b"]["w"]
    scores = {}
    total = len(first) ** len(first) * len(second) ** len(second)
    for x in itertools.product(first, repeat=len(first)):
        for y in itertools.product(second, repeat=len(second)):
            a, b = np.median(x), np.median(y)
            score = 0.0 if b == INF else min(1.0, max(0.0, (4 - b / min(a, b)) / 3))
            scores[round(score, 12)] = scores.get(round(score, 12), 0) + 1 / total
    return scores


@pytest.mark.parametrize("second", [[12.0, 20.0, 35.0], [12.0, 20.0, INF], [9.0, 20.0]])
def test_resampled_scores_are_distributed_as_by_enumeration(second):
    times = {"a": {"w": [10.0, 11.0, 12.0]}, "b": {"w": second}}
    board = board_of(times)
    sample = bootstrap(board, resamples=40_000, seed=3)
    exact = exact_distribution(times)
    values = np.array(sorted(exact))
    cumulative = np.cumsum([exact[value] for value in values])
    low = values[np.searchsorted(cumulative, 0.025)]
    high = values[np.searchsorted(cumulative, 0.975 - 1e-12)]
    assert sample.intervals.loc["b", ["low", "high"]].tolist() == pytest.approx([low, high], abs=0.02)
    win = sum(share for score, share in exact.items() if score == 1.0)
    tied_or_won = sample.rank_probability.loc["b", 1]
    assert tied_or_won == pytest.approx(win, abs=0.01)


def test_ties_count_half_and_misses_are_ties():
    board = board_of({"a": {"w": [10.0] * 3, "v": [INF] * 3}, "b": {"w": [20.0] * 3, "v": [INF] * 3}})
    sample = bootstrap(board, resamples=100)
    assert sample.faster.loc["a", "b"] == 0.75
    assert sample.faster.loc["b", "a"] == 0.25
    assert sample.faster.loc["a", "a"] == 0.5
    assert sample.outscores.loc["a", "b"] == 1.0


@pytest.mark.parametrize("mode", ["exact", "algoperf"])
def test_without_spread_every_resample_is_the_score_itself(mode):
    n = 4 if mode == "exact" else 3  # in mode exact, a fourth study that is missing would be a miss
    board = board_of({"a": {"w": [10.0] * 4, "v": [5.0] * n}, "b": {"w": [15.0] * 4, "v": [INF] * n}}, mode)
    sample = bootstrap(board, resamples=50)
    for name in ("a", "b"):
        score = board.scores.at[name, "score"]
        assert sample.intervals.loc[name, ["low", "high"]].tolist() == pytest.approx([score, score])
    assert sample.rank_probability.to_numpy().tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_one_study_gives_no_interval_but_workloads_can_be_drawn():
    board = board_of({"a": {"w": [10.0], "v": [20.0]}, "b": {"w": [20.0], "v": [10.0]}})
    assert bootstrap(board, resamples=50).intervals[["low", "high"]].isna().all().all()
    intervals = bootstrap(board, resamples=2_000, workloads=True).intervals
    assert intervals["low"].tolist() == pytest.approx([2 / 3, 2 / 3])
    assert intervals["high"].tolist() == pytest.approx([1.0, 1.0])


def test_the_same_seed_gives_the_same_and_chunks_do_not_matter(monkeypatch):
    board = board_of({"a": {"w": [10.0, 12.0, 30.0]}, "b": {"w": [11.0, 20.0, INF]}})
    first = bootstrap(board, resamples=500, seed=7)
    again = bootstrap(board, resamples=500, seed=7)
    pd.testing.assert_frame_equal(first.intervals, again.intervals)
    other = bootstrap(board, resamples=500, seed=8)
    assert not first.outscores.equals(other.outscores)
    monkeypatch.setattr("timetrial.scoring.resampling._ELEMENTS_AT_ONCE", 100)
    small = bootstrap(board, resamples=500, seed=7)
    assert small.outscores.loc["a", "b"] == pytest.approx(first.outscores.loc["a", "b"], abs=0.1)


def test_resampling_a_study_draws_within_the_cadence_only_when_asked():
    rows = [trial("a", "w", study, seconds=20.0, before=10.0, is_ours=True) for study in range(3)] + [
        trial("b", "w", study, seconds=20.0, before=19.99, is_ours=True) for study in range(3)
    ]
    board = score_field(field_of(rows), "exact")
    assert bootstrap(board, resamples=200).outscores.loc["a", "b"] == 0.5
    assert bootstrap(board, resamples=200, within_cadence=True).outscores.loc["a", "b"] > 0.95


def test_cadence_bounds_are_the_extremes_of_what_can_have_been():
    rows = [
        trial("a", "w", seconds=20.0, before=10.0, is_ours=True),
        trial("b", "w", seconds=30.0, before=25.0, is_ours=True),
    ]
    bounds = cadence_bounds(score_field(field_of(rows), "exact"))
    assert bounds.loc["a"].tolist() == pytest.approx([1.0, 1.0])
    assert bounds.loc["b"].tolist() == pytest.approx([(4 - 3.0) / 3, (4 - 25 / 20) / 3])


seconds = st.floats(5.0, 500.0).map(lambda value: round(value, 3)) | st.just(INF)


@st.composite
def small_fields(draw, workloads=("ogbg", "ogbg_model_size", "wmt")):
    return {
        f"s{number}": {w: draw(st.lists(seconds, min_size=1, max_size=4)) for w in workloads}
        for number in range(draw(st.integers(1, 3)))
    }


@settings(deadline=None, max_examples=40)
@given(small_fields())
def test_the_score_lies_within_its_cadence_bounds(times):
    board = score_field(field_of_times(times, V05), "exact")
    bounds = cadence_bounds(board)
    assert (bounds["low"] <= board.scores["score"] + 1e-9).all()
    assert (bounds["high"] >= board.scores["score"] - 1e-9).all()


@settings(deadline=None, max_examples=25)
@given(small_fields(), st.randoms(use_true_random=False))
def test_numbers_of_studies_do_not_matter(times, generator):
    shuffled = {
        name: {workload: generator.sample(studies, len(studies)) for workload, studies in cells.items()}
        for name, cells in times.items()
    }
    first, second = (bootstrap(board_of(field), resamples=64, seed=1) for field in (times, shuffled))
    pd.testing.assert_frame_equal(first.intervals, second.intervals)
    pd.testing.assert_frame_equal(first.faster, second.faster)
    assert (first.rank_probability.sum(axis=1) - 1).abs().max() < 1e-9
    both = first.outscores + first.outscores.T
    np.testing.assert_allclose(both.to_numpy(), 1.0)


def test_bands_hold_the_profile_and_rise():
    generator = random.Random(0)
    times = {name: {w: [10 + 20 * generator.random() for _ in range(5)] for w in "uvwx"} for name in "abc"}
    board = board_of(times)
    taus = np.linspace(1, 4, 13)
    for low, high in profile_bands(board, taus, resamples=200).values():
        assert (low <= high).all()
        assert (np.diff(low) >= 0).all() and (np.diff(high) >= 0).all()
        assert low.min() >= 0 and high.max() <= 1
