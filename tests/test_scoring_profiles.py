"""Ratios, profiles and scores against known answers, an independent integral and their properties."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timetrial.scoring.held_out import eligible_times
from timetrial.scoring.profiles import exact_scores, grid_scores, profiles, ratios
from timetrial.scoring.rules import V05, V06

INF, NAN = math.inf, math.nan


def frame(rows):
    return pd.DataFrame(rows, index=[f"s{n}" for n in range(len(rows))])


@pytest.mark.parametrize(
    ("ratio", "score"),
    [(1, 1), (1.0001, 0.994949), (1.5, 0.833333), (2, 0.671717), (3, 0.338384), (4, 0.005051), (4.0001, 0)],
)
def test_grid_score_of_one_workload(ratio, score):
    assert grid_scores(frame([[1.0], [ratio]]), 4.0)["s1"] == pytest.approx(score, abs=5e-7)


def test_exact_score_of_one_workload():
    scores = exact_scores(frame([[1.0], [2.5], [4.0], [4.5], [INF]]), 4.0)
    assert scores.tolist() == pytest.approx([1.0, 0.5, 0.0, 0.0, 0.0])


def test_a_workload_nobody_reached_stays_in_the_denominator():
    ratio = ratios(frame([[10.0, INF, NAN], [20.0, INF, NAN]]))
    assert ratio.to_numpy().tolist() == [[1.0, INF, INF], [2.0, INF, INF]]
    assert exact_scores(ratio, 4.0).tolist() == pytest.approx([1 / 3, 2 / 9])


def test_a_time_of_zero_is_the_best():
    assert ratios(frame([[0.0], [1.0], [INF]]))[0].tolist() == [1.0, INF, INF]


def test_profile_counts_ties_with_tau():
    rho = profiles(frame([[1.0, 2.0], [2.0, 1.0], [INF, 3.0]]), [1.0, 2.0, 3.0])
    assert rho.to_numpy().tolist() == [[0.5, 0.5, 0.0], [1.0, 1.0, 0.0], [1.0, 1.0, 0.5]]


seconds = st.floats(1.0, 1e5) | st.just(INF) | st.just(NAN)
tables = st.tuples(st.integers(1, 5), st.integers(1, 4)).flatmap(
    lambda shape: st.lists(
        st.lists(seconds, min_size=shape[1], max_size=shape[1]), min_size=shape[0], max_size=shape[0]
    )
)


@settings(deadline=None, max_examples=50)
@given(tables)
def test_closed_form_equals_the_integral_of_the_profile(rows):
    ratio = ratios(frame(rows))
    scores = exact_scores(ratio, 4.0)
    for name in ratio.index:
        jumps = sorted({r for r in ratio.loc[name] if 1 < r < 4})
        ends = np.array([1.0, *jumps, 4.0])
        middles = (ends[1:] + ends[:-1]) / 2  # the profile is constant between two jumps
        heights = profiles(ratio.loc[[name]], middles)[name].to_numpy()
        assert scores[name] == pytest.approx((heights * np.diff(ends)).sum() / 3, abs=1e-9)


@settings(deadline=None, max_examples=50)
@given(tables)
def test_the_grid_is_within_its_resolution_of_the_closed_form(rows):
    ratio = ratios(frame(rows))
    difference = (grid_scores(ratio, 4.0) - exact_scores(ratio, 4.0)).abs()
    assert (difference <= 1 / 99 + 1e-12).all()


@settings(deadline=None, max_examples=40)
@given(tables, st.randoms(use_true_random=False))
def test_order_of_submissions_and_workloads_is_irrelevant(rows, random):
    times = frame(rows)
    shuffled = times.loc[random.sample(list(times.index), len(times.index))]
    shuffled = shuffled[random.sample(list(times.columns), len(times.columns))]
    for score in (exact_scores, grid_scores):
        before, after = score(ratios(times), 4.0), score(ratios(shuffled), 4.0)
        pd.testing.assert_series_equal(before, after[before.index])


full_tables = st.lists(st.lists(seconds, min_size=14, max_size=14), min_size=1, max_size=4)


@settings(deadline=None, max_examples=30)
@given(full_tables, st.integers(0, 13), st.floats(0.01, 0.99), st.sampled_from([V05, V06]))
def test_a_faster_time_never_lowers_its_score(rows, column, factor, rules):
    times = pd.DataFrame(rows, columns=list(V05.goals))
    faster = times.copy()
    faster.iat[0, column] *= factor
    for score in (exact_scores, grid_scores):
        before = score(ratios(eligible_times(times, rules)), 4.0)[0]
        after = score(ratios(eligible_times(faster, rules)), 4.0)[0]
        assert after >= before - 1e-9


def v05(**named):
    """One submission that reaches everything in 100 s but for what is named."""
    return dict.fromkeys(V05.goals, 100.0) | named


def test_held_out_rules_in_their_order():
    times = pd.DataFrame(
        [
            v05(),
            v05(
                wmt=INF, wmt_glu_tanh=50.0
            ),  # a missed base takes its variant along, which then is no best time
            v05(ogbg_model_size=401.0),  # a variant over four times the best takes its base along
            v05(fastmri_tanh=NAN),  # so does one that was not run
            v05(imagenet_vit=NAN, librispeech_deepspeech=399.0),  # without a variant: as they are
            v05(criteo1tb=401.0),
        ]
    )
    eligible = eligible_times(times, V05)
    assert list(eligible.columns) == list(V06.goals)
    misses = [
        [name for name in eligible.columns if not row[name] < INF] for row in eligible.to_dict("records")
    ]
    assert misses == [[], ["wmt"], ["ogbg"], ["fastmri"], ["imagenet_vit"], ["criteo1tb"]]
    assert math.isnan(eligible.loc[4, "imagenet_vit"])
    assert eligible.loc[0, "wmt"] == 100.0


def test_a_base_freed_of_its_best_is_measured_against_the_next_best():
    times = pd.DataFrame([v05(wmt=10.0, wmt_glu_tanh=INF), v05(wmt=30.0), v05(wmt=39.0)])
    ratio = ratios(eligible_times(times, V05))
    assert ratio["wmt"].tolist() == [INF, 1.0, 1.3]


def test_without_held_out_rules_unknown_workloads_are_left_out_and_absent_ones_added():
    eligible = eligible_times(pd.DataFrame([{"wmt": 1.0, "wmt_post_ln": INF}]), V06)
    assert list(eligible.columns) == list(V06.goals)
    assert eligible["wmt"].tolist() == [1.0]
    assert np.isnan(eligible["ogbg"]).all()
