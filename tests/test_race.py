"""Whole races on the toy workload, with the three processes."""

import importlib.util
import json
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import Track

from timetrial.engine.crew import LocalCrew, ProcessCrew
from timetrial.engine.ledger import Account, totals_of
from timetrial.engine.records import LEDGER_END, TrialDirectory, TrialRecord, read_ledger, read_trial
from timetrial.engine.trial import TrialPlan
from timetrial.kernels.used import uses
from timetrial.workloads import WORKLOADS


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_a_submission_races_to_the_target(track: Track, framework: str) -> None:
    plan = track.plan(framework=framework, budget_sec=60.0, eval_period_sec=0.3)
    record = track.race(plan)
    assert record.status == "target", record.reason
    assert record.official and record.seed == 7
    assert sum(record.accounts.values()) == record.wall_ns
    assert sum(record.breakdown.values()) == record.submission_ns == record.accounts["submission"]
    assert record.batch_size == 64 and record.parameters == 4650

    rows = track.observer.rows
    assert rows[-1]["validation/accuracy"] >= plan.facts.validation_target
    assert all(row["validation/accuracy"] < plan.facts.validation_target for row in rows[:-1])
    assert rows[-1]["score"] * 1e9 == pytest.approx(record.submission_ns)

    written = plan.directory.evaluations.read_text().splitlines()
    header = written[0].split(",")
    assert header == sorted(header) and len(header) == 15  # AlgoPerf's columns of an accuracy workload
    assert len(written) == len(rows) + 1 == record.evaluations + 1
    assert read_trial(plan.directory.trial) == record


def test_the_budget_ends_a_trial_between_evaluations(track: Track) -> None:
    slow = """
        def data_selection(workload, input_queue, *rest):
            time.sleep(0.05)
            return next(input_queue)
    """
    record = track.race(track.plan(slow, budget_sec=0.4, eval_period_sec=10.0))
    assert record.status == "budget"
    assert record.evaluations == 0
    # One step more than the budget holds, at most: far from the evaluation period.
    assert 0.4e9 <= record.submission_ns < 5e9
    assert record.steps <= 8


def test_training_complete_gets_one_last_evaluation(track: Track) -> None:
    complete = """
        def update_params(workload, current_param_container, current_params_types, model_state, hyperparameters,
                          batch, loss_type, optimizer_state, eval_results, global_step, rng):
            if global_step == 4:
                raise spec.TrainingCompleteError
            return optimizer_state, current_param_container, None
    """
    record = track.race(track.plan(complete))
    assert (record.status, record.steps, record.evaluations) == ("completed", 5, 1)


SPY = """
        import json
        from pathlib import Path
        seen = {"steps": [], "rngs": [], "results": [], "lists": []}

        def update_params(workload, current_param_container, current_params_types, model_state, hyperparameters,
                          batch, loss_type, optimizer_state, eval_results, global_step, rng, train_state):
            seen["steps"].append(global_step)
            seen["rngs"].append([int(word) for word in rng])
            seen["lists"].append(id(eval_results))
            seen["results"] = [[step, sorted(metrics)] for step, metrics in eval_results]
            seen["shapes"] = {k: list(v.shape_tuple) for k, v in workload.param_shapes.items()}
            seen["types"] = {k: v.name for k, v in current_params_types.items()}
            seen["state"] = {k: type(v).__name__ for k, v in train_state.items()}
            seen["loss_type"] = loss_type.name
            seen["facts"] = [workload.step_hint, workload.max_allowed_runtime_sec, workload.eval_period_time_sec]
            try:
                train_state["training_complete"] = True
            except TypeError:
                seen["read_only"] = True
            workload.metrics_logger.append_scalar_metrics({"loss": 0.5}, global_step)
            if global_step == 11:
                Path(__file__).with_name("seen.json").write_text(json.dumps(seen))
            return optimizer_state, current_param_container, None
    """
SLOW_SELECTION = """
        def data_selection(workload, input_queue, *rest):
            time.sleep(0.04)
            return next(input_queue)
"""


class Told(NamedTuple):
    plan: TrialPlan
    record: TrialRecord
    rows: list[dict[str, float]]  # of the observer


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, toy_data: Path, crew: ProcessCrew) -> Told:
    """A race of twelve steps, evaluated every few of them, whose submission writes down what it is given."""
    track = Track(tmp_path_factory.mktemp("told"), toy_data, crew)
    plan = track.plan(SPY + SLOW_SELECTION, max_steps=12, eval_period_sec=0.2)
    record = track.race(plan)
    assert record.status == "completed", record.reason
    return Told(plan, record, track.observer.rows)


def test_what_a_submission_is_given(told: Told) -> None:
    """Arguments as AlgoPerf specifies them; test metrics are the one thing withheld."""
    plan = told.plan
    said = json.loads(plan.submission_path.with_name("seen.json").read_text())
    assert said["steps"] == list(range(12))
    assert len({tuple(rng) for rng in said["rngs"]}) == 12
    assert len(set(said["lists"])) == 1  # the same list object in every call
    assert said["results"] and said["results"][0][0] == told.rows[0]["global_step"]
    names = said["results"][0][1]
    assert "validation/accuracy" in names and "score" in names
    assert not any(name.startswith("test/") for name in names)
    assert said["shapes"].keys() == said["types"].keys()
    assert "BATCH_NORM_SCALE" in said["types"].values()
    assert said["read_only"] and said["loss_type"] == "SOFTMAX_CROSS_ENTROPY"
    assert said["state"] == {
        "validation_goal_reached": "bool",
        "test_goal_reached": "bool",
        "is_time_remaining": "bool",
        "training_complete": "bool",
        "last_eval_time": "float",
        "last_step_end_time": "float",
        "accumulated_submission_time": "float",
        "accumulated_eval_time": "float",
        "accumulated_logging_time": "float",
    }
    assert said["facts"] == [plan.facts.step_hint, plan.budget_sec, plan.eval_period_sec]
    logged = plan.directory.measurements.read_text().splitlines()
    assert logged[0].startswith("global_step,loss")
    assert sum(line.split(",")[1] == "0.5" for line in logged[1:]) == 12


def test_the_ledger_file_says_the_same_as_the_record(told: Told) -> None:
    entries = read_ledger(told.plan.directory.ledger)
    assert entries[-1].account == LEDGER_END
    spans = [(e.t, Account(e.account)) for e in entries if e.account != LEDGER_END]
    accounts = told.record.accounts
    assert totals_of(spans, entries[-1].t) == {Account(name): ns for name, ns in accounts.items()}
    noted = [entry.note["evaluation"]["global_step"] for entry in entries if "evaluation" in entry.note]
    assert noted == [row["global_step"] for row in told.rows] and len(noted) > 1
    assert told.record.steps == 12 == noted[-1]


def test_a_race_in_one_process_is_marked_unofficial(track: Track) -> None:
    plan = track.plan(max_steps=3, in_process=True)
    with LocalCrew(WORKLOADS, uses) as local:
        track.crew = local
        record = track.race(plan)
    assert record.status == "completed" and record.steps == 3 and record.evaluations == 1
    assert record.official is False
    assert (
        importlib.util.find_spec("algoperf") is None
    )  # AlgoPerf's names, which it may import, are gone again


@pytest.mark.slow
def test_a_compiled_model_trains_with_one_graph(track: Track) -> None:
    """On a CPU too, where it costs about a minute and is therefore off by default."""
    record = track.race(track.plan(compile=True, max_steps=30, budget_sec=900.0, eval_period_sec=900.0))
    assert record.status == "completed", record.reason
    assert record.compile["graphs"] == 1 and record.compile["seconds"] > 0
    assert record.compile["recompiles"] == 0 and record.compile["graph_breaks"] == 0


def test_equal_seeds_repeat_a_trial_and_others_do_not(track: Track) -> None:
    def losses(seed: int, where: str) -> list[float]:
        track.observer.rows.clear()
        directory = TrialDirectory(path=track.folder / where)
        track.race(track.plan(max_steps=5, eval_period_sec=30.0, seed=seed, directory=directory))
        return [row["validation/loss"] for row in track.observer.rows]

    first = losses(1, "a")
    assert losses(1, "b") == first
    assert losses(2, "c") != first
