"""The files of a trial: what is written comes back, and a crash leaves nothing that is half believed."""

import csv
import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timetrial.engine import records
from timetrial.engine.errors import RecordError
from timetrial.engine.ledger import Account
from timetrial.engine.outcome import Status
from timetrial.engine.records import LedgerEntry, TrialDirectory, TrialRecord


def test_layout_is_that_of_algoperf():
    directory = TrialDirectory.below(
        Path("out"), submission="adamw", study=2, workload="ogbg", framework="torch", trial=3
    )
    assert directory.path == Path("out/adamw/study_2/ogbg_pytorch/trial_3")
    names = [directory.evaluations, directory.measurements, directory.hyperparameters, directory.meta_data]
    assert [path.name for path in names] == [
        "eval_measurements.csv",
        "measurements.csv",
        "hparams.json",
        "meta_data_0.json",
    ]


def test_header_is_sorted_ints_stay_ints_and_nan_is_empty(tmp_path):
    path = tmp_path / "eval_measurements.csv"
    records.append_evaluation(path, {"score": 0.1, "global_step": 1, "a": math.nan})
    records.append_evaluation(path, {"a": np.float32(0.5), "global_step": np.int64(7), "score": 2})
    assert path.read_text() == "a,global_step,score\n,1,0.1\n0.5,7,2\n"


def test_a_new_column_widens_the_file_and_keeps_the_header_order(tmp_path):
    path = tmp_path / "measurements.csv"
    records.append_measurements(path, [{"loss": 3.0, "global_step": 1}, {"loss": 2.0, "global_step": 2}])
    records.append_measurements(path, [{"zeta": 1, "loss": 1.0}, {"alpha, beta": 5}])
    assert list(csv.reader(path.read_text().splitlines())) == [
        ["global_step", "loss", "zeta", "alpha, beta"],
        ["1", "3.0", "", ""],
        ["2", "2.0", "", ""],
        ["", "1.0", "1", ""],
        ["", "", "", "5"],
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["measurements.csv"]


@pytest.mark.parametrize("row", [{"a": "much"}, {"a": None, "b\nc": 1.0}])
def test_what_is_no_number_or_no_name_is_refused_and_nothing_is_written(tmp_path, row):
    path = tmp_path / "measurements.csv"
    with pytest.raises(RecordError):
        records.append_measurements(path, [row])
    assert not path.exists()


def test_a_line_torn_at_any_byte_is_cut_off_before_the_next_append(tmp_path):
    path = tmp_path / "eval_measurements.csv"
    rows = [{"a": 1.25, "b": 10}, {"a": 2.5, "b": 20}]
    for row in rows:
        records.append_evaluation(path, row)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        records.append_evaluation(path, {"a": 9.0, "b": 90})
        complete = whole[:size].count(b"\n")
        expected = whole.splitlines(keepends=True)[: max(complete, 1)]
        assert path.read_bytes() == b"".join(expected) + b"9.0,90\n"


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.dictionaries(st.sampled_from("abcd"), st.floats() | st.integers(), min_size=1), min_size=1)
)
def test_every_number_comes_back_exactly(rows):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "measurements.csv"
        for row in rows:
            records.append_measurements(path, [row])
        with path.open(newline="") as file:
            read = [
                {name: float(cell) for name, cell in line.items() if cell} for line in csv.DictReader(file)
            ]
    written = [{name: float(n) for name, n in row.items() if not math.isnan(float(n))} for row in rows]
    assert read == written


def test_json_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "trial.json"
    records.write_json_atomic(path, {"old": 1})

    def power_cut(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(records.os, "fsync", power_cut)
    with pytest.raises(OSError, match="disk is full"):
        records.write_json_atomic(path, {"new": 2})
    assert records.read_json_object(path) == {"old": 1}


def test_trial_record_comes_back_and_tolerates_newer_fields(tmp_path):
    path = tmp_path / "trial.json"
    record = TrialRecord(
        status=Status.DIVERGED,
        submission="adamw",
        workload="ogbg",
        framework="jax",
        flags=["clocks disagree"],
        accounts={Account.SUBMISSION: 2**60 + 1},
        hyperparameters={"learning_rate": 0.1},
    )
    records.write_json_atomic(path, record)
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2, "certificate": {"gpu": "ok"}'))
    read = records.read_trial(path)
    assert read.accounts == {"submission": 2**60 + 1}
    assert (read.status, read.hyperparameters, read.schema) == (Status.DIVERGED, {"learning_rate": 0.1}, 2)


@pytest.mark.parametrize("text", ["", "{", '{"status": "target"}', "[]"])
def test_a_damaged_trial_record_is_a_record_error_that_names_the_file(tmp_path, text):
    path = tmp_path / "trial.json"
    path.write_text(text)
    with pytest.raises(RecordError, match=r"trial\.json"):
        records.read_trial(path)


def test_ledger_skips_a_torn_last_line_and_names_a_damaged_one(tmp_path):
    path = tmp_path / "ledger.jsonl"
    entries = [LedgerEntry(t=0, account="setup"), LedgerEntry(t=7, account="end", note={"step": 3})]
    records.append_ledger(path, entries)
    assert path.read_text().startswith('{"t":0,"account":"setup"}\n')
    with path.open("a") as file:
        file.write('{"t":9,"acc')
    assert records.read_ledger(path) == entries
    records.append_ledger(path, [LedgerEntry(t=9, account="logging")])
    assert [entry.t for entry in records.read_ledger(path)] == [0, 7, 9]
    path.write_text('{"t":0,"account":"setup"}\nnonsense\n')
    with pytest.raises(RecordError, match="line 2"):
        records.read_ledger(path)
