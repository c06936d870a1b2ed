"""A long conversion goes on where it was killed, and ends as the same manifests as a short one."""

from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest

from timetrial.data_loading.download import progress
from timetrial.data_loading.parts import Part, prepare_parts
from timetrial.data_loading.prepared import is_complete, open_arrays, verify
from timetrial.engine.errors import DataError


def shards(log: Path, name: str, count: int, fail_at: int | None, stored: frozenset[str]):
    """`count` shards of a part; every conversion leaves a line in the log."""
    for i in range(count):
        shard = f"{name}_{i}"
        if shard in stored:
            continue
        if i == fail_at:
            raise DataError(f"row {i} of {name} is short")
        with log.open("a") as file:
            file.write(f"{shard}\n")
        yield shard, {"x": np.full(3, i, np.int32), "y": np.full((2, i + 1), i, np.uint8)}


def parts(log, fail_at=None, num_bytes=10):
    sides = {"a": "training", "b": "training", "c": "evaluation"}
    return [
        Part(
            name=name,
            side=side,
            num_bytes=num_bytes,
            convert=partial(shards, log, name, 3, fail_at if name == "b" else None),
        )
        for name, side in sides.items()
    ]


def test_parts_become_one_dataset(tmp_path):
    log, seen = tmp_path / "log", []
    token = progress.set(lambda *row: seen.append(row))
    try:
        prepare_parts(tmp_path, "set", 1, lambda: parts(log))
    finally:
        progress.reset(token)
    training = open_arrays(tmp_path, "training", "set", 1)
    assert set(training) == {f"{part}_{i}.{key}" for part in "ab" for i in range(3) for key in "xy"}
    assert training["b_2.x"].tolist() == [2, 2, 2] and training.shape("a_1.y") == (2, 2)
    assert len(open_arrays(tmp_path, "evaluation", "set", 1)) == 6
    assert verify(tmp_path, "set", lambda done, total: None) > 0
    assert not (tmp_path / ".set.partial").exists()
    assert ("set: source read", 0, 30) in seen
    with pytest.raises(KeyError):
        training["b_3.x"]


def test_it_is_converted_once(tmp_path):
    log = tmp_path / "log"
    for _ in range(2):
        prepare_parts(tmp_path, "set", 1, lambda: parts(log))
    assert len(log.read_text().split()) == 9


def test_what_is_stored_is_not_converted_again(tmp_path):
    log = tmp_path / "log"
    with pytest.raises(DataError, match="row 1 of b is short"):
        prepare_parts(tmp_path, "set", 1, lambda: parts(log, fail_at=1))
    assert not is_complete(tmp_path, "set", 1)
    with pytest.raises(DataError, match="no prepared dataset"):
        open_arrays(tmp_path, "training", "set", 1)
    # As a kill would: a shard's arrays are there and its record is not.
    (tmp_path / ".set.partial/records/training.b_0.json").unlink()
    prepare_parts(tmp_path, "set", 1, lambda: parts(log))
    converted = log.read_text().split()
    assert {shard: converted.count(shard) for shard in set(converted)} == {
        f"{part}_{i}": 2 if (part, i) == ("b", 0) else 1 for part in "abc" for i in range(3)
    }
    verify(tmp_path, "set", lambda done, total: None)


def test_another_source_starts_afresh(tmp_path):
    log = tmp_path / "log"
    with pytest.raises(DataError):
        prepare_parts(tmp_path, "set", 1, lambda: parts(log, fail_at=1))
    log.unlink()
    prepare_parts(tmp_path, "set", 1, lambda: parts(log, num_bytes=11))
    assert len(log.read_text().split()) == 9


def test_verify_names_every_damaged_file(tmp_path):
    prepare_parts(tmp_path, "set", 1, lambda: parts(tmp_path / "log"))
    for name in ("training/set/a_0.x.npy", "evaluation/set/c_2.y.npy"):
        content = bytearray((tmp_path / name).read_bytes())
        content[-1] ^= 1
        (tmp_path / name).write_bytes(content)
    assert is_complete(tmp_path, "set", 1)  # sizes are right: only reading them tells
    with pytest.raises(DataError, match=r"a_0\.x\.npy, .*c_2\.y\.npy: not what was written"):
        verify(tmp_path, "set", lambda done, total: None)
    (tmp_path / "training/set/b_1.x.npy").unlink()
    assert not is_complete(tmp_path, "set", 1)


def test_verify_asks_for_a_prepared_dataset(tmp_path):
    with pytest.raises(DataError, match="no prepared dataset set in"):
        verify(tmp_path, "set", lambda done, total: None)


def killed(stored: frozenset[str]):
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)
    yield "never", {}


def test_a_killed_worker_is_said_in_a_sentence(tmp_path):
    part = Part(name="a", side="training", num_bytes=1, convert=killed)
    with pytest.raises(DataError, match="a process that converted set was killed"):
        prepare_parts(tmp_path, "set", 1, lambda: [part])


def test_a_record_holds_the_checksums_that_the_manifest_will(tmp_path):
    with pytest.raises(DataError):
        prepare_parts(tmp_path, "set", 1, lambda: parts(tmp_path / "log", fail_at=1))
    record = msgspec.json.decode((tmp_path / ".set.partial/records/training.b_0.json").read_bytes())
    prepare_parts(tmp_path, "set", 1, lambda: parts(tmp_path / "log"))
    manifest = msgspec.json.decode((tmp_path / "training/set/manifest.json").read_bytes())
    assert manifest["arrays"]["b_0.x"] == record["arrays"]["x"]
