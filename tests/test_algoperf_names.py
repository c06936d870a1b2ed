"""AlgoPerf's module names stand for ours while a submission is loaded, and for nothing afterwards."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from timetrial.engine import algoperf, spec
from timetrial.engine.submission import load

STYLE = Path(__file__).parent / "algoperf_style"


def test_names_are_ours_and_gone_afterwards():
    with algoperf.names("torch"):
        theirs = importlib.import_module("algoperf.spec")
        older = importlib.import_module("algorithmic_efficiency.spec")
        assert theirs.ForwardPassMode is older.ForwardPassMode is spec.ForwardPassMode
        with algoperf.names("torch"):
            assert importlib.import_module("algoperf.spec").Workload is spec.Workload
        assert sys.modules["algoperf.spec"] is theirs
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("algoperf")


def test_names_may_hold_for_the_rest_of_a_process():
    command = (
        "import gc; from timetrial.engine import algoperf; algoperf.names('jax').__enter__(); gc.collect()\n"
        "from algoperf import spec; print(spec.LossType.CTC_LOSS.name)"
    )
    printed = subprocess.run([sys.executable, "-c", command], check=True, capture_output=True, text=True)
    assert printed.stdout == "CTC_LOSS\n"


def test_every_public_name_of_the_specification():
    with algoperf.names("torch"):
        theirs = vars(importlib.import_module("algoperf.spec"))
    public = {name for name in vars(spec) if not name.startswith("_")}
    assert public <= set(theirs)
    assert theirs["__name__"] == "algoperf.spec"


def test_ours_win_over_an_installed_package(tmp_path, monkeypatch):
    package = tmp_path / "algoperf"
    package.mkdir()
    (package / "__init__.py").write_text("INSTALLED = True\n")
    (package / "spec.py").write_text("INSTALLED = True\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    installed = importlib.import_module("algoperf.spec")
    try:
        with algoperf.names("jax"):
            assert not hasattr(importlib.import_module("algoperf.spec"), "INSTALLED")
        assert importlib.import_module("algoperf.spec") is installed
    finally:
        sys.modules.pop("algoperf.spec")
        sys.modules.pop("algoperf")


@pytest.mark.parametrize(
    ("framework", "other", "submission"),
    [("torch", "jax", "momentum_torch"), ("jax", "torch", "signsgd_jax")],
)
def test_a_submission_imports_only_its_framework(framework, other, submission):
    command = (
        f"import sys; sys.modules[{other!r}] = None\n"
        f"from timetrial.engine.submission import load\n"
        f"loaded = load({str(STYLE / submission)!r}, {framework!r})\n"
        f"print(loaded.name, loaded.wants_train_state, 'algoperf' in sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", command], check=True, capture_output=True, text=True)
    assert printed.stdout.split() == [submission, "True", "False"]


def test_an_absent_framework_module_is_not_found():
    with algoperf.names("torch"), pytest.raises(ModuleNotFoundError):
        importlib.import_module("algoperf.jax_sharding_utils")


def test_batch_size_of_a_loaded_submission():
    submission = load(STYLE / "momentum_torch", "torch")
    assert submission.batch_size("imagenet_resnet_silu", "imagenet_resnet") == 1024


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (False, 0, 1)),
        ({"LOCAL_RANK": "0", "WORLD_SIZE": "1"}, (False, 0, 1)),
        ({"LOCAL_RANK": "1", "RANK": "1", "WORLD_SIZE": "2"}, (True, 1, 2)),
    ],
)
def test_pytorch_setup_reads_torchruns_variables(monkeypatch, variables, expected):
    torch = pytest.importorskip("torch")
    from timetrial.engine.algoperf_torch import pytorch_setup

    for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setitem(os.environ, name, value)
    distributed, rank, device, devices = pytorch_setup()
    assert (distributed, rank, devices) == expected
    assert device.type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_batch_norm_statistics_stop_and_restart():
    torch = pytest.importorskip("torch")
    from timetrial.engine.algoperf_torch import update_batch_norm_fn

    layer = torch.nn.BatchNorm1d(2, momentum=0.3)
    for update, momentum in ((True, 0.3), (False, 0.0), (False, 0.0), (True, 0.3), (True, 0.3)):
        update_batch_norm_fn(layer, update)
        assert layer.momentum == momentum


def test_torch_random_utils_are_stable_and_distinct():
    pytest.importorskip("torch")
    with algoperf.names("torch"):
        random_utils = importlib.import_module("algoperf.random_utils")
    key = random_utils.PRNGKey(3)
    rows = [key, *random_utils.split(key, 4), *(random_utils.fold_in(key, i) for i in range(4))]
    assert len({tuple(row) for row in rows}) == 9
    assert all(row.dtype == np.int32 and row.shape == (2,) and (row >= 0).all() for row in rows)
    np.testing.assert_array_equal(random_utils.fold_in(key, np.int64(2)), random_utils.fold_in(key, 2))


def test_jax_shardings():
    jax = pytest.importorskip("jax")
    with algoperf.names("jax"):
        sharding = importlib.import_module("algoperf.jax_sharding_utils")
        random_utils = importlib.import_module("algorithmic_efficiency.random_utils")
    tree = {"a": np.arange(8.0, dtype=np.float32)}
    whole, split = sharding.replicate(tree)["a"], sharding.shard_along_batch_dim(tree)["a"]
    assert whole.sharding == sharding.get_replicate_sharding()
    assert split.sharding == sharding.get_batch_dim_sharding()
    assert sharding.get_mesh().axis_names == ("batch",)
    np.testing.assert_array_equal(random_utils.PRNGKey(1), jax.random.PRNGKey(1))
