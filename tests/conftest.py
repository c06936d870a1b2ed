"""What several test files need: the toy workload's data, plans of trials, and small submissions to race."""

import os
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from timetrial.engine.crew import LocalCrew, ProcessCrew
from timetrial.engine.ledger import Account
from timetrial.engine.outcome import Status
from timetrial.engine.records import TrialDirectory, TrialRecord
from timetrial.engine.referee import Patience
from timetrial.engine.study import Entry, race
from timetrial.engine.trial import TrialPlan
from timetrial.workloads import WORKLOADS

# A machine that does something else too is slow, not wrong.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")


# Tests run beside each other on small tensors: threads of several processes would wait for each other, busy.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Most of what XLA compiles for tests runs once: it is compiled to be ready soon, not to run fast.
READY_SOON = ["--xla_backend_optimization_level=0"]
if metadata.version("jaxlib").startswith("0.10."):  # XLA ends a process that names an option it does not have
    READY_SOON += ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]
# What several tests compile need not be compiled twice: the process that starts the others says where it is kept.
COMPILED = pytest.StashKey[tempfile.TemporaryDirectory[str]]()


def pytest_configure(config: pytest.Config) -> None:
    if config.option.markexpr != "slow":  # models at full size take longer to run than to optimise
        os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *READY_SOON])
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        config.stash[COMPILED] = tempfile.TemporaryDirectory(prefix="timetrial-compiled-")
        os.environ["JAX_COMPILATION_CACHE_DIR"] = config.stash[COMPILED].name
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.05"


def pytest_unconfigure(config: pytest.Config) -> None:
    if COMPILED in config.stash:
        config.stash[COMPILED].cleanup()


@pytest.fixture(scope="module", autouse=True)
def _forget_compiled_functions() -> Iterator[None]:
    """What JAX compiled for one file is of no use to the next, and all of it together takes gigabytes."""
    yield
    if (jax := sys.modules.get("jax")) is not None:
        jax.clear_caches()


SUBMISSION = {
    "torch": """
        import os, signal, threading, time
        import torch
        from timetrial.engine import spec

        class Momentum:  # an optimizer of torch's own imports its compiler: seconds, for each racer
            def __init__(self, parameters):
                self.parameters = list(parameters)
                self.moments = [torch.zeros_like(parameter) for parameter in self.parameters]

            @torch.no_grad()
            def step(self):
                for parameter, moment in zip(self.parameters, self.moments, strict=True):
                    parameter -= 0.03 * moment.mul_(0.9).add_(parameter.grad)

            def zero_grad(self):
                for parameter in self.parameters:
                    parameter.grad = None

            def state_dict(self):
                return {"moments": self.moments}

            def load_state_dict(self, state):
                self.moments = list(state["moments"])

        def get_batch_size(workload_name):
            return 1024

        def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
            return {"optimizer": Momentum(model_params.parameters())}

        def train(workload, params, batch, optimizer_state, rng):
            logits, _ = workload.model_fn(params, batch, None, spec.ForwardPassMode.TRAIN, rng, True)
            loss = workload.loss_fn(batch["targets"], logits)
            optimizer_state["optimizer"].zero_grad()
            (loss["summed"] / loss["n_valid_examples"]).backward()
            optimizer_state["optimizer"].step()

        def update_params(workload, current_param_container, current_params_types, model_state, hyperparameters,
                          batch, loss_type, optimizer_state, eval_results, global_step, rng, train_state=None):
            train(workload, current_param_container, batch, optimizer_state, rng)
            return optimizer_state, current_param_container, None

        def data_selection(workload, input_queue, optimizer_state, current_param_container, model_state,
                           hyperparameters, global_step, rng):
            return next(input_queue)
    """,
    "jax": """
        import os, signal, threading, time
        import jax, jax.numpy as jnp, optax
        from timetrial.engine import spec

        optimizer = optax.adamw(3e-3)

        def get_batch_size(workload_name):
            return 1024

        def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
            @jax.jit
            def step(state, params, model_state, batch, rng):
                def loss(params):
                    logits, new = workload.model_fn(
                        params, batch, model_state, spec.ForwardPassMode.TRAIN, rng, True)
                    parts = workload.loss_fn(batch["targets"], logits)
                    return parts["summed"] / parts["n_valid_examples"], new
                gradient, new = jax.grad(loss, has_aux=True)(params)
                updates, state = optimizer.update(gradient, state, params)
                return state, optax.apply_updates(params, updates), new
            return optimizer.init(model_params), step

        def update_params(workload, current_param_container, current_params_types, model_state, hyperparameters,
                          batch, loss_type, optimizer_state, eval_results, global_step, rng, train_state=None):
            state, step = optimizer_state
            state, params, model_state = step(state, current_param_container, model_state, batch, rng)
            return (state, step), params, model_state

        def data_selection(workload, input_queue, optimizer_state, current_param_container, model_state,
                           hyperparameters, global_step, rng):
            return next(input_queue)
    """,
}


class Silence:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.when: Callable[[str, Any], None] = lambda what, value: None

    def account_entered(self, plan: TrialPlan, account: Account) -> None:
        self.when("account", account)

    def step_counted(self, plan: TrialPlan, step: int, submission_ns: int) -> None:
        self.when("step", step)

    def evaluated(self, plan: TrialPlan, row: dict[str, float]) -> None:
        self.rows.append(row)
        self.when("evaluated", row)

    def ended(self, plan: TrialPlan, status: Status) -> None:
        self.when("ended", status)


class Track:
    """Races submissions on the toy workload in `folder`."""

    def __init__(self, folder: Path, data: Path, crew: ProcessCrew) -> None:
        self.folder = folder
        self.crew: ProcessCrew | LocalCrew = crew
        self.observer = Silence()
        self._data = data

    def submission(self, extra: str = "", framework: str = "torch", name: str = "racer") -> Path:
        """A submission that trains the toy workload; `extra` source replaces or adds functions."""
        file = self.folder / "submissions" / name / "submission.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(SUBMISSION[framework]) + textwrap.dedent(extra))
        return file

    def plan(self, extra: str = "", framework: Any = "torch", **changes: Any) -> TrialPlan:
        """A trial of 20 s at most, judged every half second unless `changes` say otherwise."""
        file = self.submission(extra, framework)
        directory = TrialDirectory.below(
            self.folder / "out", submission="racer", study=0, workload="toy", framework=framework, trial=1
        )
        plan = TrialPlan(
            facts=WORKLOADS["toy"],
            framework=framework,
            submission="racer",
            submission_path=file,
            ruleset="self",
            study=0,
            trial=1,
            seed=7,
            hyperparameters=None,
            budget_sec=20.0,
            eval_period_sec=0.5,
            max_steps=None,
            compile=False,
            data=self._data,
            caches=self.folder / "caches",
            directory=directory,
        )
        return replace(plan, **changes)

    def race(self, plan: TrialPlan, *, resume: bool = False, patience: Patience | None = None) -> TrialRecord:
        """One trial, to its end."""
        entry = Entry(engine_folder=Path(__file__).parents[1] / "engine", resume=resume)
        (record,) = race([plan], self.crew, self.observer, patience or Patience(), entry)
        return record


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy workload's data, made once."""
    folder = tmp_path_factory.mktemp("data")
    WORKLOADS["toy"].dataset.prepare(folder, None)
    return folder


@pytest.fixture(scope="session")
def crew() -> Iterator[ProcessCrew]:
    """One crew for all races, so that a judge is kept between them."""
    with ProcessCrew() as crew:
        yield crew


@pytest.fixture
def track(tmp_path: Path, toy_data: Path, crew: ProcessCrew) -> Track:
    """A place to race."""
    return Track(tmp_path, toy_data, crew)
