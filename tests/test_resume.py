"""A trial that is broken off goes on from its checkpoint: nothing measured is lost, nothing spent is forgotten."""

import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from conftest import Track

from timetrial.engine import checkpoint
from timetrial.engine.crew import ProcessCrew
from timetrial.engine.errors import RecordError, UsageError
from timetrial.engine.records import TrialRecord, read_ledger
from timetrial.engine.study import require_free, state_of
from timetrial.engine.trial import TrialPlan

# Dies once at step 30; the second sitting finds the file and goes on. Each uses a kernel in a form of its own.
DIES_ONCE = """
    import pathlib
    from timetrial.kernels.used import note_form
    mark = pathlib.Path(__file__).parent / "died"
    logged = pathlib.Path(__file__).parent / "steps"

    def after(global_step):
        with open(logged, "a") as file:
            print(global_step, file=file)
        note_form("a_kernel", "there is a reason" if mark.exists() else None)
        time.sleep(0.01)
        if global_step == 30 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
"""
TORCH = """
    def update_params(workload, current_param_container, current_params_types, model_state, hyperparameters,
                      batch, loss_type, optimizer_state, eval_results, global_step, rng):
        train(workload, current_param_container, batch, optimizer_state, rng)
        after(global_step)
        return optimizer_state, current_param_container, None
"""
# With an optimizer of torch's own, whose state is nested and has numbers for keys.
TORCH_ADAMW = (
    TORCH
    + """
    def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
        return {"optimizer": torch.optim.AdamW(model_params.parameters(), lr=3e-3)}
"""
)
JAX = """
    inner = update_params

    def update_params(workload, current_param_container, current_params_types, model_state, hyperparameters,
                      batch, loss_type, optimizer_state, eval_results, global_step, rng):
        result = inner(workload, current_param_container, current_params_types, model_state, hyperparameters,
                       batch, loss_type, optimizer_state, eval_results, global_step, rng)
        after(global_step)
        return result
"""


def _steps(track: Track) -> list[int]:
    return [int(line) for line in (track.folder / "submissions" / "racer" / "steps").read_text().split()]


@pytest.mark.parametrize(("framework", "update"), [("torch", TORCH_ADAMW), ("jax", JAX)])
def test_a_killed_trial_goes_on_and_ends_as_if_it_had_not_been(
    track: Track, framework: str, update: str
) -> None:
    """With an evaluation after every step group, the resumed trial retraces the undisturbed one exactly."""
    plan = track.plan(
        DIES_ONCE + update, framework=framework, max_steps=40, eval_period_sec=0.15, budget_sec=90.0
    )
    first = track.race(plan)
    assert first.status == "crashed" and state_of(plan) == "broken"
    measured = plan.directory.evaluations.read_text()
    saved = max(int(p.name.split("_")[1].split(".")[0]) for p in plan.directory.path.glob("checkpoint_*"))

    second = track.race(plan, resume=True)
    assert second.status == "completed" and second.steps == 40 and second.resumed == 1
    assert plan.directory.evaluations.read_text().startswith(measured)
    steps = _steps(track)
    assert steps[:31] == list(range(31))
    assert steps[31:] == list(range(saved, 40))
    # The steps between the checkpoint and the death are charged twice, and the record shows it.
    assert second.lost_ns >= (30 - saved) * 0.01e9
    assert second.submission_ns >= first.submission_ns + (40 - saved) * 0.01e9
    assert sum(second.accounts.values()) == second.wall_ns
    assert sum(second.breakdown.values()) == second.submission_ns
    assert second.breakdown["broken_off"] >= (30 - saved) * 0.01e9
    assert first.kernels == {"a_kernel": ["fused"]}
    assert second.kernels == {"a_kernel": ["fused", "plain: there is a reason"]}
    entries = read_ledger(plan.directory.ledger)
    noted = [entry.note["kernels"] for entry in entries if "kernels" in entry.note]
    assert noted == [first.kernels, second.kernels]
    times = [entry.t for entry in entries]
    assert times == sorted(times)
    resumed_loss = track.observer.rows[-1]["validation/loss"]

    (track.folder / "submissions" / "racer" / "steps").unlink()
    whole = track.plan(
        DIES_ONCE + update,
        framework=framework,
        max_steps=40,
        eval_period_sec=0.15,
        budget_sec=90.0,
        directory=type(plan.directory)(path=track.folder / "whole"),
    )
    assert track.race(whole).status == "completed"
    # Same data order, random numbers, optimizer state and batch statistics: the same model, to the last bit.
    assert track.observer.rows[-1]["validation/loss"] == resumed_loss


class Broken(NamedTuple):
    folder: Path
    record: TrialRecord

    def copied(self, track: Track) -> TrialPlan:
        """The trial's plan, its submission and what it left, where `track` races."""
        shutil.copytree(self.folder, track.folder, dirs_exist_ok=True)
        return _dying(track)


def _dying(track: Track) -> TrialPlan:
    return track.plan(DIES_ONCE + TORCH, max_steps=40, eval_period_sec=0.1)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory, toy_data: Path, crew: ProcessCrew) -> Broken:
    """A trial that died at step 30."""
    track = Track(tmp_path_factory.mktemp("broken"), toy_data, crew)
    return Broken(track.folder, track.race(_dying(track)))


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(track: Track, broken: Broken) -> None:
    plan = broken.copied(track)
    older, newer = sorted(plan.directory.path.glob("checkpoint_*"), key=lambda p: int(p.stem.split("_")[1]))
    content = bytearray(newer.read_bytes())
    content[-100] ^= 0xFF
    newer.write_bytes(content)
    record = track.race(plan, resume=True)
    assert record.status == "completed" and record.steps == 40
    assert any("checkpoint damaged" in flag and newer.name in flag for flag in record.flags)
    assert _steps(track)[31] == int(older.stem.split("_")[1])


def test_without_any_checkpoint_a_trial_begins_again_and_all_of_it_is_lost(
    track: Track, broken: Broken
) -> None:
    plan = broken.copied(track)
    for path in plan.directory.path.glob("checkpoint_*"):
        path.write_bytes(b"not a checkpoint")
    record = track.race(plan, resume=True)
    assert record.status == "completed"
    assert record.lost_ns == broken.record.submission_ns
    assert _steps(track)[31] == 0


def test_state_that_cannot_be_saved_is_named_and_nothing_is_half_saved(track: Track) -> None:
    opaque = """
        def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
            return {"optimizer": Momentum(model_params.parameters()), "secret": object()}
    """
    plan = track.plan(opaque, max_steps=2)
    record = track.race(plan)
    assert record.status == "completed"
    assert any(
        "cannot be resumed" in flag and "optimizer_state.secret (a object)" in flag for flag in record.flags
    )


def test_a_finished_trial_is_kept_and_an_old_one_is_never_overwritten(track: Track) -> None:
    plan = track.plan(max_steps=2)
    record = track.race(plan)
    before = {path: path.read_bytes() for path in plan.directory.path.iterdir() if path.is_file()}
    assert track.race(plan, resume=True) == record
    assert {path: path.read_bytes() for path in plan.directory.path.iterdir() if path.is_file()} == before
    with pytest.raises(UsageError, match="continue it with --resume"):
        require_free([plan], resume=False)
    for change, name in [({"seed": 8}, "rng_seed 7, not 8"), ({"max_steps": 3}, "run.max_steps 2, not 3")]:
        with pytest.raises(UsageError, match=f"was begun with {name}"):
            require_free([track.plan(**{"max_steps": 2, **change})], resume=True)
    with pytest.raises(UsageError, match=r"run\.submission_sha256"):
        require_free([track.plan("# edited", max_steps=2)], resume=True)


class _Stateful:
    def __init__(self) -> None:
        self.value = {"a": 1, 2: [True, None, "x"], "t": (1.5, np.arange(3))}

    def state_dict(self) -> dict[object, object]:
        return self.value


def test_a_checkpoint_gives_back_what_it_was_given(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    trees = {"x": {"deep": [1, {"k": np.float32(2.5)}], "o": _Stateful()}, "empty": {}, "z": np.zeros((0, 4))}
    size, left_out = checkpoint.save(path, trees, checkpoint.numpy_to_bytes)
    assert left_out == [] and size == path.stat().st_size
    back = checkpoint.load(path, checkpoint.numpy_from_bytes)
    assert back["x"]["deep"][0] == 1 and back["x"]["deep"][1]["k"] == 2.5
    restored = back["x"]["o"]
    assert restored["a"] == 1 and restored[2] == [True, None, "x"]
    assert restored["t"][0] == 1.5 and np.array_equal(restored["t"][1], np.arange(3))
    assert back["empty"] == {} and back["z"].shape == (0, 4)


@pytest.mark.parametrize("position", [0, 8, 60, -1])
def test_any_damaged_byte_of_a_checkpoint_is_noticed(tmp_path: Path, position: int) -> None:
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, {"x": np.arange(100.0)}, checkpoint.numpy_to_bytes)
    content = bytearray(path.read_bytes())
    content[position] ^= 0x55
    path.write_bytes(content)
    with pytest.raises(RecordError):
        checkpoint.verify(path)
