"""Several devices: two gloo ranks in torch, several simulated devices in JAX; the batch is split, the rest is equal."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Track

SPY = """
    import json
    from pathlib import Path

    def update_params(workload, current_param_container, current_params_types, model_state, hyperparameters,
                      batch, loss_type, optimizer_state, eval_results, global_step, rng):
        rank = os.environ.get("RANK", torch.distributed.get_rank())
        line = {"inputs": batch["inputs"].sum(dim=1).tolist(), "rng": rng.tolist(),
                "logger": workload.metrics_logger is not None, "params": sorted(workload.param_shapes)}
        with open(Path(__file__).parent / f"rank{rank}.jsonl", "a") as file:
            print(json.dumps(line), file=file)
        train(workload, current_param_container, batch, optimizer_state, rng)
        return optimizer_state, current_param_container, None
"""


def _lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_two_gloo_ranks_share_a_batch_and_end_together(track: Track) -> None:
    record = track.race(track.plan(SPY, ranks=2, max_steps=12, eval_period_sec=0.3, budget_sec=120.0))
    assert record.status == "completed" and record.steps == 12, record.reason
    assert record.batch_size == 64
    folder = track.folder / "submissions" / "racer"
    first, second = _lines(folder / "rank0.jsonl"), _lines(folder / "rank1.jsonl")
    assert len(first) == len(second) == 12

    (folder / "rank0.jsonl").unlink()
    alone = track.plan(SPY.replace("torch.distributed.get_rank()", "0"), max_steps=12, eval_period_sec=60.0)
    from dataclasses import replace

    directory = type(alone.directory)(path=track.folder / "alone")
    track.race(replace(alone, directory=directory))
    whole = _lines(folder / "rank0.jsonl")
    for one, other, all_of_it in zip(first, second, whole, strict=True):
        assert one["inputs"] + other["inputs"] == all_of_it["inputs"]  # type: ignore[operator]
        assert one["rng"] == other["rng"] == all_of_it["rng"]
        assert one["params"] == all_of_it["params"]  # names without the wrapper's prefix
    assert {line["logger"] for line in first} == {True} and {line["logger"] for line in second} == {False}


def test_a_rank_that_dies_ends_the_trial(track: Track) -> None:
    dies = """
        def update_params(workload, current_param_container, current_params_types, model_state, hyperparameters,
                          batch, loss_type, optimizer_state, eval_results, global_step, rng):
            if torch.distributed.get_rank() == 1 and global_step == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            train(workload, current_param_container, batch, optimizer_state, rng)
            return optimizer_state, current_param_container, None
    """
    record = track.race(track.plan(dies, ranks=2, max_steps=12))
    assert record.status == "crashed", record.reason


JAX_RACE = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from conftest import Track
from timetrial.engine.crew import ProcessCrew
if __name__ == "__main__":
    with ProcessCrew() as crew:
        track = Track(Path({folder!r}), Path({data!r}), crew)
        record = track.race(track.plan({extra!r}, framework="jax", max_steps=15, eval_period_sec=60.0,
                                       budget_sec=300.0))
        print(record.status, record.reason, track.observer.rows[-1]["validation/loss"])
"""
JAX_SPY = """
    inner = update_params

    def update_params(workload, current_param_container, current_params_types, model_state, hyperparameters,
                      batch, loss_type, optimizer_state, eval_results, global_step, rng):
        inputs = batch["inputs"]
        assert len(inputs.sharding.device_set) == DEVICES and inputs.shape[0] == 64
        assert {shard.data.shape[0] for shard in inputs.addressable_shards} == {64 // DEVICES}
        leaf = jax.tree.leaves(current_param_container)[0]
        assert leaf.sharding.is_fully_replicated and len(leaf.sharding.device_set) == DEVICES
        return inner(workload, current_param_container, current_params_types, model_state, hyperparameters,
                     batch, loss_type, optimizer_state, eval_results, global_step, rng)
"""


def test_jax_splits_the_batch_over_simulated_devices(tmp_path: Path, toy_data: Path) -> None:
    losses = []
    for devices in (1, 4):
        script = JAX_RACE.format(
            tests=str(Path(__file__).parent),
            folder=str(tmp_path / str(devices)),
            data=str(toy_data),
            extra=JAX_SPY.replace("DEVICES", str(devices)),
        )
        file = tmp_path / f"race{devices}.py"
        file.write_text(script)
        flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "JAX_PLATFORMS": "cpu"}
        done = subprocess.run(
            [sys.executable, str(file)],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, **flags},
        )
        status, *_, loss = done.stdout.split()
        assert status == "completed", done.stdout
        losses.append(float(loss))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
