"""What every registered workload keeps: its page, its facts, its evaluation; and that the toy one trains."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from small_models import small
from workload_batches import random_batch

from timetrial.data_loading.batches import padded_batches
from timetrial.engine.facts import Order
from timetrial.engine.total import Total
from timetrial.submissions.batches import BATCH_SIZES
from timetrial.workloads import SUITES, WORKLOADS
from timetrial.workloads.metrics import accuracy_and_loss, perplexity_and_loss
from timetrial.workloads.models.conformer import Conformer
from timetrial.workloads.models.deepspeech import DeepSpeech
from timetrial.workloads.models.graph_network import GraphNetwork
from timetrial.workloads.models.transformer import Transformer

ROOT = Path(__file__).resolve().parents[1]
TOY = WORKLOADS["toy"]
SPLITS = ("eval_train", "validation", "test")
NO_DATA = Path("no-folder")  # these metrics read no tokenizer


def test_every_workload_is_named_once_and_in_one_suite():
    assert all(facts.name == name for name, facts in WORKLOADS.items())
    assert sorted(name for names in SUITES.values() for name in names) == sorted(WORKLOADS)


PAGES = {name: path for name in WORKLOADS if (path := ROOT / f"workloads/{name}.py").exists()}


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_workload_has_a_page_or_is_a_variant_on_one(name):
    page = max((page for page in PAGES if name == page or name.startswith(f"{page}_")), key=len)
    assert f'name="{name}"' in PAGES[page].read_text()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_short_and_says_what_a_reader_needs(name):
    page = PAGES[name].read_text()
    assert len(page.splitlines()) < 150
    docstring = page.split('"""')[1]
    assert docstring.startswith(f"{name}: ")
    for word in ("data", "model", "loss", "metric", "target", "budget", "source"):
        assert f"\n{word} " in docstring or f" {word}  " in docstring, word


@pytest.mark.parametrize("name", PAGES)
def test_the_page_states_the_number_of_parameters(name):
    assert f"{WORKLOADS[name].num_parameters:,} parameters" in PAGES[name].read_text()


@pytest.mark.parametrize("name", WORKLOADS)
def test_facts_are_consistent(name):
    facts = WORKLOADS[name]
    assert 1 <= facts.batch_size(BATCH_SIZES[facts.base]) <= facts.num_train_examples
    if facts.suite == "pocket":
        assert 0 < facts.eval_period_steps < facts.step_hint < facts.budget_steps
    else:
        assert 0 < facts.eval_period_time_sec < facts.max_allowed_runtime_sec
    assert facts.num_eval_train_examples <= facts.num_train_examples
    dataset = facts.dataset
    assert facts.summary and dataset.licence and (dataset.package or dataset.owner_files)
    assert dataset.package is None or dataset.disk_need(None) > 0


# Their tests, in `test_model_*.py`, know how speech, graphs and translations are padded.
PADDED_OTHERWISE = (Conformer, DeepSpeech, GraphNetwork, Transformer)


@pytest.mark.parametrize(
    "name", [n for n, f in WORKLOADS.items() if not isinstance(f.model, PADDED_OTHERWISE)]
)
def test_padding_changes_no_metric(name):
    facts = WORKLOADS[name]
    model = small(facts.model)
    program = facts.programs["torch"](model)
    module = program.module().eval()
    arrays = random_batch(model, 5)
    per_token = arrays["targets"].dtype == np.int32 and arrays["targets"].ndim > 1

    def metrics(batch_size):
        total = Total()
        for rows in padded_batches(arrays, batch_size, per_token=per_token):
            batch = {key: torch.from_numpy(array) for key, array in rows.items()}
            logits = program.logits(module, batch, dropout_rate=0.0)
            total.add({key: value.detach().numpy() for key, value in program.score(batch, logits).items()})
        return facts.metrics(total.statistics(), NO_DATA)

    exact = metrics(5)
    assert facts.metric.name in exact and "loss" in exact
    for batch_size in (2, 3, 8):
        assert metrics(batch_size) == pytest.approx(exact, rel=1e-5)


def test_accuracy_and_loss():
    assert accuracy_and_loss({"loss": 6.0, "correct": 3.0, "count": 4.0}, NO_DATA) == {
        "accuracy": 0.75,
        "loss": 1.5,
    }


def test_perplexity_and_loss():
    assert perplexity_and_loss({"loss": 0.0, "count": 2.0}, NO_DATA) == {"ppl": 1.0, "loss": 0.0}
    assert perplexity_and_loss({"loss": 4 * np.log(5), "count": 4.0}, NO_DATA)["ppl"] == pytest.approx(5)
    assert perplexity_and_loss({"loss": 1e6, "count": 1.0}, NO_DATA)["ppl"] == np.inf
    assert np.isnan(perplexity_and_loss({"loss": np.nan, "count": 1.0}, NO_DATA)["ppl"])


@pytest.fixture(scope="module")
def toy_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    TOY.dataset.prepare(folder, None)
    return folder


@pytest.mark.parametrize("split", SPLITS)
def test_declared_sizes_are_those_of_the_data(toy_folder, split):
    counted = sum(batch["weights"].sum() for batch in TOY.dataset.evaluation_batches(toy_folder, split, 64))
    assert counted == getattr(TOY, f"num_{split}_examples")


def toy_batches(folder):
    return TOY.dataset.training_batches(folder, Order(batch_size=TOY.batch_size(1024), seed=0))


def test_the_toy_workload_trains_to_its_target_in_torch(toy_folder):
    program = TOY.programs["torch"](TOY.model)
    torch.manual_seed(0)
    module = program.module().train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    for _, arrays in zip(range(100), toy_batches(toy_folder), strict=False):
        batch = {key: torch.from_numpy(array) for key, array in arrays.items()}
        loss = program.loss(batch["targets"], program.logits(module, batch, dropout_rate=0.1), None, 0.0)
        optimizer.zero_grad()
        (loss["summed"] / loss["n_valid_examples"]).backward()
        optimizer.step()
    module.eval().requires_grad_(False)

    def score(batch):
        batch = {key: torch.from_numpy(array) for key, array in batch.items()}
        return program.score(batch, program.logits(module, batch, dropout_rate=0.0))

    assert_reached(toy_folder, score)


def test_the_toy_workload_trains_to_its_target_in_jax(toy_folder):
    program = TOY.programs["jax"](TOY.model)
    key = np.array([0, 3], np.uint32)
    params, state = program.init(key)
    optimizer = optax.adamw(0.01)

    @jax.jit
    def step(params, state, optimizer_state, batch, rng):
        def mean_loss(params):
            logits, new_state = program.logits(
                params,
                state,
                batch,
                train=True,
                update_batch_norm=True,
                use_running_average_bn=False,
                rng=rng,
                dropout_rate=0.1,
            )
            loss = program.loss(batch["targets"], logits, None, 0.0)
            return loss["summed"] / loss["n_valid_examples"], new_state

        gradients, state_ = jax.grad(mean_loss, has_aux=True)(params)
        updates, optimizer_state = optimizer.update(gradients, optimizer_state, params)
        return optax.apply_updates(params, updates), state_, optimizer_state

    optimizer_state = optimizer.init(params)
    for i, batch in zip(range(100), toy_batches(toy_folder), strict=False):
        rng = jax.random.fold_in(jnp.asarray(key), i)
        params, state, optimizer_state = step(params, state, optimizer_state, batch, rng)

    @jax.jit
    def score(batch):
        logits, _ = program.logits(
            params,
            state,
            batch,
            train=False,
            update_batch_norm=False,
            use_running_average_bn=True,
            rng=key,
            dropout_rate=0.0,
        )
        return program.score(batch, logits)

    assert_reached(toy_folder, score)


def assert_reached(folder, score):
    for split, target in (("validation", TOY.validation_target), ("test", TOY.test_target)):
        total = Total()
        for batch in TOY.dataset.evaluation_batches(folder, split, TOY.eval_batch_size):
            total.add({key: np.asarray(value) for key, value in score(batch).items()})
        metrics = TOY.metrics(total.statistics(), folder)
        assert TOY.metric.reached(metrics["accuracy"], target), (split, metrics)
