"""Held-out rules, ratios, profiles and scores against known answers, an independent integral and properties."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from timetrial.scoring.leaderboard import score_times
from timetrial.scoring.rules import POCKET, V05, V06
from timetrial.scoring.score import (
    eligible_times,
    exact_scores,
    grid,
    grid_scores,
    profile,
    ranks,
    ratios,
)

INF, NAN = math.inf, math.nan
V05_HELD_OUT = {base: (variant,) for base, variant in V05.held_out.items()}


def eligible(times: pd.DataFrame) -> pd.DataFrame:
    """By the rules of v0.5, base workloads alone."""
    values = eligible_times(times.to_numpy(dtype=float), list(times.columns), V05_HELD_OUT, 4.0)
    return pd.DataFrame(values, columns=times.columns)[list(V05.base_workloads)]


@pytest.mark.parametrize(
    ("ratio", "score"),
    [(1, 1), (1.0001, 0.994949), (1.5, 0.833333), (2, 0.671717), (3, 0.338384), (4, 0.005051), (4.0001, 0)],
)
def test_grid_score_of_one_workload(ratio, score):
    assert grid_scores(np.array([[1.0], [ratio]]), 4.0)[1] == pytest.approx(score, abs=5e-7)


def test_exact_score_of_one_workload():
    scores = exact_scores(np.array([[1.0], [2.5], [4.0], [4.5], [INF]]), 4.0)
    assert scores.tolist() == pytest.approx([1.0, 0.5, 0.0, 0.0, 0.0])


def test_a_ratio_below_one_against_a_frozen_reference_is_worth_one():
    ratio = ratios(np.array([[5.0], [20.0]]), best=np.array([10.0]))
    assert ratio.tolist() == [[0.5], [2.0]]
    assert exact_scores(ratio, 4.0).tolist() == pytest.approx([1.0, 2 / 3])
    assert grid_scores(ratio, 4.0)[0] == 1.0


def test_a_workload_nobody_reached_stays_in_the_denominator():
    ratio = ratios(np.array([[10.0, INF, NAN], [20.0, INF, NAN]]))
    assert ratio.tolist() == [[1.0, INF, INF], [2.0, INF, INF]]
    assert exact_scores(ratio, 4.0).tolist() == pytest.approx([1 / 3, 2 / 9])


def test_a_time_of_zero_is_the_best():
    assert ratios(np.array([[0.0], [1.0], [INF]]))[:, 0].tolist() == [1.0, INF, INF]


def test_profile_counts_ties_with_tau():
    rho = profile(np.array([[1.0, 2.0], [2.0, 1.0], [INF, 3.0]]), [1.0, 2.0, 3.0])
    assert rho.tolist() == [[0.5, 1.0, 1.0], [0.5, 1.0, 1.0], [0.0, 0.0, 0.5]]


def test_equal_scores_share_the_better_rank():
    assert ranks(np.array([[0.5, 0.9, 0.5, 0.1]])).tolist() == [[2, 1, 2, 4]]


seconds = st.floats(1.0, 1e5) | st.just(INF) | st.just(NAN)
tables = st.tuples(st.integers(1, 5), st.integers(1, 4)).flatmap(
    lambda shape: st.lists(
        st.lists(seconds, min_size=shape[1], max_size=shape[1]), min_size=shape[0], max_size=shape[0]
    ).map(lambda rows: np.array(rows, dtype=float))
)


@settings(deadline=None, max_examples=50)
@given(tables)
def test_closed_form_equals_numerical_integration_of_the_profile(times):
    ratio = ratios(times)
    for submission, score in enumerate(exact_scores(ratio, 4.0)):
        row = ratio[[submission]]
        jumps = sorted({r for r in row[0] if 1 < r < 4})
        area = sum(
            quad(lambda tau, row=row: profile(row, [tau])[0, 0], low, high)[0]
            for low, high in zip([1.0, *jumps], [*jumps, 4.0], strict=True)
        )
        assert score == pytest.approx(area / 3, abs=1e-7)


@settings(deadline=None, max_examples=50)
@given(tables)
def test_the_grid_score_is_the_trapezoid_of_the_profile(times):
    ratio = ratios(times)
    area = np.trapezoid(profile(ratio, grid(4.0)), grid(4.0), axis=-1) / 3
    np.testing.assert_allclose(grid_scores(ratio, 4.0), area, atol=1e-12)


@settings(deadline=None, max_examples=50)
@given(tables)
def test_the_grid_is_within_its_resolution_of_the_closed_form(times):
    ratio = ratios(times)
    assert (np.abs(grid_scores(ratio, 4.0) - exact_scores(ratio, 4.0)) <= 1 / 99 + 1e-12).all()


@settings(deadline=None, max_examples=40)
@given(tables, st.randoms(use_true_random=False))
def test_order_of_submissions_and_workloads_is_irrelevant(times, random):
    rows = random.sample(range(len(times)), len(times))
    columns = random.sample(range(times.shape[1]), times.shape[1])
    for score in (exact_scores, grid_scores):
        shuffled = score(ratios(times[rows][:, columns]), 4.0)
        np.testing.assert_allclose(shuffled, score(ratios(times), 4.0)[rows], atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(st.lists(tables, min_size=1, max_size=3))
def test_resamples_are_scored_as_one_by_one(samples):
    shape = samples[0].shape
    samples = [sample for sample in samples if sample.shape == shape]
    together = exact_scores(ratios(np.stack(samples)), 4.0)
    for number, sample in enumerate(samples):
        np.testing.assert_array_equal(together[number], exact_scores(ratios(sample), 4.0))


full_tables = st.lists(st.lists(seconds, min_size=14, max_size=14), min_size=1, max_size=4).map(
    lambda rows: pd.DataFrame(rows, columns=list(V05.goals), dtype=float)
)


@settings(deadline=None, max_examples=60)
@given(full_tables, st.integers(0, 13), st.floats(0.01, 0.99), st.sampled_from([V05, V06, POCKET]))
def test_a_faster_time_never_lowers_its_score(times, column, factor, rules):
    faster = times.copy()
    faster.iat[0, column] *= factor
    for mode in ("exact", "algoperf"):
        before = score_times(times, rules, mode).at[0, "score"]
        after = score_times(faster, rules, mode).at[0, "score"]
        assert after >= before - 1e-9


@settings(deadline=None, max_examples=60)
@given(full_tables, st.sampled_from([V05, V06, POCKET]), st.floats(1.0, 3.0))
def test_a_submission_slower_everywhere_changes_no_other_score(times, rules, factor):
    slower = times.max().fillna(INF) * factor
    with_slower = pd.concat([times, slower.to_frame("slower").T])
    for mode in ("exact", "algoperf"):
        before = score_times(times, rules, mode)["score"].sort_index()
        after = score_times(with_slower, rules, mode)["score"].drop("slower").sort_index()
        np.testing.assert_array_equal(before.to_numpy(), after.to_numpy())


def v05(**named):
    """One submission that reaches everything in 100 s but for what is named."""
    return dict.fromkeys(V05.goals, 100.0) | named


def test_held_out_rules_in_their_order():
    times = pd.DataFrame(
        [
            v05(),
            # a missed base takes its variant along, which then is no best time
            v05(wmt=INF, wmt_glu_tanh=20.0),
            v05(ogbg_model_size=401.0),  # a variant over four times the best takes its base along
            v05(fastmri_tanh=NAN),  # so does one that was not run
            v05(imagenet_vit=NAN, librispeech_deepspeech=399.0),  # without a variant: as they are
            v05(criteo1tb=401.0),
        ]
    )
    rows = eligible(times)
    misses = [[name for name in rows.columns if not row[name] < INF] for row in rows.to_dict("records")]
    assert misses == [[], ["wmt"], ["ogbg"], ["fastmri"], ["imagenet_vit"], ["criteo1tb"]]
    assert math.isnan(rows.loc[4, "imagenet_vit"])
    assert rows.loc[0, "wmt"] == 100.0


def test_a_base_freed_of_its_best_is_measured_against_the_next_best():
    times = pd.DataFrame([v05(wmt=10.0, wmt_glu_tanh=INF), v05(wmt=30.0), v05(wmt=39.0)])
    assert ratios(eligible(times)[["wmt"]].to_numpy())[:, 0].tolist() == [INF, 1.0, 1.3]


def test_workloads_outside_the_rules_are_left_out_and_absent_ones_give_no_credit():
    scores = score_times(pd.DataFrame([{"wmt": 1.0, "wmt_post_ln": INF}]), V06)
    assert scores["score"].tolist() == [1 / 8]


def test_pocket_rules_take_every_column():
    scores = score_times(pd.DataFrame({"a": [1.0, 2.5], "b": [4.0, 2.0]}, index=["x", "y"]), POCKET)
    assert scores["score"].to_dict() == pytest.approx({"x": (1 + 2 / 3) / 2, "y": (0.5 + 1) / 2})
    assert scores["rank"].to_dict() == {"x": 1, "y": 2}
