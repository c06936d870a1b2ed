"""A race: submissions' trials, one after the other, each recorded whether it ends well or not."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from timetrial.engine import provenance
from timetrial.engine.books import Observer
from timetrial.engine.clock import seconds, utc_timestamp
from timetrial.engine.errors import RecordError, UsageError
from timetrial.engine.ledger import Account
from timetrial.engine.outcome import BROKEN, Status
from timetrial.engine.records import TrialRecord, read_json_object, read_trial, write_json_atomic
from timetrial.engine.referee import Crew, Patience, Referee, Result
from timetrial.engine.trial import Sitting, TrialPlan, earlier_sitting

Existing = Literal["absent", "finished", "broken"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What a race adds to its plans for the records."""

    engine_folder: Path  # the source whose hash is recorded
    resume: bool


def state_of(plan: TrialPlan) -> Existing:
    """Whether the trial's folder holds nothing, a finished trial, or one that was broken off."""
    directory = plan.directory
    if directory.trial.exists():
        return "broken" if Status(read_trial(directory.trial).status) in BROKEN else "finished"
    return "broken" if directory.ledger.exists() else "absent"


def require_free(plans: Sequence[TrialPlan], *, resume: bool) -> None:
    """UsageError if a trial has records already and is not to be resumed, or was begun as another trial."""
    for plan in plans:
        if not resume and state_of(plan) != "absent":
            raise UsageError(
                f"{plan.directory.path} holds a trial already: continue it with --resume, or choose another --out"
            )
        if resume and plan.directory.meta_data.exists():
            _require_same(plan, read_json_object(plan.directory.meta_data))


def _require_same(plan: TrialPlan, recorded: Mapping[str, Any]) -> None:
    """A trial goes on as what it was begun as, or not at all."""
    for name, value in _identity(plan).items():
        if recorded.get(name) != value:
            raise UsageError(
                f"{plan.directory.path} was begun with {name} {recorded.get(name)!r}, not {value!r}: "
                "resume it as it was begun, or choose another --out"
            )


def _identity(plan: TrialPlan) -> dict[str, Any]:
    """What must not change between the sittings of a trial."""
    return {
        "rng_seed": plan.seed,
        "run.ruleset": plan.ruleset,
        "run.hyperparameters": plan.hyperparameters,
        "run.max_steps": plan.max_steps,
        "run.submission_sha256": provenance.source_hash([plan.submission_path.parent]),
    }


def race(
    plans: Sequence[TrialPlan], crew: Crew, observer: Observer, patience: Patience, entry: Entry
) -> list[TrialRecord]:
    """Race all trials that are not finished; a trial that ends badly does not touch the others.

    OSError if a trial's end cannot be recorded (a full disk): what was written before stays readable.
    """
    return [_race_one(plan, crew, observer, patience, entry) for plan in plans]


def _race_one(
    plan: TrialPlan, crew: Crew, observer: Observer, patience: Patience, entry: Entry
) -> TrialRecord:
    directory = plan.directory
    if entry.resume and state_of(plan) == "finished":
        return read_trial(directory.trial)
    if directory.meta_data.exists():  # its limits stay what they were, whatever the machine's pace is now
        begun = read_json_object(directory.meta_data)
        plan = replace(
            plan,
            budget_sec=begun["workload.max_allowed_runtime_sec"],
            eval_period_sec=begun["workload.eval_period_time_sec"],
        )
    sitting = _sitting(plan) if entry.resume else Sitting()
    directory.path.mkdir(parents=True, exist_ok=True)
    directory.trial.unlink(missing_ok=True)
    if plan.hyperparameters is not None:
        write_json_atomic(directory.hyperparameters, plan.hyperparameters)
    if not directory.meta_data.exists():
        write_json_atomic(directory.meta_data, _meta_data(plan))
    result = Referee(plan, crew, observer, patience, sitting).race()
    record = _record(plan, result, sitting, entry)
    write_json_atomic(directory.trial, record)
    if Status(record.status) not in BROKEN:
        shutil.rmtree(directory.path / "compiled", ignore_errors=True)
    return record


def _sitting(plan: TrialPlan) -> Sitting:
    """What can be continued; a trial whose ledger is damaged is reported, never quietly begun anew."""
    try:
        return earlier_sitting(plan)
    except RecordError as error:
        raise RecordError(f"{plan.directory.path} cannot be resumed: {error}") from error


def _record(plan: TrialPlan, result: Result, sitting: Sitting, entry: Entry) -> TrialRecord:
    ready = result.ready
    return TrialRecord(
        status=result.status,
        reason=result.reason,
        submission=plan.submission,
        workload=plan.facts.name,
        framework=plan.framework,
        ruleset=plan.ruleset,
        study=plan.study,
        trial=plan.trial,
        seed=plan.seed,
        official=not plan.in_process,
        flags=result.flags,
        submission_ns=result.accounts[Account.SUBMISSION],
        wall_ns=sum(result.accounts.values()),
        accounts=result.accounts,
        breakdown=result.breakdown,
        lost_ns=sitting.lost_ns,
        steps=result.state.step,
        evaluations=result.evaluations,
        batch_size=None if ready is None else ready.batch_size,
        parameters=None if ready is None else ready.parameters,
        step_hint=plan.facts.step_hint,
        budget_sec=plan.budget_sec,
        eval_period_sec=plan.eval_period_sec,
        compile={"policy": "on" if plan.compile else "off", **result.compile},
        kernels=result.kernels,
        hyperparameters=plan.hyperparameters,
        hardware={**provenance.hardware(), "device": None if ready is None else ready.device},
        versions={**provenance.versions(), **({} if ready is None else ready.versions)},
        hashes={
            "engine": provenance.source_hash([entry.engine_folder]),
            "submission": provenance.source_hash([plan.submission_path.parent]),
        },
        resumed=sitting.resumed,
    )


def _meta_data(plan: TrialPlan) -> dict[str, Any]:
    """AlgoPerf's `meta_data_0.json`: facts of the workload, of the machine and of the run."""
    facts = plan.facts
    hardware = provenance.hardware()
    return {
        "workload.name": facts.name,
        "workload.target_metric_name": facts.metric.name,
        "workload.metric_better": facts.metric.better,
        "workload.validation_target_value": facts.validation_target,
        "workload.test_target_value": facts.test_target,
        "workload.loss_type": facts.loss_type.name,
        "workload.num_train_examples": facts.num_train_examples,
        "workload.num_eval_train_examples": facts.num_eval_train_examples,
        "workload.num_validation_examples": facts.num_validation_examples,
        "workload.num_test_examples": facts.num_test_examples,
        "workload.eval_batch_size": facts.eval_batch_size,
        "workload.step_hint": facts.step_hint,
        "workload.max_allowed_runtime_sec": plan.budget_sec,
        "workload.eval_period_time_sec": plan.eval_period_sec,
        "workload.suite": facts.suite,
        "os_platform": hardware["platform"],
        "python_version": hardware["python"],
        "cpu_model_name": hardware["cpu"],
        "cpu_count": hardware["cpu_count"],
        "mem.total": hardware["memory_bytes"],
        "gpu_count": len(hardware["gpus"]),
        "gpu_model_name": ", ".join(sorted(set(hardware["gpus"]))),
        **_identity(plan),
        "begun": utc_timestamp(),
        **provenance.git_state(plan.submission_path.parent),
    }


def charged_seconds(record: TrialRecord) -> float:
    """The official time of a trial."""
    return seconds(record.submission_ns)
