"""The `algoperf` suite against AlgoPerf's own facts: targets, budgets, sizes, every parameter's name and shape.

`algoperf_workloads.json` was read off instantiated workloads of AlgoPerf v0.6 in JAX (Flax names, flattened). One
entry is not theirs: imagenet_vit_post_ln, which does not build there, is imagenet_vit without its last layer norm.
Entries without a `tree` (speech, graphs, text) are from its published tables: what their parameters are called is in
no table, and `test_model_*.py` have their numbers.
"""

import json
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest
import torch

from timetrial.engine.cli.workload_page import page
from timetrial.submissions.batches import BATCH_SIZES
from timetrial.workloads import SUITES, WORKLOADS

ROOT = Path(__file__).resolve().parents[1]
ALGOPERF = json.loads((ROOT / "tests/algoperf_workloads.json").read_text())
OURS = {"max_allowed_runtime_sec", "eval_period_time_sec", "step_hint", "num_train_examples"}
OURS |= {"num_eval_train_examples", "num_validation_examples", "num_test_examples", "eval_batch_size"}


def flat(tree):
    paths = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(entry.key for entry in path): leaf for path, leaf in paths}


def test_every_workload_of_the_file_is_registered():
    assert ALGOPERF["workloads"].keys() <= WORKLOADS.keys()
    raced = {name for name, facts in WORKLOADS.items() if facts.suite == "algoperf"}
    assert ALGOPERF["workloads"].keys() == raced


@pytest.mark.parametrize("name", ALGOPERF["workloads"])
def test_the_facts_are_algoperfs(name):
    theirs, facts = ALGOPERF["workloads"][name], WORKLOADS[name]
    assert {key: getattr(facts, key) for key in OURS} == {key: theirs[key] for key in OURS}
    assert facts.validation_target == pytest.approx(theirs["validation_target_value"], rel=1e-12)
    assert facts.test_target == (theirs["test_target_value"] and pytest.approx(theirs["test_target_value"]))
    assert facts.metric.name == theirs["target_metric_name"]
    assert facts.metric.better == ("lower" if facts.metric.name in ("loss", "wer", "ppl") else "higher")
    assert facts.loss_type.name == theirs["loss_type"]
    assert facts.base in BATCH_SIZES


@pytest.mark.parametrize("name", [n for n, facts in ALGOPERF["workloads"].items() if "tree" in facts])
def test_parameters_have_algoperfs_names_shapes_and_kinds_in_jax(name):
    theirs, facts = ALGOPERF["workloads"][name], WORKLOADS[name]
    program = facts.programs["jax"](facts.model)
    params, _ = jax.eval_shape(program.init, np.zeros(2, np.uint32))
    shapes = {path: list(leaf.shape) for path, leaf in flat(params).items()}
    assert shapes == ALGOPERF["trees"][theirs["tree"]]
    kinds = Counter(kind.name for kind in flat(program.parameter_types).values())
    assert kinds == Counter(theirs["types"])
    assert program.output_parameters <= params.keys()


@pytest.mark.parametrize("name", WORKLOADS)
def test_both_frameworks_have_the_stated_number_of_parameters(name):
    facts = WORKLOADS[name]
    with torch.device("meta"):
        module = facts.programs["torch"](facts.model).module()
    params, _ = jax.eval_shape(facts.programs["jax"](facts.model).init, np.zeros(2, np.uint32))
    assert sum(parameter.numel() for parameter in module.parameters()) == facts.num_parameters
    assert sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params)) == facts.num_parameters


def test_the_page_of_all_workloads_is_up_to_date():
    command = "timetrial list workloads --markdown > WORKLOADS.md"
    assert (ROOT / "WORKLOADS.md").read_text() == page(), f"make it anew: {command}"


def test_every_workload_is_in_one_suite_and_variants_share_their_base():
    assert set(SUITES) == {"algoperf", "variants", "development", "pocket", "test"}
    for name in SUITES["variants"]:
        facts = WORKLOADS[name]
        assert name.startswith(f"{facts.base}_") and facts.base in SUITES["algoperf"]
        assert facts.dataset is WORKLOADS[facts.base].dataset
    for name in SUITES["pocket"]:
        assert name == f"{WORKLOADS[name].base}_pocket"
