"""What the benchmarks share: a racer in this process, made ready on generated data."""

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from timetrial.engine.facts import Framework
from timetrial.engine.messages import PrepareRacer, RacerReady
from timetrial.engine.progress import Progress
from timetrial.engine.racer import Racer
from timetrial.workloads import WORKLOADS

NOTHING = """
    def get_batch_size(workload_name):
        return 1024

    def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
        return {}

    def update_params(workload, current_param_container, current_params_types, model_state, hyperparameters,
                      batch, loss_type, optimizer_state, eval_results, global_step, rng):
        return optimizer_state, current_param_container, model_state

    def data_selection(*arguments):
        return None
"""

MakeRacer = Callable[[str, Framework], Racer]


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy workload's data, made once."""
    folder = tmp_path_factory.mktemp("data")
    WORKLOADS["toy"].dataset.prepare(folder, None)
    return folder


@pytest.fixture
def make_racer(tmp_path: Path, toy_data: Path) -> MakeRacer:
    """(toy or toy_large, framework) -> a racer whose submission does nothing, ready to run."""

    def make(workload: str, framework: Framework) -> Racer:
        submission = tmp_path / "nothing.py"
        submission.write_text(textwrap.dedent(NOTHING))
        Progress(tmp_path / "progress", create=True).close()
        racer = Racer(WORKLOADS)
        answer = racer.handle(
            PrepareRacer(
                workload=workload,
                framework=framework,
                submission=str(submission),
                hyperparameters=None,
                trial_seed=0,
                data=str(toy_data),
                forbidden=[],
                compile_cache=str(tmp_path / "compiled"),
                compile=False,
                rank=0,
                ranks=1,
                rendezvous_port=0,
                progress=str(tmp_path / "progress"),
                max_allowed_runtime_sec=1e6,
                eval_period_time_sec=1e6,
                checkpoint=None,
            )
        )
        assert isinstance(answer, RacerReady), answer
        return racer

    return make
