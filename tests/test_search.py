"""Search spaces: AlgoPerf's points to the last digit, and a default that is spread better than they are."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import qmc

from timetrial.engine.errors import SubmissionError, UsageError
from timetrial.engine.search import (
    Continuous,
    Discrete,
    PointList,
    ProductSpace,
    algoperf_points,
    as_hyperparameters,
    load_space,
    quasi_random_points,
    trial_points,
)

# AlgoPerf's archived NAdamW space; its points were printed by AlgoPerf's own generator.
NADAMW = {
    "learning_rate": {"min": 1e-4, "max": 1e-2, "scaling": "log"},
    "one_minus_beta1": {"min": 0.004, "max": 0.1, "scaling": "log"},
    "beta2": {"feasible_points": [0.999]},
    "warmup_factor": {"feasible_points": [0.05]},
    "weight_decay": {"min": 0.005, "max": 1.0, "scaling": "log"},
    "label_smoothing": {"feasible_points": [0.1, 0.2]},
    "dropout_rate": {"feasible_points": [0.0, 0.1]},
}


def cube(dimensions):
    return ProductSpace(
        dimensions={f"x{i}": Continuous(low=0.0, high=1.0, log=False) for i in range(dimensions)}
    )


def as_array(points):
    return np.array([list(point.values()) for point in points])


@pytest.fixture
def read(tmp_path):
    def read(content):
        path = tmp_path / "tuning_search_space.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return load_space(path)

    return read


@pytest.mark.parametrize(
    ("dimensions", "column", "expected"),
    [
        (1, 0, [0.286124277284, 0.830019332783, 0.360796325720, 0.474822561845, 0.874418929151]),
        (2, 0, [0.2739744373, 0.9911667058, 0.2302307954, 0.3757038371, 0.4753986489]),
        (2, 1, [0.286124277284, 0.830019332783, 0.360796325720, 0.474822561845, 0.874418929151]),
        (3, 0, [0.1371460696, 0.8065421802, 0.2569004197, 0.1750171034, 0.1698993962]),
    ],
)
def test_algoperf_coordinates(dimensions, column, expected):
    np.testing.assert_allclose(
        as_array(algoperf_points(cube(dimensions), 5))[:, column], expected, atol=1e-10
    )


def test_algoperf_coordinates_of_seven_dimensions():
    first = as_array(algoperf_points(cube(7), 1))[0]
    np.testing.assert_allclose(
        first[:5], [0.6484935331, 0.7565722923, 0.3641415259, 0.6914475934, 0.1371460696], atol=1e-10
    )


def test_algoperf_points_of_a_real_space(read):
    points = algoperf_points(read(NADAMW), 5)
    expected = {
        "learning_rate": [0.00198147, 0.00023663, 0.00095543, 0.00010055, 0.00019767],
        "one_minus_beta1": [0.0456775, 0.00767694, 0.0528176, 0.00570299, 0.0404478],
        "weight_decay": [0.01034064, 0.35879613, 0.01950319, 0.01263833, 0.01230024],
        "label_smoothing": [0.1, 0.2, 0.1, 0.1, 0.1],
        "dropout_rate": [0.0, 0.1, 0.0, 0.0, 0.1],
    }
    for name, values in expected.items():
        np.testing.assert_allclose([point[name] for point in points], values, rtol=5e-5)


def test_more_dimensions_than_primes_below_a_thousand():
    assert as_array(algoperf_points(cube(168), 2)).shape == (2, 168)


def test_algoperf_studies_share_points_in_an_order_of_their_own(read):
    space = read(NADAMW)
    studies = trial_points(space, search="algoperf", studies=3, trials=5, seed=0)
    raw = sorted(map(str, algoperf_points(space, 5)))
    assert all(sorted(map(str, study)) == raw for study in studies)
    assert len({str(study) for study in studies}) > 1
    assert studies == trial_points(space, search="algoperf", studies=3, trials=5, seed=0)
    assert studies != trial_points(space, search="algoperf", studies=3, trials=5, seed=1)


@pytest.mark.parametrize(("dimensions", "n"), [(7, 20), (7, 5), (4, 100), (2, 20)])
def test_the_default_is_spread_better_than_algoperfs(dimensions, n):
    reference = qmc.discrepancy(as_array(algoperf_points(cube(dimensions), n)))
    ours = [qmc.discrepancy(as_array(quasi_random_points(cube(dimensions), n, seed))) for seed in range(20)]
    assert np.median(ours) < 0.85 * reference
    if n >= 20:
        assert max(ours) < reference


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 2**63 - 1),
    st.integers(1, 4),
    st.integers(1, 6),
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
)
def test_quasi_random_points_are_distinct_and_seeded(seed, studies, trials, sizes):
    space = ProductSpace(
        dimensions={f"x{i}": Discrete(values=tuple(range(size))) for i, size in enumerate(sizes)}
    )
    if math.prod(sizes) < studies * trials:
        with pytest.raises(SubmissionError, match=f"too few for {studies * trials} trials"):
            trial_points(space, search="quasirandom", studies=studies, trials=trials, seed=seed)
        return
    chosen = trial_points(space, search="quasirandom", studies=studies, trials=trials, seed=seed)
    assert [len(study) for study in chosen] == [trials] * studies
    assert len({tuple(point.values()) for study in chosen for point in study}) == studies * trials
    assert chosen == trial_points(space, search="quasirandom", studies=studies, trials=trials, seed=seed)


def test_values_stay_in_their_intervals(read):
    space = read(NADAMW)
    points = quasi_random_points(space, 200, 3)
    rates = np.array([point["learning_rate"] for point in points])
    assert rates.min() > 1e-4 and rates.max() < 1e-2
    assert 0.4 < (rates < 1e-3).mean() < 0.6  # half of the points in the lower decade
    assert {point["beta2"] for point in points} == {0.999}
    assert list(points[0]) == list(NADAMW)


def test_a_list_of_points_keeps_its_order(read):
    content = [{"a": 1, "b": "x"}, {"b": None, "a": 2.5}, {"a": 3, "b": True}]
    space = read(content)
    assert space == PointList(points=tuple(content))
    for search in ("algoperf", "quasirandom"):
        assert trial_points(space, search=search, studies=2, trials=2, seed=0) == [content[:2]] * 2
    with pytest.raises(SubmissionError, match="lists 3 points, too few for 4 trials"):
        trial_points(space, search="quasirandom", studies=1, trials=4, seed=0)
    with pytest.raises(UsageError, match="not 0 and 1"):
        trial_points(space, search="quasirandom", studies=0, trials=1, seed=0)


def test_hyperparameters_are_a_named_tuple():
    assert as_hyperparameters(None) is None
    point = as_hyperparameters({"learning_rate": 0.1, "beta": 0.9})
    assert type(point).__name__ == "Hyperparameters"
    assert (point.learning_rate, point.beta) == point == (0.1, 0.9)
    assert not hasattr(point, "grad_clip")


def test_feasible_points_win_over_bounds(read):
    space = read({"a": {"feasible_points": [3], "min": 0, "max": 1, "scaling": "linear"}})
    assert space.dimensions == {"a": Discrete(values=(3,))}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not valid JSON"),
        ('{"a": {"feasible_points": [1]}, "a": {"feasible_points": [2]}}', "'a' occurs twice"),
        ("3", "must be an object of hyperparameters or a list of points"),
        ({}, "not empty"),
        ([], "a list of points must hold objects"),
        ([{"a": 1}, {"b": 1}], "point 2 and point 1 differ in a, b"),
        ([{"a": [1]}], "a of point 1 must be a number"),
        ({"_a": {"feasible_points": [1]}}, "'_a' cannot be a hyperparameter"),
        ({"lambda": {"feasible_points": [1]}}, "'lambda' cannot be a hyperparameter"),
        ({"a": 0.1}, "a must be an object with feasible_points"),
        ({"a": {"feasible_points": 0.1}}, "feasible_points of a must be a list of values, even for one"),
        ({"a": {"min": 0, "max": 1}}, "a has no scaling"),
        ({"a": {"min": 0, "max": 1, "scaling": "Log"}}, "scaling of a is 'Log'"),
        ({"a": {"min": 0, "max": 1, "scaling": "log"}}, "log scaling needs 0 < min <= max"),
        ({"a": {"min": 2, "max": 1, "scaling": "linear"}}, "linear scaling needs min <= max"),
        ({"a": {"min": "0", "max": 1, "scaling": "linear"}}, "min and max of a must be finite numbers"),
    ],
)
def test_defects_are_named(read, content, sentence):
    with pytest.raises(SubmissionError, match=sentence):
        read(content)


def test_an_absent_file(tmp_path):
    with pytest.raises(SubmissionError, match="does not exist: external tuning needs"):
        load_space(tmp_path / "tuning_search_space.json")
