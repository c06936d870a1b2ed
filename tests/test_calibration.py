"""The paces of a machine, which several races may keep at once."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import Track

from timetrial.engine import calibration
from timetrial.engine.calibration import Pace, PaceCache
from timetrial.engine.cli import run


def pace(step_sec: float) -> Pace:
    return Pace(first_step_sec=0.0, step_sec=step_sec, setup_sec=1.0, evaluation_sec=2.0)


def test_races_that_keep_a_pace_at_the_same_time_keep_all(tmp_path: Path) -> None:
    file = tmp_path / "home" / "calibration.json"
    paces = {f"workload {number}": pace(float(number)) for number in range(40)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda item: PaceCache(file).put(*item), paces.items()))
    assert {key: PaceCache(file).get(key) for key in paces} == paces


def test_a_damaged_file_is_as_good_as_none(tmp_path: Path) -> None:
    cache = PaceCache(tmp_path / "calibration.json")
    (tmp_path / "calibration.json").write_text('{"a": {"step_sec"')
    assert cache.get("a") is None
    cache.put("a", pace(1.0))
    assert cache.get("a") == pace(1.0)


def test_a_machine_is_paced_once_and_again_when_its_kernels_are_tuned(
    track: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIMETRIAL_HOME", str(tmp_path / "home"))
    measured = []

    def measure(*_: object) -> Pace:
        measured.append(pace(float(len(measured))))
        return measured[-1]

    monkeypatch.setattr(calibration, "measure", measure)
    crew, watch = SimpleNamespace(scratch=tmp_path), SimpleNamespace(say=print)
    found = [run._pace(track.plan(), crew, None, watch) for _ in range(2)]
    kept = tmp_path / "home" / "kernels" / "a_gpu.json"
    kept.parent.mkdir()
    kept.write_text('{"options": {}}')
    found += [run._pace(track.plan(), crew, None, watch) for _ in range(2)]
    assert found == [measured[0], measured[0], measured[1], measured[1]] and len(measured) == 2
