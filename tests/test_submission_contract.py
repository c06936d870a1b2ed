"""What every shipped submission must do, and those written for AlgoPerf: train the toy workload."""

import functools
from pathlib import Path

import numpy as np
import pytest

from timetrial.engine.algoperf import names
from timetrial.engine.facts import Order
from timetrial.engine.search import as_hyperparameters, load_space, trial_points
from timetrial.engine.seeds import StepKeys, random_key, streams
from timetrial.engine.submission import load
from timetrial.engine.total import Total
from timetrial.engine.workload import ScalarLog
from timetrial.submissions import SUBMISSIONS
from timetrial.submissions.nadamw.self_tuning import HYPERPARAMETERS
from timetrial.workloads import WORKLOADS

TOY = WORKLOADS["toy"]
STYLE = Path(__file__).parent / "algoperf_style"
SEEDS = streams(11)
FRAMEWORKS = ("torch", "jax")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    TOY.dataset.prepare(folder, None)
    return folder


class Race:
    """The steps of a trial without referee and clock."""

    def __init__(self, path, framework, data, hyperparameters=None):
        self.submission = load(path, framework)
        self.framework, self.data, self.hyperparameters = framework, data, hyperparameters
        self.workload, self.place, self.log = workload_place_and_log(framework)
        self.log.take()
        self.params, self.state = self.workload.init_model_fn(random_key(SEEDS.model_init, framework))
        self.batch_size = TOY.batch_size(self.submission.batch_size(TOY.base, TOY.base))
        batches = TOY.dataset.training_batches(data, Order(batch_size=self.batch_size, seed=SEEDS.data))
        self.queue = (self.place(batch) for batch in batches)
        self.optimizer_state = self.submission.functions.init_optimizer_state(
            self.workload,
            self.params,
            self.state,
            hyperparameters,
            random_key(SEEDS.optimizer_init, framework),
        )
        self.keys = StepKeys(SEEDS.loop, framework)

    def step(self, global_step):
        functions = self.submission.functions
        select, update, _ = self.keys(global_step)
        batch = functions.data_selection(
            self.workload,
            self.queue,
            self.optimizer_state,
            self.params,
            self.state,
            self.hyperparameters,
            global_step,
            select,
        )
        extra = {"train_state": {}} if self.submission.wants_train_state else {}
        self.optimizer_state, self.params, self.state = functions.update_params(
            workload=self.workload,
            current_param_container=self.params,
            current_params_types=self.workload.model_params_types,
            model_state=self.state,
            hyperparameters=self.hyperparameters,
            batch=batch,
            loss_type=self.workload.loss_type,
            optimizer_state=self.optimizer_state,
            eval_results=[],
            global_step=global_step,
            rng=update,
            **extra,
        )

    def accuracy(self):
        total = Total()
        for batch in TOY.dataset.evaluation_batches(self.data, "validation", TOY.eval_batch_size):
            total.add(self.workload.score(self.params, self.state, self.place(batch)))
        return TOY.metrics(total.statistics(), self.data)["accuracy"]


@functools.cache  # JAX compiles initialisation and scoring once
def workload_place_and_log(framework):
    log = ScalarLog()
    if framework == "torch":
        import torch

        from timetrial.engine.workload_torch import TorchWorkload

        workload = TorchWorkload(TOY, device=torch.device("cpu"), metrics_logger=log)
        return workload, lambda batch: {key: torch.tensor(value) for key, value in batch.items()}, log
    from timetrial.engine.algoperf_jax import get_replicate_sharding, shard_along_batch_dim
    from timetrial.engine.workload_jax import JaxWorkload

    return (
        JaxWorkload(TOY, sharding=get_replicate_sharding(), metrics_logger=log),
        shard_along_batch_dim,
        log,
    )


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", SUBMISSIONS)
def test_a_shipped_submission_reaches_the_target_without_tuning(name, framework, data, monkeypatch):
    race = Race(SUBMISSIONS[name], framework, data)
    calls = []
    loss = race.workload.loss_fn
    monkeypatch.setattr(race.workload, "loss_fn", lambda *a, **k: calls.append(1) or loss(*a, **k))
    steps = TOY.budget_steps
    for step in range(steps):
        race.step(step)
    assert race.accuracy() >= TOY.validation_target
    assert len(calls) == (steps if framework == "torch" else 1), "JAX traces, and so compiles, a step once"
    rows = race.log.take()
    assert [step for step, _ in rows] == list(range(0, steps, 100))
    assert rows[0][1]["loss"] > rows[-1][1]["loss"] > 0
    assert all(np.isfinite(metrics["grad_norm"]) and metrics["grad_norm"] > 0 for _, metrics in rows)


@pytest.mark.parametrize("name", SUBMISSIONS)
def test_search_spaces_have_the_official_number_of_points(name):
    space = load_space(SUBMISSIONS[name] / "tuning_search_space.json")
    trials = trial_points(space, search="quasirandom", studies=3, trials=5, seed=0)
    assert [len(study) for study in trials] == [5, 5, 5]


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", SUBMISSIONS)
def test_every_hyperparameter_of_the_space_is_read(name, framework, data):
    """Renamed in one place only, a hyperparameter would silently have no effect."""
    space = load_space(SUBMISSIONS[name] / "tuning_search_space.json")
    point = trial_points(space, search="algoperf", studies=1, trials=1, seed=0)[0][0]
    read = set()

    class Recording:
        def __getattr__(self, key):
            if key not in point:
                raise AttributeError(key)
            read.add(key)
            return point[key]

    race = Race(SUBMISSIONS[name], framework, data, Recording())
    if framework == "torch":  # in JAX the step is made, with everything it reads, before the first one
        race.step(0)
    assert read == set(point)


def test_the_self_tuning_baseline_is_point_five():
    point = load_space(SUBMISSIONS["nadamw"] / "tuning_search_space.json").points[4]
    assert vars(HYPERPARAMETERS) == point


@pytest.mark.parametrize(("name", "framework"), [("momentum_torch", "torch"), ("signsgd_jax", "jax")])
def test_an_unmodified_algoperf_submission_trains(name, framework, data):
    space = STYLE / name / "tuning_search_space.json"
    point = load_space(space).points[0] if space.exists() else None
    with names(framework):
        race = Race(STYLE / name, framework, data, as_hyperparameters(point))
        before = race.accuracy()
        for step in range(101):
            race.step(step)
    assert race.accuracy() > max(0.7, before)
    assert [step for step, _ in race.log.take()] == ([0, 50, 100] if framework == "torch" else [0, 100])


FIVE_LINES = {
    "torch": """
import torch
from timetrial.submissions.adapters_torch import submission_from

get_batch_size, init_optimizer_state, update_params, data_selection = submission_from(
    lambda parameters, hyperparameters: torch.optim.RMSprop(parameters, lr=1e-3)
)
""",
    "jax": """
import optax
from timetrial.submissions.adapters_jax import submission_from

get_batch_size, init_optimizer_state, update_params, data_selection = submission_from(
    lambda hyperparameters, step_hint: optax.rmsprop(1e-3)
)
""",
}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_five_lines_are_a_submission(framework, data, tmp_path):
    import importlib

    adapters = importlib.import_module(f"timetrial.submissions.adapters_{framework}")
    lines = [line for line in FIVE_LINES[framework].splitlines() if line]
    assert all(line in adapters.submission_from.__doc__ for line in lines), (
        "the documented example is this one"
    )
    path = tmp_path / f"rmsprop_{framework}.py"
    path.write_text(FIVE_LINES[framework])
    race = Race(path, framework, data)
    assert race.submission.name == f"rmsprop_{framework}"
    for step in range(100):
        race.step(step)
    assert race.accuracy() > 0.7


def test_frameworks_agree_on_batch_sizes():
    for name in SUBMISSIONS:
        torch_one, jax_one = (load(SUBMISSIONS[name], framework) for framework in FRAMEWORKS)
        for base in ("criteo1tb", "fastmri", "imagenet_resnet", "ogbg", "wmt", "finewebedu_lm"):
            for variant in (base, f"{base}_silu", f"{base}_gelu"):
                assert torch_one.batch_size(variant, base) == jax_one.batch_size(variant, base)
