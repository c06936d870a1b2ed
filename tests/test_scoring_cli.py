"""`timetrial score`: what it prints, writes and refuses."""

import csv
import json
import subprocess
import sys

import pytest
from click.testing import CliRunner
from trial_writer import write_pocket_run, write_trial

from timetrial.engine.cli.score import command
from timetrial.scoring.leaderboard import score_directories
from timetrial.scoring.terminal import format_seconds


def score(*arguments):
    return CliRunner(env={"COLUMNS": "120"}).invoke(command, [str(argument) for argument in arguments])


@pytest.fixture
def runs(tmp_path):
    write_pocket_run(tmp_path / "runs")
    return tmp_path / "runs"


def test_prints_scores_times_and_reasons(runs):
    write_trial(
        runs, "sgd", workload="digits", metric="accuracy", curve=[(3.0, 0.1)], record={"status": "budget"}
    )
    result = score(runs)
    assert result.exit_code == 0
    lines = [line.replace(" ", "").split("│")[1:-1] for line in result.stdout.splitlines() if "│" in line]
    assert lines == [
        ["1", "adamw", "1.0000", "4/4", "10.50", "10.50"],
        ["2", "nesterov", "0.6825", "4/4", "20.50", "20.50"],
        ["3", "sgd", "0.0000", "0/1", "-budget", "-notrun"],
    ]
    assert "fewer than 2 studies" in " ".join(result.stderr.replace("│", " ").split())


def test_json_is_exact_and_csv_reads_back(runs, tmp_path):
    write_trial(runs, "sgd", workload="digits", metric="accuracy", curve=[(3.0, 0.1)])
    assert score(runs, "--json", tmp_path / "s.json", "--csv", tmp_path / "s.csv").exit_code == 0
    board = score_directories([runs])
    document = json.loads((tmp_path / "s.json").read_text())
    assert document["submissions"]["nesterov"]["score"] == board.scores.loc["nesterov", "score"]
    assert document["submissions"]["sgd"]["times"] == {"digits": None, "forest": None}
    assert document["submissions"]["sgd"]["reasons"] == {"digits": "missed", "forest": "not run"}
    assert sum(document["trials"][0]["ledger_ns"].values()) == 17_000_000_004
    rows = list(csv.DictReader((tmp_path / "s.csv").read_text().splitlines()))
    assert [float(row["digits"]) for row in rows] == [10.5, 20.5, float("inf")]
    assert [row["forest"] for row in rows] == ["10.5", "20.5", ""]


@pytest.mark.parametrize(
    "arguments",
    [["nowhere"], ["."], ["runs", "--rules", "v0.5"], ["runs", "--json", "no/folder/s.json"]],
)
def test_bad_input_ends_in_one_sentence_and_code_2(runs, arguments, monkeypatch):
    (runs.parent / "empty").mkdir()
    monkeypatch.chdir(runs.parent / "empty" if arguments == ["."] else runs.parent)
    result = score(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1


def test_scores_without_a_framework_and_helps_without_pandas(runs):
    poison = "import sys; sys.modules['torch'] = sys.modules['jax'] = None; "
    call = f"from timetrial.engine.cli.score import command; command([{str(runs)!r}])"
    subprocess.run([sys.executable, "-c", poison + call], check=True, cwd="/", stdout=subprocess.DEVNULL)
    poison += "sys.modules['pandas'] = sys.modules['numpy'] = sys.modules['rich'] = None; "
    call = "from timetrial.engine.cli.score import command; command(['--help'])"
    subprocess.run([sys.executable, "-c", poison + call], check=True, cwd="/", stdout=subprocess.DEVNULL)


def test_many_workloads_are_broken_into_tables_that_fit(tmp_path):
    for number in range(12):
        write_trial(tmp_path, workload=f"workload_{number}", curve=[(1.0, 2.0)], goal=(1.0, "higher"))
    output = CliRunner(env={"COLUMNS": "80"}).invoke(command, [str(tmp_path)]).output
    assert max(map(len, output.splitlines())) <= 80
    assert output.count("adamw") > 1
    assert output.count("1.00 ") == 12


@pytest.mark.parametrize(
    ("seconds", "text"), [(1.234, "1.23"), (99.994, "99.99"), (123.45, "123.5"), (12345.6, "12,346")]
)
def test_format_seconds(seconds, text):
    assert format_seconds(seconds) == text
