"""How long it takes to read, score and analyse 1,000 trials, and to start the command line."""

import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from timetrial.engine.outcome import Status
from timetrial.engine.records import TrialDirectory, TrialRecord
from timetrial.scoring.analysis import analyse
from timetrial.scoring.export import document
from timetrial.scoring.field import Field, read_field
from timetrial.scoring.leaderboard import Leaderboard, score_field
from timetrial.scoring.resampling import bootstrap

SUBMISSIONS, WORKLOADS, STUDIES, TRIALS = 10, 5, 4, 5
EVALUATIONS = 20
RESAMPLES = 10_000
GOAL = {
    "workload.target_metric_name": "accuracy",
    "workload.metric_better": "higher",
    "workload.validation_target_value": 0.9,
}


def write_trial(out: Path, submission: int, workload: int, study: int, trial: int, speed: float) -> None:
    """Files as a race leaves them, without its care for durability."""
    directory = TrialDirectory.below(
        out,
        submission=f"submission{submission}",
        study=study,
        workload=f"workload{workload}",
        framework="torch",
        trial=trial,
    )
    directory.path.mkdir(parents=True)
    header = "accumulated_submission_time,global_step,score,test/accuracy,validation/accuracy\n"
    rows = (
        f"{10 * k},{100 * k},{10 * k},{1 - np.exp(-k / speed)},{1 - np.exp(-k / speed)}\n"
        for k in range(1, EVALUATIONS + 1)
    )
    directory.evaluations.write_text(header + "".join(rows))
    directory.meta_data.write_bytes(msgspec.json.encode(GOAL))
    record = TrialRecord(
        status=Status.BUDGET,
        submission=f"submission{submission}",
        workload=f"workload{workload}",
        framework="torch",
        ruleset="external",
        study=study,
        trial=trial,
        accounts={"setup": 1, "submission": 2},
        wall_ns=3,
        breakdown={"update": 2},
    )
    directory.trial.write_bytes(msgspec.json.encode(record))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,000 trials of 20 evaluations."""
    out = tmp_path_factory.mktemp("runs")
    generator = np.random.default_rng(0)
    for where in np.ndindex(SUBMISSIONS, WORKLOADS, STUDIES, TRIALS):
        submission, workload, study, trial = where
        write_trial(out, submission, workload, study, trial + 1, generator.uniform(3.0, 12.0))
    return out


@pytest.fixture(scope="module")
def field(runs: Path) -> Field:
    return read_field([runs])


@pytest.fixture(scope="module")
def board(field: Field) -> Leaderboard:
    return score_field(field)


def test_thousand_trials_read(benchmark: BenchmarkFixture, runs: Path) -> None:
    field = benchmark.pedantic(lambda: read_field([runs]), rounds=3, warmup_rounds=1)
    assert len(field.trials) == SUBMISSIONS * WORKLOADS * STUDIES * TRIALS
    assert not field.problems


def test_thousand_trials_scored(benchmark: BenchmarkFixture, field: Field) -> None:
    board = benchmark(lambda: score_field(field))
    assert len(board.scores) == SUBMISSIONS
    assert not board.problems


def test_thousand_trials_analysed(benchmark: BenchmarkFixture, board: Leaderboard) -> None:
    """Everything that is said of a field, two bootstraps of 10,000 resamples among it, as a document."""
    found = benchmark.pedantic(
        lambda: document(analyse(board, resamples=RESAMPLES)), rounds=3, warmup_rounds=1
    )
    assert found["resampled"]["studies"]["resamples"] == RESAMPLES


def test_bootstrap(benchmark: BenchmarkFixture, board: Leaderboard) -> None:
    """One bootstrap over studies, of 10,000 resamples."""
    found = benchmark.pedantic(lambda: bootstrap(board, resamples=RESAMPLES), rounds=3, warmup_rounds=1)
    assert found.resamples == RESAMPLES


@pytest.mark.parametrize("arguments", ["--help", "score --help"])
def test_command_starts(benchmark: BenchmarkFixture, arguments: str) -> None:
    """A whole process, from its start to its help text."""
    command = [sys.executable, "-c", "from timetrial.engine.cli import main; main()", *arguments.split()]
    benchmark.pedantic(lambda: subprocess.run(command, check=True, capture_output=True), rounds=5)
