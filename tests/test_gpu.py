"""What only a GPU can show: `python -m pytest -m gpu tests/test_gpu.py`, set up from constraints/gpu.txt."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Track

from timetrial.engine import provenance

GPUS = provenance.gpu_names()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not GPUS, reason="no NVIDIA GPU and driver on this machine"),
]

# Half a minute of products at most, timed once while setting up; then left behind, with the usual escape patched.
TORCH_FLIGHT = """
    import json
    from pathlib import Path
    stream = torch.cuda.Stream()

    def work():
        matrix = torch.ones(8192, 8192, device="cuda") / 8192
        for _ in range(400):
            matrix = matrix @ matrix

    def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
        work()
        torch.cuda.synchronize()
        begun = time.monotonic()
        work()
        torch.cuda.synchronize()
        Path(NOTE).write_text(json.dumps(time.monotonic() - begun))
        torch.cuda.synchronize = lambda *arguments: None
        return {}

    def update_params(workload, current_param_container, current_params_types, model_state, hyperparameters,
                      batch, loss_type, optimizer_state, eval_results, global_step, rng):
        with torch.cuda.stream(stream):
            work()
        return optimizer_state, current_param_container, None
"""
JAX_FLIGHT = """
    import json
    from pathlib import Path

    @jax.jit
    def work(x):
        return jax.lax.fori_loop(0, 400, lambda _, x: x @ x, x)

    def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
        x = jnp.ones((8192, 8192)) / 8192
        work(x).block_until_ready()
        begun = time.monotonic()
        work(x).block_until_ready()
        Path(NOTE).write_text(json.dumps(time.monotonic() - begun))
        return x, None

    def update_params(workload, current_param_container, current_params_types, model_state, hyperparameters,
                      batch, loss_type, optimizer_state, eval_results, global_step, rng):
        work(optimizer_state[0])
        return optimizer_state, current_param_container, model_state
"""


@pytest.mark.parametrize(
    ("framework", "source"), [("torch", TORCH_FLIGHT), ("jax", JAX_FLIGHT)], ids=["torch", "jax"]
)
def test_kernels_left_in_flight_are_waited_for(
    track: Track, tmp_path: Path, framework: str, source: str
) -> None:
    note = tmp_path / "worked.json"
    plan = track.plan(
        source.replace("NOTE", repr(str(note))), framework=framework, max_steps=1, budget_sec=300.0
    )
    record = track.race(plan)
    assert record.status == "completed", record.reason
    # Half of it: what else a GPU does may have slowed the work that was timed.
    assert record.breakdown["drain"] >= 0.5e9 * json.loads(note.read_text())


def test_the_model_compiles_whole_and_reaches_the_target(track: Track) -> None:
    record = track.race(track.plan(compile=True, budget_sec=600.0, eval_period_sec=2.0))
    assert record.status == "target", record.reason
    assert record.hardware["device"] != "cpu"
    assert record.compile["policy"] == "on" and record.compile["graphs"] >= 1
    assert record.compile["graph_breaks"] == 0 and record.compile["recompiles"] == 0
    assert record.kernels["softmax_cross_entropy"][0] == "fused"


def test_a_race_launches_kernels_as_they_were_tuned_before(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-c", "from timetrial.engine.cli import main; main()"]
    environment = {**os.environ, "TIMETRIAL_HOME": str(tmp_path)}
    subprocess.run([*command, "tune", "softmax_cross_entropy"], env=environment, check=True)
    (kept,) = (tmp_path / "kernels").glob("*.json")
    options = json.loads(kept.read_text())["options"]
    toy = ["run", "nadamw", "--workload", "toy", "--framework", "torch", "--max-steps", "3"]
    subprocess.run([*command, *toy, "--out", str(tmp_path / "out")], env=environment, check=True)
    (trial,) = (tmp_path / "out").rglob("trial.json")
    noted = json.loads(trial.read_text())["kernels"]["softmax_cross_entropy"]
    for launch in ("forward", "backward"):
        option = options[f"softmax_cross_entropy.{launch}"]["4"]
        assert f"{launch}, 4 bytes: {' '.join(map(str, option))}" in noted


def test_jax_reaches_the_target(track: Track) -> None:
    record = track.race(track.plan(framework="jax", budget_sec=600.0, eval_period_sec=2.0))
    assert record.status == "target", record.reason
    assert record.hardware["device"] != "cpu"


@pytest.mark.skipif(len(GPUS) < 2, reason="fewer than two GPUs")
def test_ranks_train_over_nccl(track: Track) -> None:
    record = track.race(track.plan(ranks=len(GPUS), max_steps=20, budget_sec=600.0))
    assert record.status == "completed" and record.steps == 20, record.reason
