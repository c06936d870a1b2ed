"""The command line as a user meets it: what it imports, what it refuses, what survives a kill."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

import click
import pytest
from conftest import SUBMISSION

from timetrial.engine.calibration import Pace, PaceCache
from timetrial.engine.cli import timetrial
from timetrial.engine.records import read_ledger, read_trial

ENVIRONMENT = {**os.environ, "COLUMNS": "200"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and calibrations of this file's races."""
    return tmp_path_factory.mktemp("home")


def call(arguments: Sequence[object], home: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """The console script, from a folder that is not the repository."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", "from timetrial.engine.cli import main; main()", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd="/",
        env={**ENVIRONMENT, "TIMETRIAL_HOME": str(home)},
    )
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def calibrated(home: Path, out: Path) -> Path:
    """`home`, once a race in torch has left the toy's data and pace there: this one, if there was none before."""
    paces = home / "calibration.json"
    if not paces.exists() or "torch" not in paces.read_text():
        toy = ["--workload", "toy", "--framework", "torch", "--max-steps", 1]
        call(["run", "nadamw", *toy, "--out", out], home)
    return home


def test_the_options_are_these_and_no_others() -> None:
    """Every option is a promise; adding one is a decision, so it is made here too."""
    context = click.Context(timetrial)
    found = {}
    for name in timetrial.list_commands(context):
        command = timetrial.get_command(context, name)
        assert command is not None and command.help
        assert "Example" in command.help or isinstance(command, click.Group)
        found[name] = {option for p in command.params for option in p.opts if option.startswith("--")}
    assert found == {
        "run": {
            "--workload", "--suite", "--framework", "--ruleset", "--studies", "--trials", "--out", "--resume",
            "--max-steps", "--in-process", "--seed", "--search", "--compile", "--data-dir",
        },
        "score": {
            "--rules", "--mode", "--strict", "--resamples", "--seed", "--baseline", "--frozen", "--paces",
            "--html", "--json", "--csv", "--markdown", "--latex",
        },
        "check": {"--framework", "--no-step"},
        "list": {"--markdown"},
        "data": set(),
        "tune": set(),
    }  # fmt: skip


def test_help_and_score_import_no_framework(tmp_path: Path) -> None:
    """Nor does help import anything slow: that is what keeps it under 0.3 s."""
    script = """
import sys
from timetrial.engine.cli import timetrial
try:
    timetrial.main({arguments!r}, standalone_mode=True)
except SystemExit:
    pass
print(sorted({{"torch", "jax", "flax", "optax", "numpy", "pandas", "scipy", "matplotlib", "rich"}} & set(sys.modules)))
"""

    def imported(arguments: list[str]) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", script.format(arguments=arguments)],
            capture_output=True,
            text=True,
            check=True,
        )
        return list(json.loads(done.stdout.splitlines()[-1].replace("'", '"')))

    assert imported(["--help"]) == []
    assert imported(["run", "--help"]) in ([], ["numpy"])
    assert not {"torch", "jax", "flax", "optax"} & set(imported(["score", str(tmp_path)]))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "nadamw", "--framework", "torch", "--out", "OUT"], "either --workload NAME[,NAME] or --suite NAME"),
        (["run", "nadamw", "--workload", "mnst", "--framework", "torch", "--out", "OUT"], "no workload 'mnst'; there"),
        (["run", "nadamw", "--suite", "big", "--framework", "torch", "--out", "OUT"], "no suite 'big'; there are"),
        (["run", "adam", "--workload", "toy", "--framework", "torch", "--out", "OUT"], "'adam' is neither a path nor"),
        (["run", "nadamw", "--workload", "toy", "--framework", "tf", "--out", "OUT"], "'tf' is not one of"),
        (["run", "nadamw", "--workload", "toy", "--framework", "jax", "--trials", "3", "--out", "OUT"], "external"),
        (["run", "EMPTY", "--workload", "toy", "--framework", "jax", "--out", "OUT"], "neither submission_jax.py nor"),
        (["run", "BROKEN", "--workload", "toy", "--framework", "jax", "--out", "OUT"], "init_optimizer_state: not"),
        (["score", "OUT"], "OUT"),
        (["data", "prepare", "nothing"], "no workload 'nothing'"),
        (["nonsense"], "No such command"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence_exit_code_2_and_nothing_written(
    arguments: list[str], sentence: str, tmp_path: Path, home: Path
) -> None:
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "BROKEN").mkdir()
    (tmp_path / "BROKEN" / "submission.py").write_text("def get_batch_size(workload_name): return 1024\n")
    places = {name: str(tmp_path / name) for name in ("OUT", "EMPTY", "BROKEN")}
    done = call([places.get(argument, argument) for argument in arguments], home, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert sentence in done.stderr, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert not (tmp_path / "OUT").exists()


@pytest.mark.parametrize(
    "framework",
    ["torch", pytest.param("jax", marks=pytest.mark.slow)],
)
def test_an_external_race_draws_distinct_points_and_is_scored(
    framework: str, tmp_path: Path, home: Path
) -> None:
    """Two studies of two trials, their records, and a leaderboard of them."""
    out = tmp_path / "out"
    call(
        [
            "run",
            "adamw",
            "--workload",
            "toy",
            "--framework",
            framework,
            "--ruleset",
            "external",
            "--studies",
            2,
            "--trials",
            2,
            "--out",
            out,
            "--max-steps",
            40,
        ],
        home,
    )
    records = [read_trial(path) for path in sorted(out.rglob("trial.json"))]
    assert [(r.study, r.trial) for r in records] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert len({r.seed for r in records}) == 4
    points = [
        json.loads((path.parent / "hparams.json").read_text()) for path in sorted(out.rglob("trial.json"))
    ]
    assert points == [r.hyperparameters for r in records]
    assert all(r.ruleset == "external" and r.status in ("target", "completed", "budget") for r in records)
    scored = tmp_path / "scores.json"
    done = call(["score", out, "--json", scored, "--html", tmp_path / "report.html"], home)
    assert "adamw" in done.stdout and "adamw" in scored.read_text()
    assert (tmp_path / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize("name", ["momentum_torch", "signsgd_jax"])
def test_a_submission_written_for_algoperf_races_unmodified(name: str, tmp_path: Path) -> None:
    home = (
        tmp_path / "home"
    )  # a new one: the baseline is calibrated whatever this submission's hyperparameters are
    framework = name.rpartition("_")[2]
    submission = Path(__file__).parent / "algoperf_style" / name
    arguments = ["--workload", "toy", "--framework", framework, "--max-steps", 30, "--out", tmp_path]
    for ruleset in ("external", "self"):
        if ruleset == "self" or (submission / "tuning_search_space.json").exists():
            done = call(
                ["run", submission, *arguments[:-1], tmp_path / ruleset, "--ruleset", ruleset],
                home,
                check=False,
            )
            records = [read_trial(path) for path in (tmp_path / ruleset).rglob("trial.json")]
            assert len(records) == 1, done.stdout + done.stderr
            if records[0].status not in ("completed", "target"):
                # A submission made for one ruleset alone may need hyperparameters: then it says so, in a record.
                assert ruleset == "self" and records[0].status == "crashed", records[0].reason


def test_a_killed_referee_takes_its_children_along_and_its_race_goes_on(tmp_path: Path, home: Path) -> None:
    home = shutil.copytree(calibrated(home, tmp_path / "first"), tmp_path / "home")
    # Until somebody lets it go on, it stays in the step after an evaluation: the account open then is known.
    slow = (
        SUBMISSION["torch"]
        + """
        step = update_params

        def update_params(workload, current_param_container, current_params_types, model_state, hyperparameters,
                          batch, loss_type, optimizer_state, eval_results, global_step, rng, train_state=None):
            time.sleep(0.005)
            if eval_results and not os.path.exists(os.path.dirname(__file__) + "/go_on"):
                time.sleep(120)
            return step(workload, current_param_container, current_params_types, model_state, hyperparameters,
                        batch, loss_type, optimizer_state, eval_results, global_step, rng)
    """
    )
    submission = tmp_path / "slow" / "submission.py"
    submission.parent.mkdir()
    submission.write_text(textwrap.dedent(slow))
    out = tmp_path / "out"
    arguments = [
        "run",
        submission,
        "--workload",
        "toy",
        "--framework",
        "torch",
        "--out",
        out,
        "--max-steps",
        "400",
    ]
    command = [sys.executable, "-c", "from timetrial.engine.cli import main; main()", *map(str, arguments)]
    environment = {**ENVIRONMENT, "TIMETRIAL_HOME": str(home)}
    # An evaluation every few steps, however slow the machine was when it calibrated: the first one is far from the
    # target and from the end.
    paces = PaceCache(home / "calibration.json")
    for key in json.loads((home / "calibration.json").read_text()):
        paces.put(key, Pace(first_step_sec=60.0, step_sec=0.004, setup_sec=1.0, evaluation_sec=0.1))
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as referee:
        assert referee.stdout is not None
        for line in referee.stdout:
            if "step" in line and "accuracy" in line:
                break
        ledger = next(out.rglob("ledger.jsonl"))
        deadline = time.monotonic() + 60
        while not _is_training_for(ledger, 1.0) and time.monotonic() < deadline:
            pass
        children = _children(referee.pid)
        assert children
        os.kill(referee.pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while any(_is_running(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_is_running(pid) for pid in children)

    (submission.parent / "go_on").touch()
    folder = next(out.rglob("trial_1"))
    measured = (folder / "eval_measurements.csv").read_text()
    refused = call(arguments, home, check=False)
    assert refused.returncode == 2 and "--resume" in refused.stderr
    done = call([*arguments, "--resume"], home)
    record = read_trial(folder / "trial.json")
    assert record.status in ("completed", "target", "budget") and record.resumed == 1, done.stdout
    assert record.lost_ns > 0.5e9
    assert (folder / "eval_measurements.csv").read_text().startswith(measured)
    times = [entry.t for entry in read_ledger(folder / "ledger.jsonl")]
    assert times == sorted(times)
    assert record.wall_ns == sum(record.accounts.values()) == times[-1]


def _is_training_for(ledger: Path, sec: float) -> bool:
    """Whether the submission account is open and stays so while we wait."""
    before = read_ledger(ledger)
    time.sleep(sec)
    return read_ledger(ledger) == before and before[-1].account == "submission"


def _children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listed.read_text().split()] if listed.exists() else []


def _is_running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
