"""One derivation of random numbers: stable, distinct, and accepted by both frameworks as it stands."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from timetrial.engine.errors import UsageError
from timetrial.engine.seeds import (
    StepKeys,
    random_key,
    require_distinct,
    streams,
    study_seed,
    trial_seed,
)

SEEDS = st.integers(min_value=0, max_value=2**63 - 1)
FRAMEWORKS = ("torch", "jax")


def test_known_answers_do_not_change():
    """Recorded runs are repeated by their seed, on any platform and any later version."""
    study = study_seed(0, 0)
    trial = trial_seed(study, "ogbg", 3)
    assert (study, trial) == (2388466172056149000, 8184352819244896744)
    assert streams(trial).loop == 1366830802297042540
    update = StepKeys(7, "jax")(5000)[1]
    np.testing.assert_array_equal(update, np.array([4248377250, 4267355264], np.uint32))


@given(SEEDS, st.integers(0, 10_000))
def test_step_keys_are_a_pure_function_of_seed_and_step(seed, step):
    for framework in FRAMEWORKS:
        in_order, fresh = StepKeys(seed, framework), StepKeys(seed, framework)
        in_order(0), in_order(9_999)
        np.testing.assert_array_equal(in_order(step), fresh(step))


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_no_two_keys_of_a_trial_are_equal(framework):
    keys = StepKeys(1, framework)
    rows = [tuple(key) for step in range(3 * 1024 + 5) for key in keys(step)]
    rows.append(tuple(random_key(1, framework)))
    assert len(set(rows)) == len(rows)


def test_words_of_a_key_are_uniform_and_unrelated():
    """Over 40,000 steps the six words of a step have the mean of a uniform and no correlation."""
    keys = StepKeys(2, "jax")
    words = np.array([keys(step) for step in range(40_000)], dtype=np.float64).reshape(-1, 6) / 2**32
    assert np.abs(words.mean(axis=0) - 0.5).max() < 0.01
    assert np.abs(np.corrcoef(words.T) - np.eye(6)).max() < 0.03


def test_forms_that_the_frameworks_expect():
    for step_key in StepKeys(3, "jax")(12):
        assert step_key.shape == (2,) and step_key.dtype == np.uint32
    for step_key in StepKeys(3, "torch")(12):
        assert step_key.shape == (2,) and step_key.dtype == np.int32 and (step_key >= 0).all()


def test_jax_takes_a_row_as_a_key():
    jax = pytest.importorskip("jax")
    row = StepKeys(4, "jax")(2000)[1]
    by_row = jax.random.normal(row, (3,))
    np.testing.assert_array_equal(by_row, jax.random.normal(jax.random.wrap_key_data(row), (3,)))
    folded = jax.jit(jax.random.fold_in)(row, 3)
    np.testing.assert_array_equal(folded, jax.random.fold_in(row, 3))
    assert jax.random.split(row).shape == (2, 2)


def test_torch_takes_a_word_as_a_seed():
    torch = pytest.importorskip("torch")
    row = StepKeys(4, "torch")(2000)[1]
    assert torch.Generator().manual_seed(int(row[0])).initial_seed() == row[0]
    assert torch.from_numpy(row).dtype == torch.int32


def test_trials_do_not_share_streams():
    seeds = {
        value
        for study in range(3)
        for workload in ("ogbg", "wmt")
        for trial in range(5)
        for value in vars(streams(trial_seed(study_seed(0, study), workload, trial))).values()
    }
    assert len(seeds) == 3 * 2 * 5 * 4
    assert max(seeds) < 2**63


def test_numpy_integers_are_integers():
    assert study_seed(np.int64(12), np.int32(1)) == study_seed(12, 1)


def test_seeds_do_not_depend_on_the_process():
    command = "from timetrial.engine.seeds import *; print(trial_seed(study_seed(9, 1), 'wmt', 2))"
    printed = subprocess.run(
        [sys.executable, "-c", command],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONHASHSEED": "77"},
    )
    assert int(printed.stdout) == trial_seed(study_seed(9, 1), "wmt", 2)


def test_bad_seeds_are_refused():
    with pytest.raises(UsageError, match="the run seed is -1"):
        study_seed(-1, 0)
    with pytest.raises(TypeError):
        study_seed(0.5, 0)
    require_distinct([1, 2, 3])
    with pytest.raises(UsageError, match="the seed 2"):
        require_distinct([1, 2, 3, 2])
