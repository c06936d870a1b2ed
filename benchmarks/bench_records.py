"""What leaves the racer and what reaches the disk: snapshots, checkpoints, records."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from conftest import MakeRacer
from pytest_benchmark.fixture import BenchmarkFixture

from timetrial.engine import checkpoint
from timetrial.engine.facts import Framework
from timetrial.engine.judge import require_same_entries
from timetrial.engine.ledger import Account
from timetrial.engine.messages import TakeSnapshot, Written
from timetrial.engine.records import LedgerEntry, append_evaluation, append_ledger

PARAMETERS = 10_000_000
ROW = {
    f"{split}/{name}": 0.123456789
    for split in ("train", "validation", "test")
    for name in ("accuracy", "loss", "num_examples")
} | {"accumulated_submission_time": 12.3456789, "score": 12.3456789, "global_step": 1000}


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder where snapshots go: in memory, where the machine has such a place."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else tmp_path) as name:
        yield Path(name)


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_snapshot_written_and_read(
    benchmark: BenchmarkFixture, make_racer: MakeRacer, memory: Path, framework: Framework
) -> None:
    """9.6 M parameters, as the racer writes them and the judge reads and checks names, shapes and dtypes."""
    racer = make_racer("toy_large", framework)
    path = memory / "snapshot.safetensors"
    racer.handle(TakeSnapshot(path=str(path)))
    expected = safetensors.numpy.load_file(path)

    def write_and_read() -> None:
        written = racer.handle(TakeSnapshot(path=str(path)))
        assert isinstance(written, Written), written
        require_same_entries(safetensors.numpy.load_file(path), expected)

    benchmark.pedantic(write_and_read, rounds=15, warmup_rounds=1)
    benchmark.extra_info["bytes"] = path.stat().st_size


@pytest.fixture(scope="module")
def sections() -> dict[str, object]:
    """What a checkpoint of 10 M parameters under Adam holds: 120 MB."""
    generator = np.random.default_rng(0)
    weight, first, second = (generator.standard_normal(PARAMETERS, np.float32) for _ in range(3))
    return {"model": {"weight": weight}, "optimizer_state": [first, second], "position": {"step": 1}}


def test_checkpoint_saved(benchmark: BenchmarkFixture, sections: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    size, left_out = benchmark.pedantic(
        lambda: checkpoint.save(path, sections, checkpoint.numpy_to_bytes), rounds=5, warmup_rounds=1
    )
    assert not left_out
    benchmark.extra_info["bytes"] = size


def test_checkpoint_loaded(benchmark: BenchmarkFixture, sections: dict[str, object], tmp_path: Path) -> None:
    """The digest over all of it included."""
    path = tmp_path / "checkpoint"
    checkpoint.save(path, sections, checkpoint.numpy_to_bytes)
    loaded = benchmark.pedantic(
        lambda: checkpoint.load(path, checkpoint.numpy_from_bytes), rounds=5, warmup_rounds=1
    )
    assert loaded["position"] == {"step": 1}


def test_evaluation_appended(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """One row, durable when it returns."""
    path = tmp_path / "eval_measurements.csv"
    benchmark.pedantic(lambda: append_evaluation(path, ROW), rounds=200, warmup_rounds=5)


def test_ledger_entries_appended(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """The entries of one evaluation, durable when they are written."""
    path = tmp_path / "ledger.jsonl"
    entries = [LedgerEntry(t=12_345_678_901, account=account.value) for account in Account]
    benchmark.pedantic(lambda: append_ledger(path, entries), rounds=200, warmup_rounds=5)
