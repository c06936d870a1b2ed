"""`timetrial check`: every finding it can make, and silence about what is right."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from timetrial.engine.check import Level, check
from timetrial.engine.cli.check import command
from timetrial.engine.errors import SubmissionError
from timetrial.engine.submission import PARAMETERS
from timetrial.submissions import SUBMISSIONS

STYLE = Path(__file__).parent / "algoperf_style"
NAMES = {"ogbg", "wmt", "imagenet_resnet"}


def source(head="", **replaced):
    parts = []
    for name, parameters in PARAMETERS.items():
        text = f"def {name}({', '.join(parameters)}):\n    return 64\n"
        parts.append(replaced.get(name, text))
    return head + "\n".join(parts)


@pytest.fixture
def findings(tmp_path):
    def findings(text, framework="torch", files=None, **arguments):
        (tmp_path / "submission.py").write_text(text)
        for name, content in (files or {}).items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(content)
        return check(tmp_path, framework, workload_names=NAMES, **arguments)

    return findings


def worse(findings):
    return [(f.level.value, f.subject, f.line, f.text) for f in findings if f.level is not Level.OK]


def only(findings, level, words):
    """The one finding with these words."""
    [found] = [finding for finding in findings if words in finding.text]
    assert found.level is level
    return found


NO_SPACE = ("note", "tuning_search_space.json", None, "absent: the self-tuning ruleset only")


def test_nothing_is_wrong_with_a_plain_submission(findings):
    assert worse(findings(source())) == [NO_SPACE]


@pytest.mark.parametrize("framework", ["torch", "jax"])
@pytest.mark.parametrize("name", SUBMISSIONS)
def test_nothing_is_wrong_with_the_shipped_ones(name, framework):
    assert worse(check(SUBMISSIONS[name], framework, workload_names=NAMES)) == []


@pytest.mark.parametrize(("name", "framework"), [("momentum_torch", "torch"), ("signsgd_jax", "jax")])
def test_no_errors_in_those_written_for_algoperf(name, framework):
    found = check(STYLE / name, framework, workload_names=NAMES)
    assert Level.ERROR not in {finding.level for finding in found}


def test_neither_framework_nor_submission_is_imported():
    command = (
        "import sys; sys.modules['torch'] = sys.modules['jax'] = None\n"
        "from pathlib import Path; from timetrial.engine.check import check\n"
        f"print(len(check(Path({str(STYLE / 'momentum_torch')!r}), 'torch', workload_names=())))"
    )
    printed = subprocess.run([sys.executable, "-c", command], check=True, capture_output=True, text=True)
    assert int(printed.stdout) > 5


def test_functions_and_signatures(findings):
    found = findings(
        source(
            get_batch_size="def get_batch_size():\n    return 1\n",
            init_optimizer_state="def init_optimizer_state(workload, params, state, h, rng):\n    pass\n",
            update_params="def update_params(workload, batch, **rest):\n    pass\n",
            prepare_for_eval="def prepare_for_eval(workload, rng):\n    pass\n",
            data_selection="",
        )
        + "def get_eval_batch_size(workload_name):\n    return 1\n"
    )
    by_subject = {f.subject: f for f in found}
    assert by_subject["get_batch_size"].level is Level.ERROR
    assert "called by position with (workload_name)" in by_subject["get_batch_size"].text
    assert by_subject["init_optimizer_state"].level is Level.NOTE
    assert "(workload, model_params," in by_subject["init_optimizer_state"].text
    assert by_subject["update_params"].level is Level.OK
    assert by_subject["prepare_for_eval"].level is Level.ERROR
    assert (
        "has no parameter current_param_container, current_params_types"
        in by_subject["prepare_for_eval"].text
    )
    assert by_subject["data_selection"].text == "not defined, but every submission needs it"
    assert by_subject["get_eval_batch_size"].level is Level.NOTE


def test_parameters_that_nothing_is_passed_for(findings):
    text = f"def update_params({', '.join(PARAMETERS['update_params'])}, mine, train_state):\n    pass\n"
    only(findings(source(update_params=text)), Level.ERROR, "nothing is passed for its parameter mine")


def test_syntax(findings):
    [found] = findings("def f(:\n")
    assert (found.level, found.line) == (Level.ERROR, 1)


@pytest.mark.parametrize(
    ("head", "level", "words"),
    [
        ("import torch_that_is_not_here\n", Level.ERROR, "is neither installed nor beside"),
        ("from .helper import x\n", Level.ERROR, ".helper is not in"),
        (
            "from algoperf import jax_sharding_utils\n",
            Level.ERROR,
            "algoperf.jax_sharding_utils is not provided",
        ),
        ("import algorithmic_efficiency.workloads\n", Level.ERROR, "algoperf.workloads is not provided"),
        ("import threading\n", Level.NOTE, "work must not go on while the clock stands still"),
        ("def f():\n    from subprocess import run\n", Level.NOTE, "a referee will ask why"),
        ("import jax\n", Level.NOTE, "belongs to the other framework"),
        ("import os\nos.environ['A'] = 'b'\n", Level.NOTE, "os.environ is changed"),
        ("import jax\njax.config.update('a', 1)\n", Level.NOTE, "jax.config is changed"),
        ("for i in range(3):\n    pass\n", Level.NOTE, "a loop runs on import"),
        ("print('ready')\n", Level.NOTE, "`print(…)` runs on import"),
    ],
)
def test_imports_and_what_happens_on_import(findings, head, level, words):
    found = only(findings(source(head=head)), level, words)
    assert found.line in (1, 2)


def test_helpers_are_read_too(findings):
    files = {
        "helper.py": "import threading\n",
        "deep/inner.py": "def f(name):\n    return name == 'wmt'\n",
        "other_jax.py": "import jax\n",
        "types.py": "",
    }
    found = findings(source(head="import helper\nimport types\nfrom .deep import inner\n"), files=files)
    assert [(f.level, f.subject, f.line) for f in found if f.level is not Level.OK][1:] == [
        (Level.ERROR, "submission.py", 2),
        (Level.NOTE, "helper.py", 1),
        (Level.ERROR, "deep/inner.py", 2),
    ]


@pytest.mark.parametrize(
    "code",
    [
        "if workload.name == 'ogbg':\n        pass",
        "if name in ('wmt', 'x'):\n        pass",
        "rates = {'ogbg': 0.1}",
        "if name.startswith('imagenet_resnet'):\n        pass",
        "match name:\n        case 'wmt':\n            pass",
        "TABLE['ogbg']",
    ],
)
def test_telling_workloads_apart_is_an_error(findings, code):
    only(
        findings(source(head=f"def f(name, workload):\n    {code}\n")), Level.ERROR, "tells a workload apart"
    )


def test_batch_sizes_may_know_names(findings):
    sizes = "SIZES = {'ogbg': 512, 'wmt': 128}\n"
    by_table = "def get_batch_size(workload_name):\n    return SIZES[workload_name] if workload_name != 'wmt' else 1\n"
    assert worse(findings(source(head=sizes, get_batch_size=by_table))) == [NO_SPACE]
    leak = "def rate(name):\n    return SIZES[name]\n"
    found = findings(source(head=sizes + leak, get_batch_size=by_table))
    assert {f.line for f in found if f.level is Level.ERROR} == {1}


def test_text_that_mentions_a_workload_is_no_branch(findings):
    head = '"""ogbg"""\nNOTE = "wmt"\nprint_me = lambda: print("ogbg")\n'
    assert worse(findings(source(head=head))) == [NO_SPACE]


def test_identifying_a_workload_by_its_facts(findings):
    head = "def f(workload):\n    return workload.num_train_examples == 350_343 or workload.step_hint > 10\n"
    assert only(findings(source(head=head)), Level.NOTE, "comparing workload.num_train_examples").line == 2


SPACE = {"rate": {"min": 0.1, "max": 1, "scaling": "log"}, "unused": {"feasible_points": [1]}}
READER = """
def update_params(workload, current_param_container, current_params_types, model_state, hyperparameters, batch,
                  loss_type, optimizer_state, eval_results, global_step, rng):
    if hasattr(hyperparameters, "grad_clip"):
        hyperparameters.grad_clip
    return hyperparameters.rate, hyperparameters.missing
"""


def test_search_space_against_what_is_read(findings):
    files = {"tuning_search_space.json": json.dumps(SPACE)}
    found = findings(source(update_params=READER), files=files)
    only(found, Level.OK, "2 hyperparameters, any number of different points")
    assert only(found, Level.NOTE, "hyperparameters.missing is read").line is not None
    only(found, Level.NOTE, "unused is in the search space, but no file")
    assert not [f for f in found if "grad_clip" in f.text]


@pytest.mark.parametrize(
    ("space", "level", "words"),
    [
        ({"a": {"feasible_points": [1, 2]}}, Level.NOTE, "too few for the official 3 studies of 5 trials"),
        ([{"a": 1}] * 4, Level.NOTE, "too few for the official"),
        ({"a": 3}, Level.ERROR, "a must be an object with feasible_points"),
    ],
)
def test_search_spaces(findings, space, level, words):
    only(findings(source(), files={"tuning_search_space.json": json.dumps(space)}), level, words)


def test_steps(findings):
    def fails(file, framework):
        raise SubmissionError("the loss is not a number")

    assert findings(source(), dry_step=lambda file, framework: "done")[-1].text == "done"
    failed = findings(source(), dry_step=fails)[-1]
    assert (failed.level, failed.text) == (Level.ERROR, "the loss is not a number")


def test_command(tmp_path):
    """Prints a table and ends with 2 on an error, 0 otherwise."""
    runner = CliRunner()
    good = runner.invoke(command, [str(STYLE / "momentum_torch"), "--no-step"])
    assert good.exit_code == 0 and "errors: 0, notes: 1" in good.output
    (tmp_path / "submission.py").write_text(source(head="x = [y for y in () if y == 'ogbg']\n"))
    bad = runner.invoke(command, [str(tmp_path), "--no-step"])
    assert bad.exit_code == 2 and "errors: 1" in bad.output


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_command_takes_steps(tmp_path, monkeypatch, framework):
    monkeypatch.setenv("TIMETRIAL_HOME", str(tmp_path))
    done = CliRunner().invoke(command, ["adamw", "--framework", framework])
    assert done.exit_code == 0, done.output
    assert "two steps on toy and a snapshot" in done.output


def test_command_reports_a_failing_step(tmp_path, monkeypatch):
    monkeypatch.setenv("TIMETRIAL_HOME", str(tmp_path))
    (tmp_path / "submission.py").write_text(
        source(
            update_params=f"def update_params({', '.join(PARAMETERS['update_params'])}):\n    return 1 / 0\n"
        )
    )
    failed = CliRunner().invoke(command, [str(tmp_path)])
    assert failed.exit_code == 2
    assert "ZeroDivisionError" in failed.output
