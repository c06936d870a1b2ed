"""The self-tuning NAdamW baseline trained in JAX without a race, for `set_targets.py`."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

from timetrial.engine.device import Device, open_device
from timetrial.engine.facts import Order, WorkloadFacts
from timetrial.engine.seeds import StepKeys, random_key
from timetrial.engine.submission import load
from timetrial.engine.total import Total
from timetrial.submissions import SUBMISSIONS

_COMPILED = TemporaryDirectory()


@cache
def _device() -> Device:
    """One for all runs, so that they compile once."""
    return open_device("jax", compile_cache=_COMPILED.name)


def train(
    facts: WorkloadFacts, num_steps: int, seed: int, data: Path
) -> Iterator[tuple[int, float, float, float]]:
    """(step, seconds, validation, test) from half of the steps on, every evaluation period and at the end.

    Seconds of processor time, evaluations and compilation left out; the metric is the deciding one.
    """
    device = _device()
    workload = device.workload(facts)
    params, state = workload.init_model_fn(random_key(seed, "jax"))
    submission = load(SUBMISSIONS["nadamw"], "jax")
    step_of, keys = submission.functions.update_params, StepKeys(seed, "jax")
    optimizer = submission.functions.init_optimizer_state(
        workload, params, state, None, random_key(seed + 1, "jax")
    )
    order = Order(batch_size=facts.batch_size(submission.batch_size(facts.base, facts.base)), seed=seed)
    period = facts.eval_period_steps or num_steps
    seconds, started = 0.0, process_time()
    for step, arrays in zip(range(num_steps), facts.dataset.training_batches(data, order), strict=False):
        optimizer, params, state = step_of(
            workload=workload,
            current_param_container=params,
            current_params_types=workload.model_params_types,
            model_state=state,
            hyperparameters=None,
            batch=device.place(arrays),
            loss_type=workload.loss_type,
            optimizer_state=optimizer,
            eval_results=[],
            global_step=step,
            rng=keys(step)[1],
        )
        done = step + 1
        if done == 1:
            device.drain(optimizer, params, state)
            started = process_time()
        if done == num_steps or (done % period == 0 and 2 * done >= num_steps):
            device.drain(optimizer, params, state)
            seconds += process_time() - started
            values = []
            for split in ("validation", "test"):
                total = Total()
                for batch in facts.dataset.evaluation_batches(data, split, facts.eval_batch_size):
                    total.add(workload.score(params, state, device.place(batch)))
                values.append(facts.metrics(total.statistics(), data)[facts.metric.name])
            yield done, seconds, values[0], values[1]
            started = process_time()
