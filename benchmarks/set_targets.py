"""Set a pocket workload's targets by AlgoPerf's protocol at small scale (arXiv 2306.07179, section 4).

    python benchmarks/set_targets.py imagenet_resnet_pocket --data DATA

1. The self-tuning baseline trains with several seeds over step_hint steps. The validation target is what all of
   these runs have reached after 75 % of the steps; the test target is the worst test value that a run has when it
   first reaches the validation target. (AlgoPerf tunes per workload over 75 % of step_hint and takes the median
   run. Here the baseline has one setting for all workloads and small data, on which seeds differ more, and must be
   able to reach all targets with any seed.)
2. After how many of the budget's steps does each run reach the targets, and does a learning rate 30 times too
   low miss them, as it should?
3. The same for other algorithms and settings: what tuning is worth, and whether momentum SGD works.

Torch on the CPU, without a race; with --jax, that many runs of the baseline in JAX count too (for small data on which
the frameworks' different random numbers make unlike runs). Results go to benchmarks/results/targets_WORKLOAD.json.
"""

import json
import math
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import process_time
from typing import Any, Literal

import click
import torch

from timetrial.engine.device_torch import placed_batch
from timetrial.engine.facts import Order, Split, WorkloadFacts
from timetrial.engine.total import Total
from timetrial.engine.workload_torch import TorchWorkload
from timetrial.submissions.batches import BATCH_SIZES
from timetrial.submissions.training_torch import backward
from timetrial.workloads import WORKLOADS

RESULTS = Path(__file__).parent / "results"
TARGET_PERCENT = 75  # of step_hint
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One training algorithm with its hyperparameters."""

    algorithm: Literal["nadamw", "adamw", "nesterov"]
    learning_rate: float
    one_minus_beta1: float  # for nesterov: one minus the momentum
    beta2: float = 0.0
    weight_decay: float
    warmup_factor: float  # warm-up steps over all steps
    label_smoothing: float = 0.0
    dropout_rate: float = 0.1


# AlgoPerf's self-tuning baseline: one setting for all workloads.
BASELINE = Configuration(
    algorithm="nadamw",
    learning_rate=0.0017486387539278373,
    one_minus_beta1=0.06733926164,
    beta2=0.9955159689799007,
    weight_decay=0.08121616522670176,
    warmup_factor=0.02,
)
ADAMW = replace(BASELINE, algorithm="adamw", one_minus_beta1=0.1, beta2=0.999, warmup_factor=0.05)
NESTEROV = Configuration(
    algorithm="nesterov", learning_rate=0.1, one_minus_beta1=0.1, weight_decay=5e-4, warmup_factor=0.05
)
# What is compared with the baseline, per workload.
OTHERS = {
    "imagenet_resnet_pocket": (
        replace(BASELINE, learning_rate=0.005, warmup_factor=0.05),
        replace(ADAMW, learning_rate=0.003),
        NESTEROV,
    ),
    "finewebedu_lm_pocket": (
        replace(BASELINE, learning_rate=0.003, warmup_factor=0.05),
        replace(ADAMW, learning_rate=0.003),
        replace(NESTEROV, learning_rate=0.05, weight_decay=1e-5),
    ),
    "criteo1tb_pocket": (
        replace(BASELINE, learning_rate=0.005, warmup_factor=0.05),
        replace(ADAMW, learning_rate=0.003),
        replace(NESTEROV, learning_rate=0.3, weight_decay=1e-6),
    ),
    "fastmri_pocket": (
        replace(BASELINE, learning_rate=0.005, warmup_factor=0.05),
        replace(ADAMW, learning_rate=0.003),
        NESTEROV,
    ),
    "librispeech_conformer_pocket": (replace(ADAMW, learning_rate=0.003), NESTEROV),
    "librispeech_deepspeech_pocket": (replace(ADAMW, learning_rate=0.003), NESTEROV),
    "wmt_pocket": (replace(ADAMW, learning_rate=0.003), NESTEROV),
    "ogbg_pocket": (replace(ADAMW, learning_rate=0.003), NESTEROV),
    "imagenet_vit_pocket": (
        replace(BASELINE, learning_rate=0.004, warmup_factor=0.05),
        replace(ADAMW, learning_rate=0.002, warmup_factor=0.05),
        replace(NESTEROV, learning_rate=0.05),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The deciding metric after some steps; seconds of one core's processor time, evaluations left out."""

    step: int
    seconds: float
    validation: float
    test: float


def learning_rate_factor(step: int, num_steps: int, configuration: Configuration) -> float:
    """Warm-up, then half a cosine to 0, or for Nesterov momentum a line to 0.001 at 90 % of what is left."""
    warmup = max(int(configuration.warmup_factor * num_steps), 1)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(num_steps - warmup, 1)
    if configuration.algorithm == "nesterov":
        return max(1 - progress / 0.9, 0.001)
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1)))


def optimizer_of(module: torch.nn.Module, configuration: Configuration) -> torch.optim.Optimizer:
    """The configuration's optimizer; weight decay is decoupled but for Nesterov momentum, as in AlgoPerf."""
    parameters, decay = module.parameters(), configuration.weight_decay
    beta1 = 1 - configuration.one_minus_beta1
    if configuration.algorithm == "nesterov":
        return torch.optim.SGD(parameters, momentum=beta1, nesterov=True, weight_decay=decay)
    betas = (beta1, configuration.beta2)
    if configuration.algorithm == "adamw":
        return torch.optim.AdamW(parameters, betas=betas, weight_decay=decay)
    # So large a momentum decay keeps NAdam's momentum at beta1 from the first step on: Optax's NAdamW.
    return torch.optim.NAdam(
        parameters, betas=betas, weight_decay=decay, decoupled_weight_decay=True, momentum_decay=1e4
    )


def evaluate(workload: TorchWorkload, module: torch.nn.Module, data: Path, split: Split) -> float:
    """The deciding metric on one split."""
    facts, total = workload.facts, Total()
    for batch in facts.dataset.evaluation_batches(data, split, facts.eval_batch_size):
        total.add(workload.score(module, None, placed_batch(batch, CPU)))
    return facts.metrics(total.statistics(), data)[facts.metric.name]


def train(
    facts: WorkloadFacts, configuration: Configuration, num_steps: int, seed: int, data: Path
) -> Iterator[Evaluation]:
    """Train once; evaluations from half of the steps on, every evaluation period and at the end."""
    workload = TorchWorkload(facts, device=CPU)
    module, _ = workload.init_model_fn([seed])
    optimizer = optimizer_of(module, configuration)
    order = Order(batch_size=facts.batch_size(BATCH_SIZES[facts.base]), seed=seed)
    period = facts.eval_period_steps or num_steps
    seconds, started = 0.0, process_time()
    for step, arrays in zip(range(num_steps), facts.dataset.training_batches(data, order), strict=False):
        factor = learning_rate_factor(step, num_steps, configuration)
        for group in optimizer.param_groups:
            group["lr"] = configuration.learning_rate * factor
        backward(workload, module, placed_batch(arrays, CPU), None, configuration)
        optimizer.step()
        done = step + 1
        if done == num_steps or (done % period == 0 and 2 * done >= num_steps):
            seconds += process_time() - started
            validation, test = (evaluate(workload, module, data, split) for split in ("validation", "test"))
            yield Evaluation(step=done, seconds=seconds, validation=validation, test=test)
            started = process_time()


def best(facts: WorkloadFacts, evaluations: list[Evaluation]) -> Evaluation:
    """The evaluation of best validation value; NaN is worst."""
    sign = 1 if facts.metric.better == "higher" else -1
    return max(evaluations, key=lambda e: -math.inf if math.isnan(e.validation) else sign * e.validation)


def first_reaching(
    facts: WorkloadFacts, run: list[Evaluation], split: Literal["validation", "test"], target: float
) -> Evaluation | None:
    """The first evaluation that reaches the target."""
    return next((e for e in run if facts.metric.reached(getattr(e, split), target)), None)


def targets_of(facts: WorkloadFacts, runs: list[list[Evaluation]]) -> tuple[float, float]:
    """Validation and test target from the baseline's runs."""
    until = TARGET_PERCENT * facts.step_hint // 100
    reached = [best(facts, [e for e in run if e.step <= until]).validation for run in runs]
    validation = min(reached) if facts.metric.better == "higher" else max(reached)
    firsts = [first_reaching(facts, run, "validation", validation) for run in runs]
    tests = [first.test for first in firsts if first is not None]
    return validation, min(tests) if facts.metric.better == "higher" else max(tests)


def describe(configuration: Configuration) -> str:
    """One line."""
    return (
        f"{configuration.algorithm:8} lr {configuration.learning_rate:.4g} "
        f"1-b1 {configuration.one_minus_beta1:.3g} wd {configuration.weight_decay:.2g} "
        f"warm-up {configuration.warmup_factor:.2g}"
    )


def row_of(
    facts: WorkloadFacts,
    configuration: Configuration,
    seed: int,
    run: list[Evaluation],
    targets: tuple[float, float],
) -> dict[str, Any]:
    """One run in the record, printed too."""
    reached = [
        first_reaching(facts, run, split, t) for split, t in zip(("validation", "test"), targets, strict=True)
    ]
    steps = [None if evaluation is None else evaluation.step for evaluation in reached]
    top = best(facts, run)
    click.echo(
        f"{describe(configuration)} seed {seed}: validation reached at {steps[0]}, test at {steps[1]} "
        f"of {facts.budget_steps} steps; best {top.validation:.4f}; {run[-1].step} steps {run[-1].seconds:.0f} s"
    )
    return {
        "configuration": asdict(configuration),
        "seed": seed,
        "validation_reached_at_step": steps[0],
        "test_reached_at_step": steps[1],
        "evaluations": [asdict(evaluation) for evaluation in run],
    }


def run_in_jax(facts: WorkloadFacts, seed: int, data: Path) -> list[Evaluation]:
    """The baseline in JAX."""
    import baseline_jax

    return [
        Evaluation(step=step, seconds=seconds, validation=validation, test=test)
        for step, seconds, validation, test in baseline_jax.train(facts, facts.step_hint, seed, data)
    ]


@click.command()
@click.argument("workload", type=click.Choice(sorted(OTHERS)))
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of the prepared data.")
@click.option("--seeds", default=5, show_default=True, help="Runs of the baseline.")
@click.option("--jax", "jax_seeds", default=0, show_default=True, help="Runs of the baseline in JAX.")
def main(workload: str, data: Path, seeds: int, jax_seeds: int) -> None:
    """Set WORKLOAD's targets and show who reaches them."""
    facts = WORKLOADS[workload]
    facts.dataset.prepare(data, None)
    torch.set_num_threads(1)

    def run(configuration: Configuration, seed: int) -> list[Evaluation]:
        return list(train(facts, configuration, facts.step_hint, seed, data))

    baselines = {("torch", seed): run(BASELINE, seed) for seed in range(seeds)}
    baselines |= {("jax", seed): run_in_jax(facts, seed, data) for seed in range(jax_seeds)}
    targets = targets_of(facts, list(baselines.values()))
    click.echo(f"validation target {targets[0]:.6f}, test target {targets[1]:.6f}")
    rows = [
        {"framework": framework} | row_of(facts, BASELINE, seed, baseline, targets)
        for (framework, seed), baseline in baselines.items()
    ]
    badly_tuned = replace(BASELINE, learning_rate=BASELINE.learning_rate / 30)
    for configuration in (badly_tuned, *OTHERS[workload]):
        rows.append(row_of(facts, configuration, 0, run(configuration, 0), targets))
    record = {
        "workload": workload,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "threads": 1,
        "step_hint": facts.step_hint,
        "budget_steps": facts.budget_steps,
        "validation_target": targets[0],
        "test_target": targets[1],
        "runs": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"targets_{workload}.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
