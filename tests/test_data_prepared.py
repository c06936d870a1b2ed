"""A dataset is prepared once, and a half-finished or damaged one is never taken for a finished one."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from timetrial.data_loading.prepared import open_arrays, prepare_once
from timetrial.engine.errors import DataError


class Conversion:
    """Counts its calls; every call makes other values."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return {
            "training": {"a": np.full((3, 2), self.calls, np.int32)},
            "evaluation": {"b": np.full(4, self.calls, np.float32), "c": np.zeros((0, 3), np.uint8)},
        }


def test_it_is_prepared_once_and_split_in_two(tmp_path):
    convert = Conversion()
    for _ in range(2):
        prepare_once(tmp_path, "set", 1, convert)
    assert convert.calls == 1
    training, evaluation = (
        open_arrays(tmp_path, "training", "set", 1),
        open_arrays(tmp_path, "evaluation", "set", 1),
    )
    assert {k: (v.shape, v.dtype) for k, v in training.items()} == {"a": ((3, 2), np.int32)}
    assert set(evaluation) == {"b", "c"}
    assert isinstance(training["a"], np.memmap) and not training["a"].flags.writeable
    assert {path.name for path in tmp_path.iterdir()} == {"training", "evaluation", ".set.lock"}
    assert {path.name for path in (tmp_path / "training/set").iterdir()} == {"a.npy", "manifest.json"}


def test_another_version_is_prepared_anew_and_refused_until_then(tmp_path):
    prepare_once(tmp_path, "set", 1, Conversion())
    with pytest.raises(DataError, match="version 1 of set, not 2"):
        open_arrays(tmp_path, "training", "set", 2)
    prepare_once(tmp_path, "set", 2, Conversion())
    open_arrays(tmp_path, "training", "set", 2)


def test_an_absent_dataset_is_named(tmp_path):
    with pytest.raises(DataError, match="no prepared dataset set in"):
        open_arrays(tmp_path, "training", "set", 1)


@pytest.mark.parametrize("side", ["training", "evaluation"])
def test_a_side_without_its_manifest_is_prepared_anew(tmp_path, side):
    convert = Conversion()
    prepare_once(tmp_path, "set", 1, convert)
    (tmp_path / side / "set/manifest.json").unlink()
    with pytest.raises(DataError, match="no prepared dataset"):
        open_arrays(tmp_path, side, "set", 1)
    prepare_once(tmp_path, "set", 1, convert)
    assert convert.calls == 2
    assert open_arrays(tmp_path, "training", "set", 1)["a"][0, 0] == 2


def test_a_truncated_array_is_refused_and_prepared_anew(tmp_path):
    convert = Conversion()
    prepare_once(tmp_path, "set", 1, convert)
    path = tmp_path / "training/set/a.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"a\.npy should have"):
        open_arrays(tmp_path, "training", "set", 1)
    prepare_once(tmp_path, "set", 1, convert)
    assert open_arrays(tmp_path, "training", "set", 1)["a"][0, 0] == 2


def test_a_flipped_bit_is_found_by_preparing_again(tmp_path):
    convert = Conversion()
    prepare_once(tmp_path, "set", 1, convert)
    path = tmp_path / "evaluation/set/b.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    prepare_once(tmp_path, "set", 1, convert)
    assert convert.calls == 2


def test_a_manifest_of_something_else_is_an_error(tmp_path):
    prepare_once(tmp_path, "set", 1, Conversion())
    (tmp_path / "training/set/manifest.json").write_text('{"version": 1, "files": []}')
    with pytest.raises(DataError, match="no dataset manifest"):
        open_arrays(tmp_path, "training", "set", 1)


def test_a_failed_conversion_leaves_nothing_that_counts(tmp_path):
    def fail():
        raise DataError("the server is gone")

    with pytest.raises(DataError, match="gone"):
        prepare_once(tmp_path, "set", 1, fail)
    with pytest.raises(DataError, match="no prepared dataset"):
        open_arrays(tmp_path, "training", "set", 1)
    prepare_once(tmp_path, "set", 1, Conversion())
    open_arrays(tmp_path, "training", "set", 1)


def test_what_a_killed_preparation_left_is_discarded(tmp_path):
    (tmp_path / ".set.partial/training").mkdir(parents=True)
    (tmp_path / ".set.partial/training/a.npy").write_bytes(b"half")
    prepare_once(tmp_path, "set", 1, Conversion())
    assert open_arrays(tmp_path, "training", "set", 1)["a"].shape == (3, 2)


def _prepare_and_log(folder: Path, name: str) -> None:
    def convert():
        (folder / f"{name}.converted").touch()
        return Conversion()()

    prepare_once(folder, "set", 1, convert)


def test_simultaneous_preparations_convert_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_prepare_and_log, args=(tmp_path, str(i))) for i in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(list(tmp_path.glob("*.converted"))) == 1
    open_arrays(tmp_path, "evaluation", "set", 1)
