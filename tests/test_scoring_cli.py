"""`timetrial score`: what it prints, writes and refuses."""

import csv
import json
import subprocess
import sys

import pytest
from click.testing import CliRunner
from trial_writer import write_curve, write_pocket_run, write_trial

from timetrial.engine.cli.score import command
from timetrial.scoring.field import read_field
from timetrial.scoring.leaderboard import score_field
from timetrial.scoring.terminal import format_probability, format_seconds


def score(*arguments, columns=120):
    runner = CliRunner(env={"COLUMNS": str(columns)})
    return runner.invoke(command, [str(argument) for argument in arguments])


def table_rows(text):
    return [line.replace(" ", "").split("│")[1:-1] for line in text.splitlines() if "│" in line]


@pytest.fixture
def runs(tmp_path):
    write_pocket_run(tmp_path / "runs")
    return tmp_path / "runs"


def test_prints_scores_intervals_times_and_reasons(runs):
    write_trial(
        runs, "sgd", workload="digits", metric="accuracy", curve=[(3.0, 0.1)], record={"status": "budget"}
    )
    result = score(runs)
    assert result.exit_code == 0
    assert table_rows(result.stdout) == [
        ["1", "adamw", "1.0000", "1.000-1.000", "100%", "4/4", "10.50", "10.50"],
        ["2", "nesterov", "0.6825", "0.650-0.713", "0%", "4/4", "20.50", "20.50"],
        ["3", "sgd", "0.0000", "-", "-", "0/1", "-budget", "-notrun"],
    ]
    assert "Leaderboard (pocket rules, exact mode)" in result.stdout
    assert "10,000 resamples of the studies (seed 0)" in result.stdout


def test_without_resamples_or_with_one_study_no_interval_is_made_up(tmp_path):
    write_pocket_run(tmp_path, studies=1)
    assert "there is nothing to resample" in score(tmp_path).stdout
    for options in ((), ("--resamples", 0)):
        row = table_rows(score(tmp_path, *options).stdout)[0]
        assert row == ["1", "adamw", "1.0000", "2/2", "10.00", "10.00"]


def test_health_is_told_unasked(runs):
    result = score(runs)
    assert "no trial is suspicious" in result.stdout
    crash = {"status": "crashed", "reason": "the racer died of SIGKILL, and the kernel had run out of memory"}
    write_trial(runs, "sgd", workload="digits", curve=None, record=crash)
    text = " ".join(score(runs).stdout.split())
    assert "sgd 1 trial: out of memory (the racer died of SIGKILL" in text
    assert "digits: study 0" in text


def test_json_is_exact_and_csv_reads_back(runs, tmp_path):
    write_trial(runs, "sgd", workload="digits", metric="accuracy", curve=[(3.0, 0.1)])
    assert score(runs, "--json", tmp_path / "s.json", "--csv", tmp_path / "s.csv").exit_code == 0
    board = score_field(read_field([runs]))
    document = json.loads((tmp_path / "s.json").read_text())
    assert document["submissions"]["nesterov"]["score"] == board.scores.loc["nesterov", "score"]
    assert document["submissions"]["sgd"]["times"] == {"digits": None, "forest": None}
    assert document["submissions"]["sgd"]["reasons"] == {"digits": "missed", "forest": "not run"}
    assert document["best_times"] == {"digits": 10.5, "forest": 10.5}
    assert document["resampled"]["studies"]["rank_probability"]["adamw"] == {"1": 1.0, "2": 0.0, "3": 0.0}
    assert document["resampled"]["studies"]["outscores"]["adamw"]["sgd"] == 1.0
    assert sum(document["trials"][0]["ledger_ns"].values()) == 17_000_000_004
    assert document["trials"][0]["seed"] == 2**62
    assert document["trials"][-1]["label"] == "missed"
    rows = list(csv.DictReader((tmp_path / "s.csv").read_text().splitlines()))
    assert [float(row["digits"]) for row in rows] == [10.5, 20.5, float("inf")]
    assert [row["forest"] for row in rows] == ["10.5", "20.5", ""]
    assert float(rows[1]["low"]) == document["resampled"]["studies"]["intervals"]["nesterov"]["low"]


def test_markdown_and_latex_hold_every_submission_and_escape_names(tmp_path):
    write_pocket_run(tmp_path / "runs", submissions=("a_b", "c|d & e%"))
    result = score(tmp_path / "runs", "--markdown", tmp_path / "t.md", "--latex", tmp_path / "t.tex")
    assert result.exit_code == 0
    markdown = (tmp_path / "t.md").read_text()
    assert "| 1   | a_b" in markdown and "c\\|d & e%" in markdown
    assert {line.count("|") - line.count("\\|") for line in markdown.splitlines() if "a_b" in line} <= {7, 4}
    latex = (tmp_path / "t.tex").read_text()
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 2
    assert r"a\_b" in latex and r"d \& e\%" in latex


def test_old_scores_do_not_move_against_frozen_times(runs, tmp_path):
    frozen = tmp_path / "frozen.json"
    assert score(runs, "--json", frozen).exit_code == 0
    write_trial(
        runs,
        "newcomer",
        workload="digits",
        metric="accuracy",
        curve=[(1.0, 0.95)],
        record={"budget_sec": 100.0, "ruleset": "self"},
    )
    alone = json.loads(frozen.read_text())["submissions"]
    assert score(runs, "--json", tmp_path / "moved.json").exit_code == 0
    moved = json.loads((tmp_path / "moved.json").read_text())["submissions"]
    result = score(runs, "--frozen", frozen, "--json", tmp_path / "kept.json")
    kept = json.loads((tmp_path / "kept.json").read_text())["submissions"]
    for name in ("adamw", "nesterov"):
        assert moved[name]["score"] < alone[name]["score"] == kept[name]["score"]
    assert kept["newcomer"]["score"] == 0.5
    assert "against frozen best times" in result.stdout


def test_a_run_slower_than_its_stored_pace_is_named(runs, tmp_path):
    write_trial(
        runs, "sgd", workload="digits", metric="accuracy", curve=[(100.0, 0.1), (200.0, 0.2), (300.0, 0.3)]
    )
    stored = tmp_path / "stored.json"
    assert score(runs, "--json", stored).exit_code == 0
    paces = json.loads(stored.read_text())["step_seconds"]
    assert paces["sgd"] == {"digits": 1.0, "forest": None}
    later = write_trial(tmp_path / "later", "sgd", workload="digits", curve=None, goal=(0.9, "higher"))
    meta = json.loads(later.meta_data.read_text()) | {"workload.target_metric_name": "accuracy"}
    later.meta_data.write_text(json.dumps(meta))
    write_curve(later.evaluations, [(200.0, 0.1), (400.0, 0.2), (600.0, 0.3)], "accuracy")
    assert "slower than expected" not in score(tmp_path / "later").stdout
    told = score(tmp_path / "later", "--paces", stored).stdout
    assert "slower than expected (2 times the seconds a step that were expected)" in told


@pytest.mark.parametrize(
    "arguments",
    [
        ["nowhere"],
        ["."],
        ["runs", "--rules", "v0.5"],
        ["runs", "--json", "no/folder/s.json"],
        ["runs", "--baseline", "nobody"],
        ["runs", "--frozen", "empty.json"],
        ["runs", "--frozen", "other.json"],
        ["runs", "--frozen", "wrong.json"],
        ["runs", "--frozen", "mode.json"],
        ["runs", "--paces", "empty.json"],
        ["runs", "--paces", "torn.json"],
    ],
)
def test_bad_input_ends_in_one_sentence_and_code_2(runs, arguments, monkeypatch):
    (runs.parent / "empty").mkdir()
    monkeypatch.chdir(runs.parent / "empty" if arguments == ["."] else runs.parent)
    (runs.parent / "empty.json").write_text("{}")
    (runs.parent / "torn.json").write_text("{")
    (runs.parent / "other.json").write_text('{"rules": "v0.5", "best_times": {"wmt": 1.0}}')
    wrong = {"rules": "pocket", "mode": "exact", "best_times": {"digits": "fast"}}
    (runs.parent / "wrong.json").write_text(json.dumps(wrong))
    (runs.parent / "mode.json").write_text(json.dumps(wrong | {"mode": "algoperf", "best_times": {}}))
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


def test_workers_read_without_pandas():
    poison = "import sys; sys.modules['pandas'] = None; import timetrial.scoring.field_reader"
    subprocess.run([sys.executable, "-c", poison], check=True, cwd="/")


def test_many_workloads_are_broken_into_tables_that_fit(tmp_path):
    for number in range(12):
        write_trial(tmp_path, workload=f"workload_{number}", curve=[(1.0, 2.0)], goal=(1.0, "higher"))
    output = score(tmp_path, columns=80).output
    assert max(map(len, output.splitlines())) <= 80
    assert output.count("adamw") > 1
    assert output.count("1.00 ") == 12


def test_nothing_is_cut_short_on_a_narrow_terminal(runs):
    (runs / "adamw/study_0/a_folder_with_a_long_name_that_does_not_fit").mkdir()
    result = score(runs, columns=60)
    text = "".join(line.strip("│ ") for line in result.stderr.splitlines())
    assert "…" not in result.output
    assert "does_not_fit" in text.replace(" ", "").replace("│", "")


@pytest.mark.parametrize(
    ("seconds", "text"), [(1.234, "1.23"), (99.994, "99.99"), (123.45, "123.5"), (12345.6, "12,346")]
)
def test_format_seconds(seconds, text):
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0 %"), (1e-4, "< 1 %"), (0.5, "50 %"), (0.9999, "> 99 %"), (1.0, "100 %")],
)
def test_a_probability_is_never_rounded_to_certainty(share, text):
    assert format_probability(share) == text
