"""Broken logs: every fault is reported with its file and what was done, and none changes a score in silence."""

import os

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from trial_writer import write_pocket_run, write_trial

from timetrial.engine.cli.score import command
from timetrial.scoring.evaluations import read_evaluations
from timetrial.scoring.field import read_field
from timetrial.scoring.leaderboard import score_field
from timetrial.scoring.problems import Kind

HEADER = "global_step,score,validation/bleu\n"
GOOD = HEADER + "100,10.0,1.0\n200,20.0,31.0\n"


def read(tmp_path, text):
    path = tmp_path / "eval_measurements.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    problems = []
    evaluations = read_evaluations(str(path), "bleu", problems)
    for problem in problems:
        assert problem.file == str(path)
        assert problem.message and problem.consequence
    return list(evaluations.seconds), [(problem.kind, problem.message) for problem in problems]


def test_a_sound_file_has_no_problem(tmp_path):
    assert read(tmp_path, GOOD) == ([10.0, 20.0], [])
    assert read(tmp_path, GOOD.replace("\n", "\r\n")) == ([10.0, 20.0], [])


@pytest.mark.parametrize(
    ("text", "kept", "kind", "words"),
    [
        (GOOD + "300,30.0,3", [10, 20], Kind.TRUNCATED, "line 4"),
        (GOOD[:-1], [10], Kind.TRUNCATED, "line 3"),
        ("", [], Kind.TRUNCATED, "is empty"),
        ("\n", [], Kind.TRUNCATED, "is empty"),
        ("global_step,validation/bleu\n1,2\n", [], Kind.COLUMN, "score"),
        ("global_step,score\n1,2\n", [], Kind.COLUMN, "validation/bleu"),
        (GOOD + "300,30.0\n", [10, 20], Kind.CELL, "2 cells, the header 3"),
        (GOOD + "300,30.0,1,2\n", [10, 20], Kind.CELL, "4 cells, the header 3"),
        (GOOD + "300,thirty,32.0\n", [10, 20], Kind.CELL, "'thirty'"),
        (GOOD + "300,,32.0\n", [10, 20], Kind.CELL, "''"),
        (GOOD + "300,nan,32.0\n", [10, 20], Kind.CELL, "'nan'"),
        (GOOD + "300,30.0,high\n", [10, 20], Kind.CELL, "'high'"),
        (GOOD + "300,30.0,1_000\n", [10, 20], Kind.CELL, "'1_000'"),
        (GOOD + "300,30.0,٣\n", [10, 20], Kind.CELL, "'٣'"),
        (GOOD + "x,30.0,32.0\n", [10, 20], Kind.CELL, "'x'"),
        (GOOD + "200,30.0,32.0\n", [10, 20], Kind.STEP, "step 200"),
        (GOOD + "200,5.0,32.0\n", [10, 20], Kind.STEP, "step 200"),
        (GOOD + "300,15.0,32.0\n", [10, 20], Kind.TIME, "15 s, after one at 20 s"),
        (GOOD + "150,30.0,32.0\n", [10, 20], Kind.TIME, "step 150, after one of step 200"),
        (GOOD + "300,30.0,32.0\n\n", [10, 20, 30], Kind.CELL, "1 cells"),
        (b"\xff\xfescore,validation/bleu\n10.0,1.0\n", [], Kind.COLUMN, "score"),
        (GOOD.encode() + b"300,\xff,1\n", [10, 20], Kind.CELL, "line 4"),
    ],
)
def test_every_fault_is_named_and_the_rest_of_the_file_counts(tmp_path, text, kept, kind, words):
    seconds, problems = read(tmp_path, text)
    assert seconds == kept
    assert [found for found, _ in problems] == [kind]
    assert words in problems[0][1]


def test_an_empty_metric_is_no_fault_and_no_hit(tmp_path):
    assert read(tmp_path, HEADER + "100,10.0,\n200,20.0,nan\n") == ([10.0, 20.0], [])


def test_after_a_restart_the_second_evaluation_of_a_step_is_left_out_and_later_ones_count(tmp_path):
    text = HEADER + "100,10.0,1.0\n200,20.0,2.0\n200,18.0,2.0\n300,30.0,3.0\n"
    seconds, problems = read(tmp_path, text)
    assert seconds == [10.0, 20.0, 30.0]
    assert [kind for kind, _ in problems] == [Kind.STEP]


def test_a_file_that_cannot_be_read_is_reported(tmp_path):
    (tmp_path / "eval_measurements.csv").mkdir()
    problems = []
    assert not len(read_evaluations(str(tmp_path / "eval_measurements.csv"), "bleu", problems).seconds)
    assert [problem.kind for problem in problems] == [Kind.UNREADABLE]


cells = st.sampled_from(["1", "2.5", "", "nan", "inf", "x", '"', "1_0", " 3", "-4", "1e400", "\x00"])
lines = st.lists(cells, max_size=5).map(",".join)


@settings(deadline=None, max_examples=150)
@given(st.lists(lines, max_size=8), st.booleans(), st.booleans())
def test_no_file_stops_the_reader_and_what_it_keeps_is_in_order(tmp_path_factory, rows, header, ended):
    text = (HEADER if header else "") + "\n".join(rows) + ("\n" if ended else "")
    path = tmp_path_factory.mktemp("files") / "eval_measurements.csv"
    path.write_text(text)
    problems = []
    evaluations = read_evaluations(str(path), "bleu", problems)
    seconds, steps = list(evaluations.seconds), list(evaluations.steps)
    assert seconds == sorted(seconds)
    assert steps == sorted(set(steps))
    if header:  # every line of the file is kept or reported
        body = text[len(HEADER) :]
        written = body.count("\n") + (0 if body.endswith("\n") or not body else 1)
        assert len(seconds) + len(problems) == written


@pytest.mark.parametrize("name", ["trial.json", "meta_data_0.json", "hparams.json", "ledger.jsonl"])
@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xff", b"null\n", b'{"t": "x"}\n'])
def test_damaged_companions_are_reported_and_the_curve_counts(tmp_path, name, content):
    directory = write_trial(tmp_path, curve=[(10.0, 31.0)])
    (directory.path / name).write_bytes(content)
    board = score_field(read_field([tmp_path], "v0.6"), "algoperf")
    assert board.times.loc["adamw", "wmt"] == 10.0
    reported = [problem.kind for problem in board.field.problems if problem.file.endswith(name)]
    is_object = name in ("meta_data_0.json", "hparams.json") and content == b'{"t": "x"}\n'
    is_torn = name == "ledger.jsonl" and not content.endswith(b"\n")  # the end of a crash, not damage
    assert reported == ([] if is_object or is_torn else [Kind.JSON])


def test_a_record_of_another_framework_than_its_folder_is_reported(tmp_path):
    directory = write_trial(tmp_path, curve=[(10.0, 31.0)], record={})
    os.rename(directory.path.parent, directory.path.parent.with_name("wmt_pytorch"))
    assert [p.kind for p in read_field([tmp_path], "v0.6").problems] == [Kind.FRAMEWORK]


def test_empty_folders_are_reported(tmp_path):
    write_trial(tmp_path, curve=[(10.0, 31.0)])
    (tmp_path / "nothing").mkdir()
    (tmp_path / "adamw/study_1").mkdir()
    (tmp_path / "adamw/study_0/ogbg_jax").mkdir()
    problems = read_field([tmp_path], "v0.6").problems
    assert {(p.kind, os.path.basename(p.file)) for p in problems} == {
        (Kind.EMPTY, "nothing"),
        (Kind.EMPTY, "study_1"),
        (Kind.EMPTY, "ogbg_jax"),
    }


def test_wrong_numbers_of_studies_and_trials_are_reported(tmp_path):
    for study in range(4):
        for trial in range(1, 7 if study == 0 else 6):
            write_trial(tmp_path, study=study, trial=trial, curve=[(10.0, 31.0)], hyperparameters={})
    write_trial(tmp_path, workload="ogbg", curve=[(1.0, 1.0)], metric="mean_average_precision")
    board = score_field(read_field([tmp_path], "v0.6"), "exact")
    messages = {problem.message: problem.consequence for problem in board.problems}
    assert messages == {
        "adamw on wmt: 4 studies were evaluated, 3 should be": "all count",
        "adamw on ogbg: 1 studies were evaluated, 3 should be": "a missing study counts as a miss",
        "adamw on wmt: study 0 has 6; 5 trials a study should be": "the fastest of those there counts",
        "adamw on ogbg: study 0 has 1; 5 trials a study should be": "the fastest of those there counts",
    }


def test_an_unknown_workload_is_reported_once(tmp_path):
    write_trial(tmp_path, curve=[(10.0, 31.0)])
    for trial in (1, 2):
        write_trial(tmp_path, workload="chess", trial=trial, curve=[(10.0, 31.0)])
    problems = read_field([tmp_path], "v0.6").problems
    assert [problem.kind for problem in problems] == [Kind.WORKLOAD]
    assert "chess, 2 trials: no workload of AlgoPerf" in problems[0].message


def test_strict_refuses_what_the_default_reports(tmp_path):
    write_pocket_run(tmp_path / "runs")
    clean = CliRunner().invoke(command, [str(tmp_path / "runs"), "--strict"])
    assert clean.exit_code == 0
    path = tmp_path / "runs/adamw/study_0/digits_jax/trial_1/eval_measurements.csv"
    path.write_text(path.read_text()[:-3])
    arguments = [str(tmp_path / "runs"), "--json", str(tmp_path / "out.json")]
    default = CliRunner().invoke(command, arguments)
    assert default.exit_code == 0
    assert "truncated file" in default.stderr
    (tmp_path / "out.json").unlink()
    strict = CliRunner().invoke(command, [*arguments, "--strict"])
    assert strict.exit_code == 2
    assert "truncated file" in strict.stderr
    assert strict.stderr.splitlines()[-1].startswith("Error: --strict refuses")
    assert strict.stdout == ""
    assert not (tmp_path / "out.json").exists()
