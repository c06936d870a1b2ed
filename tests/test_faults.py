"""Things that go wrong: each ends in a status with its reason, and what was measured before is kept."""

import errno
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import Track

from timetrial.engine import books, referee
from timetrial.engine.crew import LocalCrew
from timetrial.engine.link import ProcessLink
from timetrial.engine.referee import Patience
from timetrial.kernels.used import uses
from timetrial.workloads import WORKLOADS

# Trains, and does `FAULT` at step 30; each step takes long enough that evaluations come before.
AT_STEP_30 = """
    def update_params(workload, current_param_container, current_params_types, model_state, hyperparameters,
                      batch, loss_type, optimizer_state, eval_results, global_step, rng):
        time.sleep(0.01)
        train(workload, current_param_container, batch, optimizer_state, rng)
        if global_step == 30:
            FAULT
        return optimizer_state, current_param_container, None
"""


@pytest.mark.parametrize(
    ("fault", "status", "reason"),
    [
        ("raise RuntimeError('no more')", "crashed", "RuntimeError: no more"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "crashed", "killed by SIGKILL"),
        ("__import__('ctypes').string_at(0)", "crashed", "killed by SIGSEGV"),
        ("raise SystemExit(3)", "crashed", "exit code 3"),
        ("time.sleep(600)", "hung", "step 31 did not end within 2 s"),
        ("current_param_container.hidden_0.weight.data[0, 0] = float('nan')", "diverged", "NaN or infinite"),
        ("current_param_container.extra = torch.nn.Linear(1, 1)", "void", "'extra.bias'"),
        ("open(next(iter(batch_folder()), ''))", "void", "evaluation data"),
    ],
    ids=["exception", "kill", "segfault", "exit", "hang", "nan", "foreign tensor", "peeking"],
)
def test_a_fault_in_the_racer(track: Track, fault: str, status: str, reason: str) -> None:
    peek = f"""
    def batch_folder():
        return [r"{track.plan().data / "evaluation" / "clusters" / "manifest.json"}"]
    """
    first = next(iter(_parameter_names()))
    source = AT_STEP_30.replace("FAULT", fault.replace("hidden_0.weight", first)) + peek
    plan = track.plan(source, eval_period_sec=0.1)
    record = track.race(plan, patience=Patience(step_sec=2.0))
    assert record.status == status, record.reason
    assert reason in record.reason
    kept = plan.directory.evaluations.read_text().splitlines()[1:]
    assert len(kept) == record.evaluations >= 1
    assert sum(record.accounts.values()) == record.wall_ns
    assert record.submission_ns > 0.3e9  # thirty steps of 10 ms were charged


def _parameter_names() -> list[str]:
    facts = WORKLOADS["toy"]
    return list(facts.programs["torch"](facts.model).parameter_types)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise ImportError('nothing here')", "nothing here"),
        ("def init_optimizer_state(*a): raise MemoryError", "MemoryError"),
        ("def get_batch_size(workload_name): raise ValueError(workload_name)", "get_batch_size refuses"),
        ("import no_such_module", "no_such_module, which is not installed"),
    ],
)
def test_a_submission_that_cannot_be_set_up(track: Track, source: str, reason: str) -> None:
    with LocalCrew(WORKLOADS, uses) as local:
        track.crew = local
        record = track.race(track.plan("\n" + source, in_process=True))
    assert record.status == "crashed" and reason in record.reason
    assert record.submission_ns == 0 and record.steps == 0


def test_a_racer_that_cannot_be_set_up(track: Track) -> None:
    """The same in a process of its own."""
    record = track.race(track.plan("\nraise ImportError('nothing here')"))
    assert record.status == "crashed" and "nothing here" in record.reason
    assert record.submission_ns == 0 and record.steps == 0


def test_setting_up_has_a_limit(track: Track) -> None:
    slow = """
        def init_optimizer_state(*arguments):
            time.sleep(600)
    """
    track.crew.judge(track.plan(), 60.0)
    record = track.race(track.plan(slow), patience=Patience(setup_sec=8.0))
    assert record.status == "hung" and "setting up took longer than 8 s" in record.reason


def test_nothing_of_the_racer_runs_while_it_is_judged(track: Track) -> None:
    """Threads, children, and children that left the session: all stand still, and end with the racer."""
    ticking = """
        import subprocess, sys
        tick = "import time, sys\\nwhile True:\\n open(sys.argv[1], 'a').write('x')\\n time.sleep(0.005)"
        here = os.path.dirname(__file__)

        def beat():
            while True:
                open(here + "/thread", "a").write("x")
                time.sleep(0.005)

        def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
            threading.Thread(target=beat, daemon=True).start()
            for name, session in (("child", False), ("escaped", True)):
                subprocess.Popen([sys.executable, "-c", tick, here + "/" + name], start_new_session=session)
            time.sleep(0.5)
            return {"optimizer": Momentum(model_params.parameters())}
    """
    plan = track.plan(ticking, max_steps=2, eval_period_sec=60.0)
    clocks = [plan.submission_path.parent / name for name in ("thread", "child", "escaped")]
    ask = referee.Referee._ask_judge
    ticks: list[list[int]] = []

    def slow_ask(self: Any, snapshot: Path) -> Any:
        ticks.append([clock.stat().st_size for clock in clocks])
        time.sleep(0.5)
        ticks.append([clock.stat().st_size for clock in clocks])
        return ask(self, snapshot)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(referee.Referee, "_ask_judge", slow_ask)
        record = track.race(plan)
    assert record.status == "completed", record.reason
    assert ticks[0] == ticks[1] and min(ticks[0]) > 0
    at_the_end = [clock.stat().st_size for clock in clocks]
    time.sleep(0.2)
    assert [clock.stat().st_size for clock in clocks] == at_the_end


def _kill_judge_when_judging(track: Track, times: int) -> None:
    left = [times]

    def strike(what: str, value: Any) -> None:
        judge = track.crew._judge
        if what == "account" and value == "evaluation" and left[0] and isinstance(judge, ProcessLink):
            left[0] -= 1
            os.kill(judge.pid, signal.SIGKILL)
            judge._process.wait()

    track.observer.when = strike


def test_a_judge_that_dies_is_replaced_and_the_trial_goes_on(track: Track) -> None:
    _kill_judge_when_judging(track, 1)
    record = track.race(track.plan(max_steps=12, eval_period_sec=30.0))
    assert record.status == "completed" and record.evaluations == 1
    assert any("judge was replaced" in flag and "SIGKILL" in flag for flag in record.flags)


def test_a_judge_that_keeps_dying_ends_the_trial_but_not_the_next(
    track: Track, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Any, snapshot: Path) -> Any:
        judge = track.crew._judge
        assert isinstance(judge, ProcessLink)
        os.kill(judge.pid, signal.SIGKILL)
        return original(self, snapshot)

    original = referee.Referee._ask_judge
    with monkeypatch.context() as patch:
        patch.setattr(referee.Referee, "_ask_judge", refuse)
        record = track.race(track.plan(max_steps=2))
    assert record.status == "crashed" and "the judge died twice" in record.reason
    assert record.steps == 2
    assert track.race(track.plan(max_steps=2), resume=True).status == "completed"


def test_a_full_disk_ends_the_trial_with_its_reason(track: Track, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, row: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(books, "append_evaluation", full)
    record = track.race(track.plan(max_steps=2))
    assert record.status == "crashed" and "No space left on device" in record.reason
    assert "eval_measurements.csv" in record.reason


def test_a_snapshot_that_does_not_fit_ends_the_trial(
    track: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real file system of 16 KiB; the toy's snapshot has about 20."""
    small = tmp_path / "small"
    small.mkdir()
    if os.system(f"mount -t tmpfs -o size=16k tmpfs {small} 2>/dev/null"):
        pytest.skip("this user may not mount a file system")
    try:
        with monkeypatch.context() as patch:
            patch.setattr(track.crew, "scratch", small)
            record = track.race(track.plan(max_steps=2))
    finally:
        os.system(f"umount {small}")
    assert record.status == "crashed" and "No space left" in record.reason
