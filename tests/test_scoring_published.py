"""The scores of the first AlgoPerf competition (v0.5, external tuning), recomputed from its public logs.

Skipped where the logs are not at hand; TIMETRIAL_REFERENCE_LOGS names the folder that holds them.
"""

import json
import os
import tarfile
from pathlib import Path

import pytest

from timetrial.scoring.leaderboard import score_directories

FOLDER = Path(
    os.environ.get(
        "TIMETRIAL_REFERENCE_LOGS", Path(__file__).resolve().parents[1].parent / "shared" / "reference"
    )
)
LOGS = FOLDER / "algoperf_v05_external_logs.tar.xz"
EXPECTED = FOLDER / "expected_v05_external.json"

pytestmark = pytest.mark.skipif(
    not (LOGS.exists() and EXPECTED.exists()),
    reason=f"the competition's logs are not in {FOLDER}; set TIMETRIAL_REFERENCE_LOGS to a folder with them",
)


@pytest.fixture(scope="module")
def expected():
    return json.loads(EXPECTED.read_text())["v05_external_tuning"]


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("v05")
    with tarfile.open(LOGS) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.mark.parametrize(
    ("mode", "score", "times"),
    [
        ("algoperf", "score", "times"),
        ("exact", "score_fastest_trial_exact_integral", "times_fastest_trial"),
    ],
)
def test_scores_and_times_of_all_submissions(logs, expected, mode, score, times):
    board = score_directories([logs], "v0.5", mode)
    assert sorted(board.scores.index) == sorted(expected)
    assert len(expected) == 11
    for submission, published in expected.items():
        got = board.scores.loc[submission, "score"]
        assert got == pytest.approx(published[score], abs=1e-6)
        if mode == "algoperf":
            assert f"{got:.4f}" == f"{published['official']:.4f}"
        finite = {name: time for name, time in board.times.loc[submission].items() if time < float("inf")}
        assert finite == pytest.approx({n: t for n, t in published[times].items() if t is not None}, abs=1e-5)
    assert [problem.file for problem in board.problems] == ["lawa_ema"]
