"""What the clock costs and how near the truth it is: `python benchmarks/clock.py`.

Races small submissions on the toy workload, with the real processes, and prints one line per claim:

    step      a no-op submission: microseconds of the loop per step, in each framework
    pause     an evaluation of a ten-million-parameter model: milliseconds beyond writing, reading and judging
    sleeps    a submission that sleeps known times in each function: measured over slept
    flight    work left in flight (a JAX computation; a torch thread): charged over worked
    patched   a submission that patches every clock: charged over slept

The figures are ratios and per-step costs of one run each; the same lines go to benchmarks/results/clock.json.
"""

import itertools
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from conftest import Track  # noqa: E402

from timetrial.engine import provenance  # noqa: E402
from timetrial.engine.clock import utc_timestamp  # noqa: E402
from timetrial.engine.crew import ProcessCrew  # noqa: E402
from timetrial.engine.records import TrialRecord, read_ledger, write_json_atomic  # noqa: E402
from timetrial.workloads import WORKLOADS  # noqa: E402

NOTHING = """
    def update_params(workload, current_param_container, current_params_types, model_state, hyperparameters,
                      batch, loss_type, optimizer_state, eval_results, global_step, rng):
        return optimizer_state, current_param_container, model_state

    def data_selection(*arguments):
        return None
"""
# A sleep lasts a little longer than it was asked to; what it lasted is noted, so that the truth is known.
SLEEPS = """
    import json
    from pathlib import Path
    slept = {"select": 0, "update": 0, "prepare": 0}

    def sleep(sec, name):
        begun = time.monotonic_ns()
        time.sleep(sec)
        slept[name] += time.monotonic_ns() - begun

    def data_selection(workload, input_queue, *rest):
        sleep(0.05, "select")
        return None

    def update_params(workload, current_param_container, current_params_types, model_state, hyperparameters,
                      batch, loss_type, optimizer_state, eval_results, global_step, rng):
        sleep(0.15, "update")
        return optimizer_state, current_param_container, None

    def prepare_for_eval(workload, current_param_container, current_params_types, model_state,
                         hyperparameters, loss_type, optimizer_state, eval_results, global_step, rng):
        sleep(1.0, "prepare")
        Path(NOTE).write_text(json.dumps(slept))
        return optimizer_state, current_param_container, None
"""
PATCHED = """
    sleep = time.sleep
    for name in ("perf_counter", "perf_counter_ns", "time", "time_ns", "monotonic", "monotonic_ns"):
        setattr(time, name, lambda: 0)
    torch.cuda.synchronize = lambda *arguments: None

    def update_params(workload, current_param_container, current_params_types, model_state, hyperparameters,
                      batch, loss_type, optimizer_state, eval_results, global_step, rng):
        sleep(0.5)
        return optimizer_state, current_param_container, None
"""
THREAD = """
    from pathlib import Path

    def work():
        start, matrix = time.monotonic(), torch.ones(200, 200)
        while time.monotonic() - start < 5.0:
            matrix = torch.tanh(matrix @ matrix)
        Path(NOTE).write_text(str(time.monotonic() - start))

    def update_params(workload, current_param_container, current_params_types, model_state, hyperparameters,
                      batch, loss_type, optimizer_state, eval_results, global_step, rng):
        threading.Thread(target=work).start()
        return optimizer_state, current_param_container, None
"""
FLIGHT = """
    from pathlib import Path

    @jax.jit
    def long(x):
        def more(carry):
            return jnp.tanh(carry[0] @ carry[0]) * 0.5, carry[1] + 1
        return jax.lax.while_loop(lambda carry: carry[1] < 4000, more, (x, 0))[0]

    def update_params(workload, current_param_container, current_params_types, model_state, hyperparameters,
                      batch, loss_type, optimizer_state, eval_results, global_step, rng):
        begun = time.monotonic()
        result = long(jnp.ones((500, 500)))

        def wait():
            result.block_until_ready()
            Path(NOTE).write_text(str(time.monotonic() - begun))

        threading.Thread(target=wait).start()
        return optimizer_state, current_param_container, model_state
"""

Run = Callable[..., TrialRecord]


def step(run: Run, folder: Path) -> dict[str, float]:
    """Microseconds per step of a loop around nothing."""
    found = {}
    for framework in ("torch", "jax"):
        steps = 100_000
        record = run(NOTHING, framework=framework, max_steps=steps, eval_period_sec=1e6, budget_sec=1e6)
        spent = record.submission_ns - record.breakdown["drain"] - record.breakdown["prepare"]
        found[f"step, {framework}: loop (us; bar 30)"] = spent / steps / 1e3
    return found


def pause(run: Run, folder: Path) -> dict[str, float]:
    """Milliseconds of an evaluation pause that are neither writing nor reading nor judging; median and worst."""
    large = WORKLOADS["toy_large"]
    found = {}
    for framework in ("torch", "jax"):
        record = run(
            NOTHING, framework=framework, facts=large, max_steps=10**9, eval_period_sec=0.05, budget_sec=1.0
        )
        entries = read_ledger(folder / framework / "ledger.jsonl")
        ends = [b.t - a.t for a, b in itertools.pairwise(entries)]
        extra: list[float] = []
        current = 0.0
        for entry, length in zip(entries, ends, strict=False):
            if entry.account in ("snapshot", "evaluation", "logging"):
                current += length
            if "snapshot" in entry.note:
                current -= entry.note["snapshot"]["write_ns"]
            if "judge" in entry.note:
                current -= entry.note["judge"]["read_ns"] + entry.note["judge"]["judge_ns"]
            if entry.account == "submission":
                extra.append(current / 1e6)
                current = 0.0
        found[f"pause, {framework}: parameters (millions)"] = (record.parameters or 0) / 1e6
        found[f"pause, {framework}: beyond writing, reading, judging, median (ms; bar 30)"] = (
            statistics.median(extra[2:])
        )
        found[f"pause, {framework}: the same, worst of {len(extra[2:])} (ms)"] = max(extra[2:])
    return found


def sleeps(run: Run, folder: Path) -> dict[str, float]:
    """Measured over slept, whole and per function."""
    note = folder.with_suffix(".json")
    record = run(SLEEPS.replace("NOTE", repr(str(note))), max_steps=20, eval_period_sec=1e6, budget_sec=1e6)
    slept = json.loads(note.read_text())
    parts = record.breakdown
    return {
        "sleeps: submission time over slept (bar 1.005)": record.submission_ns / sum(slept.values()),
        "sleeps: data_selection over slept": parts["select"] / slept["select"],
        "sleeps: update_params over slept": (parts["update"] + parts["first_call"]) / slept["update"],
        "sleeps: prepare_for_eval over slept": parts["prepare"] / slept["prepare"],
    }


def flight(run: Run, folder: Path) -> dict[str, float]:
    """Charged over worked, for work that is still going on when `update_params` returns."""
    found = {}
    for framework, source in (("torch", THREAD), ("jax", FLIGHT)):
        note = folder / f"note-{framework}"
        record = run(
            source.replace("NOTE", repr(str(note))), framework=framework, max_steps=1, budget_sec=1e6
        )
        worked = float(note.read_text())
        what = "a thread's work" if framework == "torch" else "a computation not awaited"
        found[f"flight, {framework}: {what} (s)"] = worked
        found[f"flight, {framework}: charged over worked (bar 0.99)"] = record.submission_ns / 1e9 / worked
    return found


def patched(run: Run, folder: Path) -> dict[str, float]:
    """Charged over slept, with every clock of Python telling lies."""
    record = run(PATCHED, max_steps=6, eval_period_sec=1e6, budget_sec=1e6)
    return {"patched: submission time over the sleeps asked for": record.submission_ns / 1e9 / 3.0}


def run(track: Track, folder: Path, source: str, **changes: Any) -> TrialRecord:
    """One trial of a submission that does what `source` says; the program ends if it ends badly."""
    plan = track.plan(source, **changes)
    plan = replace(plan, directory=replace(plan.directory, path=folder / plan.framework))
    record = track.race(plan)
    if record.status not in ("completed", "budget"):
        sys.exit(f"{folder.name}: {record.status}, {record.reason}")
    return record


def main() -> None:
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name, ProcessCrew() as crew:
        data = Path(name) / "data"
        WORKLOADS["toy"].dataset.prepare(data, None)
        for claim in (step, pause, sleeps, flight, patched):
            folder = Path(name) / claim.__name__
            track = Track(folder, data, crew)

            for label, value in claim(partial(run, track, folder), folder).items():
                figures[label] = value
                print(f"{value:10.4f}  {label}", flush=True)
    target = ROOT / "benchmarks" / "results" / "clock.json"
    machine = {**provenance.hardware(), **provenance.versions()}
    machine |= {name: provenance.framework_version(name) for name in ("torch", "jax")}
    write_json_atomic(
        target,
        {
            "command": "python benchmarks/clock.py",
            "date": utc_timestamp(),
            "machine": machine,
            "figures": figures,
        },
    )
    print(json.dumps(machine))


if __name__ == "__main__":
    main()
