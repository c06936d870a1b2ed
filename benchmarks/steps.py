"""What a training step of each full-size model costs on a CPU: `python benchmarks/steps.py [WORKLOAD…]`.

The shipped NAdamW baseline trains on made-up batches of the real shapes, through the same objects as in a race, in
one thread: torch eager, torch compiled whole, and JAX. Each case runs in a process of its own, which reports
examples per second of processor time (set-up, compilation and the first step left out) and the most memory it
held. The reference's figures beside them are those of AlgoPerf's own code: eager torch (or JAX) with its NAdamW, one
thread of a loaded machine of this kind, so a ratio to them is only as good as the two machines are alike.

Criteo's table has 524,288 rows here instead of 4,194,304. Each result goes to benchmarks/results/steps.json as soon as
it is there, with its machine; cases that are not asked for keep what the file says of them.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Any

import click
import loading_sequences
import numpy as np

from timetrial.data_loading import librispeech, ogbg
from timetrial.data_loading.graph_batches import Budget, collated
from timetrial.engine import provenance
from timetrial.engine.clock import utc_timestamp
from timetrial.engine.records import write_json_atomic
from timetrial.workloads import WORKLOADS

RESULTS = Path(__file__).parent / "results" / "steps.json"
CRITEO_ROWS = 524_288
LEAST_SECONDS = 15.0  # of processor time that a case is measured for, and at least
LEAST_STEPS = 3

Case = tuple[str, int]  # workload, batch size
CASES: tuple[Case, ...] = (
    ("imagenet_resnet", 4),
    ("imagenet_resnet", 8),
    ("imagenet_vit", 4),
    ("imagenet_vit", 8),
    ("fastmri", 2),
    ("criteo1tb", 4096),
    ("mnist", 16),
    ("ogbg", 32),
    ("ogbg", 128),
    ("wmt", 1),
    ("librispeech_conformer", 1),
    ("librispeech_deepspeech", 1),
)
MODES = ("torch", "torch compiled", "jax")
# The reference's examples per second of processor time; "torch" is eager.
REFERENCE: dict[tuple[Case, str], float] = {
    (("imagenet_resnet", 4), "torch"): 1.63,
    (("imagenet_resnet", 4), "jax"): 0.65,
    (("imagenet_vit", 4), "torch"): 1.79,
    (("imagenet_vit", 4), "jax"): 1.11,
    (("fastmri", 2), "torch"): 0.40,
    (("criteo1tb", 4096), "torch"): 1_237,
    (("mnist", 16), "torch"): 4_380,
    (("ogbg", 32), "torch"): 68.7,
    (("ogbg", 32), "jax"): 48.7,
    (("ogbg", 128), "torch"): 72.5,
    (("ogbg", 128), "jax"): 48.4,
    (("wmt", 1), "torch"): 0.191,
    (("librispeech_conformer", 1), "torch"): 0.189,
    (("librispeech_deepspeech", 1), "torch"): 0.143,
}
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}


def images(generator: np.random.Generator, size: int) -> dict[str, np.ndarray]:
    pixels = generator.normal(size=(size, 224, 224, 3)).astype(np.float32)
    return {"inputs": pixels, "targets": generator.integers(1000, size=size).astype(np.int32)}


def slices(generator: np.random.Generator, size: int) -> dict[str, np.ndarray]:
    inputs, targets = generator.normal(size=(2, size, 320, 320)).astype(np.float32)
    scalars = {name: np.ones(size, np.float32) for name in ("mean", "std", "volume_max")}
    return {"inputs": inputs, "targets": targets, **scalars}


def clicks(generator: np.random.Generator, size: int) -> dict[str, np.ndarray]:
    dense = generator.exponential(size=(size, 13))
    ids = generator.integers(CRITEO_ROWS, size=(size, 26))
    inputs = np.concatenate([dense, ids], 1).astype(np.float32)
    return {"inputs": inputs, "targets": (generator.random(size) < 0.03).astype(np.float32)}


def digits(generator: np.random.Generator, size: int) -> dict[str, np.ndarray]:
    pixels = generator.normal(size=(size, 28, 28, 1)).astype(np.float32)
    return {"inputs": pixels, "targets": generator.integers(10, size=size).astype(np.int32)}


def utterances(generator: np.random.Generator, size: int) -> dict[str, Any]:
    """20 s of noise and 80 tokens each, nothing padded but the labels."""
    audio = generator.normal(0, 3000, (size, librispeech.MAX_SAMPLES)).astype(np.float32)
    place = np.arange(librispeech.MAX_LABELS)
    tokens = generator.integers(1, librispeech.NUM_TOKENS, (size, len(place))) * (place < 80)
    padding = np.broadcast_to(place >= 80, tokens.shape).astype(np.float32)
    return {"inputs": (audio, np.zeros_like(audio)), "targets": (tokens.astype(np.int32), padding)}


def molecules(generator: np.random.Generator, size: int) -> dict[str, Any]:
    """Rings of 26 atoms with two bonds more: the averages of ogbg-molpcba, 56 directed edges."""
    graphs = loading_sequences.molecules(np.full(size, ogbg.AVERAGES.nodes), generator)
    return dict(collated(graphs, np.arange(size), Budget.of(size, ogbg.AVERAGES)))


def sentences(generator: np.random.Generator, size: int) -> dict[str, np.ndarray]:
    """Rows of 256 tokens on either side, each one long sentence."""
    tokens = generator.integers(3, 32_000, (2, size, 256)).astype(np.int32)
    place = np.broadcast_to(np.arange(256, dtype=np.int32), (size, 256))
    batch = {"inputs": tokens[0], "targets": tokens[1], "weights": np.ones((size, 256), np.float32)}
    for side in ("inputs", "targets"):
        batch |= {f"{side}_position": place.copy(), f"{side}_segmentation": np.ones_like(place)}
    return batch


BATCHES: dict[str, Callable[[np.random.Generator, int], dict[str, Any]]] = {
    "imagenet_resnet": images,
    "imagenet_vit": images,
    "fastmri": slices,
    "criteo1tb": clicks,
    "mnist": digits,
    "ogbg": molecules,
    "wmt": sentences,
    "librispeech_conformer": utterances,
    "librispeech_deepspeech": utterances,
}


def measure(workload: str, batch_size: int, mode: str) -> dict[str, float]:
    """One case, in this process: examples per second of processor time, seconds of a step, peak memory."""
    from timetrial.engine import submission
    from timetrial.engine.device import open_device
    from timetrial.engine.seeds import StepKeys, random_key
    from timetrial.submissions import SUBMISSIONS

    framework = "jax" if mode == "jax" else "torch"
    if framework == "torch":
        import torch

        torch.set_num_threads(1)
    facts = WORKLOADS[workload]
    if workload == "criteo1tb":
        facts = replace(facts, model=replace(facts.model, table_rows=CRITEO_ROWS))
    with tempfile.TemporaryDirectory() as cache:
        device = open_device(framework, compile_cache=cache)
        work = device.workload(facts)
        params, state = work.init_model_fn(random_key(0, framework))
        if mode == "torch compiled":
            device.compile(params)
        functions = submission.load(SUBMISSIONS["nadamw"], framework).functions
        optimizer = functions.init_optimizer_state(work, params, state, None, random_key(1, framework))
        batch = device.place(BATCHES[workload](np.random.default_rng(0), batch_size))
        keys = StepKeys(0, framework)

        def step(number: int) -> None:
            nonlocal optimizer, params, state
            optimizer, params, state = functions.update_params(
                workload=work,
                current_param_container=params,
                current_params_types=work.model_params_types,
                model_state=state,
                hyperparameters=None,
                batch=batch,
                loss_type=work.loss_type,
                optimizer_state=optimizer,
                eval_results=[],
                global_step=number,
                rng=keys(number)[1],
            )

        step(1)
        step(2)
        device.drain(optimizer, params, state)
        steps, started = 0, process_time()
        while steps < LEAST_STEPS or process_time() - started < LEAST_SECONDS:
            step(steps + 3)
            steps += 1
            if framework == "jax":
                device.drain(optimizer, params, state)
        device.drain(optimizer, params, state)
        seconds = process_time() - started
        report = device.compile_report()
    return {
        "examples_per_cpu_second": batch_size * steps / seconds,
        "step_cpu_seconds": seconds / steps,
        "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        **{f"compile_{name}": value for name, value in report.items()},
    }


def in_a_process(case: Case, mode: str) -> dict[str, float]:
    """`measure` in a fresh process, so that its memory is its own."""
    command = [sys.executable, __file__, "--only", f"{case[0]},{case[1]},{mode}"]
    done = subprocess.run(command, env=os.environ | ONE_THREAD, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"{case[0]} at {case[1]}, {mode}: {done.stderr.strip().splitlines()[-1]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


@click.command()
@click.argument("workloads", nargs=-1, type=click.Choice(sorted(BATCHES)))
@click.option("--only", hidden=True)
def main(workloads: tuple[str, ...], only: str | None) -> None:
    """Measure WORKLOADS, or all."""
    if only is not None:
        name, size, mode = only.split(",")
        click.echo(json.dumps(measure(name, int(size), mode)))
        return
    rows: dict[str, Any] = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else {}
    versions = {name: provenance.framework_version(name) for name in ("torch", "jax")}
    machine = {**provenance.hardware(), **provenance.versions(), **versions}
    click.echo(f"{'case':26}{'mode':16}{'examples/CPU-s':>15}{'reference':>11}{'ratio':>7}{'peak GiB':>10}")
    for case in CASES:
        for mode in MODES if not workloads or case[0] in workloads else ():
            row: dict[str, Any] = in_a_process(case, mode)
            reference = REFERENCE.get((case, mode.split()[0]))
            rate = row["examples_per_cpu_second"]
            row |= {"reference": reference, "ratio": reference and rate / reference}
            rows[f"{case[0]} at {case[1]}, {mode}"] = row | {"date": utc_timestamp(), "machine": machine}
            write_json_atomic(RESULTS, {"command": "python benchmarks/steps.py", "rows": rows})
            beside = f"{reference:11.5g}{rate / reference:7.2f}" if reference else f"{'-':>11}{'-':>7}"
            name = f"{case[0]} at {case[1]}"
            click.echo(f"{name:26}{mode:16}{rate:15.4g}{beside}{row['peak_memory_gib']:10.2f}")


if __name__ == "__main__":
    main()
