"""Finding, importing and checking a submission: what works, and what each defect is called."""

import dataclasses
import sys
import textwrap
from pathlib import Path

import pytest

from timetrial.engine.errors import SubmissionError
from timetrial.engine.submission import PARAMETERS, find, load

STYLE = Path(__file__).parent / "algoperf_style"


def source(**replaced):
    """A submission's text; a function given as None is left out, one given as text replaces it."""
    parts = []
    for name, parameters in PARAMETERS.items():
        text = f"def {name}({', '.join(parameters)}):\n    return 64\n"
        if replaced.get(name, text) is not None:
            parts.append(replaced.get(name, text))
    return replaced.get("head", "") + "\n".join(parts)


@pytest.fixture(autouse=True)
def _search_path_is_put_back(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def write(tmp_path):
    def write(text, name="submission.py", folder="mine"):
        path = tmp_path / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    return write


def test_a_folder_a_file_and_a_frameworks_file(write):
    path = write(source())
    assert load(path.parent, "torch").path == load(path, "jax").path == path
    assert load(path, "torch").name == "mine"
    special = write(source(), "submission_jax.py")
    assert find(path.parent, "jax") == special
    assert find(path.parent, "torch") == path
    assert load(write(source(), "swift.py"), "torch").name == "swift"


def test_what_is_optional(write):
    update = "def update_params(*, train_state, **everything):\n    return train_state\n"
    submission = load(write(source(prepare_for_eval=None, update_params=update)), "torch")
    assert submission.functions.prepare_for_eval is None
    assert submission.wants_train_state
    assert submission.search_space is None
    assert not load(write(source(), folder="other"), "torch").wants_train_state
    with pytest.raises(dataclasses.FrozenInstanceError):
        submission.name = "x"


def test_search_space_beside_the_file():
    submission = load(STYLE / "momentum_torch", "torch")
    assert submission.search_space == submission.path.parent / "tuning_search_space.json"


def test_helpers_by_name_and_relatively(write):
    write("WIDTH = 3\n", "swift_helper.py")
    write("from ..swift_helper import WIDTH\nDEPTH = WIDTH + 1\n", "deep/inner.py")
    path = write(
        source(
            head="import swift_helper\nfrom . import swift_helper as same\nfrom .deep.inner import DEPTH\n"
        )
    )
    module = sys.modules[load(path, "torch").functions.update_params.__module__]
    assert (module.swift_helper.WIDTH, module.same.WIDTH, module.DEPTH) == (3, 3, 4)


def test_dotted_names_that_start_above_the_folder(write):
    """AlgoPerf's runner is started at the root of a checkout, so authors write the whole path."""
    folder = "checkout/entries_of_2026/self_tuning/swift"
    write("ORDER = 5\n", "rule.py", folder)
    path = write(source(head="from entries_of_2026.self_tuning.swift.rule import ORDER\n"), folder=folder)
    module = sys.modules[load(path, "torch").functions.update_params.__module__]
    assert module.ORDER == 5


def test_each_load_executes_the_file_again(write):
    path = write(source(head="calls = []\n"))
    first, second = (load(path, "torch").functions.update_params.__globals__ for _ in range(2))
    assert first["calls"] is not second["calls"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (source(update_params=None), "has no function update_params"),
        (source(data_selection="data_selection = 3\n"), "has no function data_selection"),
        (source(get_batch_size="def get_batch_size():\n    return 1\n"), "get_batch_size.. cannot be called"),
        (
            source(update_params="def update_params(workload, batch):\n    return 1\n"),
            "it is called by keyword with",
        ),
        (
            source(data_selection="def data_selection(workload, input_queue):\n    return 1\n"),
            "it is called by position with",
        ),
        ("def update_params(:\n", "line 1 is not valid Python"),
        (source(head="import not_a_module_at_all\n"), "not_a_module_at_all, which is not installed"),
        (source(head="from math import not_there\n"), "imports a name that does not exist"),
        (
            source(head="import algoperf.workloads.mnist\n"),
            "may import algoperf.spec, algoperf.pytorch_utils",
        ),
    ],
)
def test_defects_are_named(write, text, sentence):
    with pytest.raises(SubmissionError, match=sentence):
        load(write(text), "torch")


def test_a_helper_with_a_taken_name_is_refused(write):
    """`import types` would silently be the standard library's module."""
    write("MINE = True\n", "types.py")
    with pytest.raises(SubmissionError, match=r"types\.py has the name of a module that is already loaded"):
        load(write(source(head="import types\n")), "torch")


def test_absent_paths(tmp_path):
    with pytest.raises(SubmissionError, match="has neither submission_jax"):
        load(tmp_path, "jax")
    with pytest.raises(SubmissionError, match="neither a folder nor a Python file"):
        load(tmp_path / "nothing", "jax")


def test_errors_of_the_author_come_with_their_traceback(write):
    before = {name for name in sys.modules if name.endswith(".submission")}
    with pytest.raises(ZeroDivisionError):
        load(write("1 / 0\n"), "torch")
    assert {name for name in sys.modules if name.endswith(".submission")} == before


SIZES = """
def get_batch_size(workload_name):
    if workload_name == "imagenet_resnet":
        return 1024
    if workload_name == "imagenet_resnet_silu":
        return 512
    if workload_name == "wmt":
        return "many"
    raise ValueError(workload_name)
"""


def test_batch_size_falls_back_to_the_base_workload(write):
    submission = load(write(source(get_batch_size=SIZES)), "torch")
    assert submission.batch_size("imagenet_resnet_silu", "imagenet_resnet") == 512
    assert submission.batch_size("imagenet_resnet_gelu", "imagenet_resnet") == 1024
    with pytest.raises(SubmissionError, match="refuses 'ogbg_gelu' and its base 'ogbg'"):
        submission.batch_size("ogbg_gelu", "ogbg")
    with pytest.raises(SubmissionError, match="returned 'many', not a positive integer"):
        submission.batch_size("wmt", "wmt")
