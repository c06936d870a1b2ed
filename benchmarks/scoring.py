"""What scoring costs: `python benchmarks/scoring.py [--largest TRIALS] [--out FILE]`.

    competition   the real v0.5 field, scored by `timetrial score` in a fresh process, beside an interpreter that only
                  imports pandas, in turn; skipped where the logs are not at hand (TIMETRIAL_REFERENCE_LOGS)
    growth        synthetic fields of 1,050 trials and more: seconds of reading, scoring and analysing, and the
                  slope of log(seconds) over log(trials), which is 1 where cost grows with the number of trials

Submissions grow with the trials, 350 trials each. Peak memory is that of one process. The same numbers go to
benchmarks/results/scoring.json.
"""

import contextlib
import json
import multiprocessing
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np
from synthetic_field import DISK_BYTES_A_TRIAL, FILES_A_TRIAL, TRIALS_A_SUBMISSION, write_submissions

from timetrial.engine import provenance
from timetrial.engine.clock import now_ns, seconds, utc_timestamp
from timetrial.engine.records import write_json_atomic
from timetrial.scoring.field_reader import TRIALS_WORTH_A_WORKER
from timetrial.scoring.log_tree import find_trials

# What imports pandas is imported where it is called: worker processes that read import this file and should not wait.

ROOT = Path(__file__).resolve().parents[1]
LOGS = (
    Path(os.environ.get("TIMETRIAL_REFERENCE_LOGS", ROOT.parent / "shared" / "reference"))
    / "algoperf_v05_external_logs.tar.xz"
)
PANDAS, SCORE = "interpreter with pandas", "timetrial score"
CPU_BAR, MEMORY_BAR = 3.0, 60.0  # CPU seconds; MB over the interpreter with pandas
ROUNDS = 5
SIZES = (1_000, 3_000, 10_000, 30_000, 100_000)
RESAMPLES = 10_000
RUNS, ENOUGH_SECONDS = 3, 60.0

# What the kernel still holds of the files when scoring begins, and what makes it so; only root may.
DROP_CACHES = Path("/proc/sys/vm/drop_caches")
DROPPED = {"nothing cached": "3", "contents not cached": "1", "files cached": ""}

# Runs a command and prints what it cost. A process of its own: a child's peak memory begins at its parent's size.
MEASURE = """
import json, os, subprocess, sys
from timetrial.engine.clock import now_ns
begun = now_ns()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(json.dumps({"CPU (s)": usage.ru_utime + usage.ru_stime, "of it system (s)": usage.ru_stime,
                  "wall (s)": (now_ns() - begun) / 1e9, "peak memory (MB)": usage.ru_maxrss * 1024 / 1e6}))
sys.exit(os.waitstatus_to_exitcode(status))
"""

Result = TypeVar("Result")
Cost = dict[str, float]


def competition() -> dict[str, Any]:
    """Costs of scoring the real field and of the bare interpreter, and their differences, round by round."""
    states = [state for state in DROPPED if drop_caches(state)]
    costs: dict[str, list[Cost]] = {}
    with tempfile.TemporaryDirectory(prefix="competition-") as name:
        with tarfile.open(LOGS) as archive:
            archive.extractall(name, filter="data")
        os.sync()  # what is not on disk yet cannot be dropped
        score = ["-c", "from timetrial.engine.cli import main; main()", "score", name]
        score += ["--rules", "v0.5", "--mode", "algoperf"]
        for state in states * ROUNDS:
            pair = []
            for what, arguments in ((PANDAS, ["-c", "import pandas"]), (SCORE, score)):
                drop_caches(state)
                pair.append(cost_of_process([sys.executable, *arguments]))
                costs.setdefault(f"{what}, {state}", []).append(pair[-1])
            difference = {key: pair[1][key] - pair[0][key] for key in pair[0]}
            costs.setdefault(f"difference, {state}", []).append(difference)
        trials = len(find_trials([Path(name)], []))
    bars = []
    for state in states:
        cpu = statistics.median(cost["CPU (s)"] for cost in costs[f"{SCORE}, {state}"])
        bars.append({"what": f"CPU of {SCORE}, {state} (s)", "bar": CPU_BAR, "found": cpu})
        memory = statistics.median(cost["peak memory (MB)"] for cost in costs[f"difference, {state}"])
        bars.append({"what": f"memory over {PANDAS}, {state} (MB)", "bar": MEMORY_BAR, "found": memory})
    return {"trials": trials, "rounds": ROUNDS, "bars": bars, "costs": costs}


def drop_caches(state: str) -> bool:
    """Have the kernel forget what the state says, if this process may."""
    with contextlib.suppress(OSError):
        if DROPPED[state]:
            DROP_CACHES.write_text(DROPPED[state])
        return True
    return False


def cost_of_process(command: Sequence[str]) -> Cost:
    """CPU seconds, wall seconds and peak memory of a fresh process; the program ends if it fails."""
    answer = subprocess.run(
        [sys.executable, "-c", MEASURE, *command], stdout=subprocess.PIPE, text=True, check=False
    )
    if answer.returncode:
        sys.exit(f"{' '.join(command)} ended with exit code {answer.returncode}; call it by hand to see why")
    cost: Cost = json.loads(answer.stdout)
    return cost


def growth(largest: int) -> list[dict[str, Any]]:
    """What each size of field costs, each in a fresh process. Every size adds submissions to the last."""
    counts = [round(size / TRIALS_A_SUBMISSION) for size in SIZES if size <= largest]
    rows = []
    with tempfile.TemporaryDirectory(prefix="growth-") as name:
        check_disk(name, counts[-1] * TRIALS_A_SUBMISSION)
        for before, count in zip([0, *counts], counts, strict=False):
            write_submissions(Path(name), range(before, count))
            os.sync()  # or the kernel would write while we measure
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                costs = pool.submit(costs_of_field, name, trials := count * TRIALS_A_SUBMISSION).result()
            rows.append({"trials": trials, "submissions": count, "costs": costs})
            print(f"{trials:,} trials measured", file=sys.stderr, flush=True)
    return rows


def check_disk(folder: str, trials: int) -> None:
    """End the program where that many trials would not leave half of the disk's free space."""
    free, files = shutil.disk_usage(folder).free, os.statvfs(folder).f_favail
    need = trials * DISK_BYTES_A_TRIAL
    if 2 * need > free or 2 * trials * (FILES_A_TRIAL + 1) > files:
        sys.exit(
            f"{trials:,} trials need {need / 1e9:.1f} GB in {folder}, which has {free / 1e9:.1f} GB and {files:,} "
            "files free; set TMPDIR to another disk or take a smaller --largest"
        )


def costs_of_field(folder: str, trials: int) -> dict[str, Cost]:
    """Costs of each step from the logs to an analysis, in this process; the program ends if trials are missing."""
    from timetrial.scoring.analysis import analyse
    from timetrial.scoring.field import read_field
    from timetrial.scoring.leaderboard import score_field

    workers = os.cpu_count() or 1
    costs = {}
    _, costs[f"read, {workers} processes"] = timed(lambda: read_field([folder], "v0.5", workers))
    field, costs["read, 1 process"] = timed(lambda: read_field([folder], "v0.5"))
    if len(field.trials) != trials:
        sys.exit(f"{folder} holds {len(field.trials):,} trials, not {trials:,}: something else changes it")
    board, costs["score_field"] = timed(lambda: score_field(field))
    _, costs["analyse, no resamples"] = timed(lambda: all_parts(analyse(board, resamples=0)))
    _, costs[f"analyse, {RESAMPLES:,} resamples"] = timed(
        lambda: all_parts(analyse(board, resamples=RESAMPLES))
    )
    return costs


def all_parts(analysis: object) -> list[object]:
    """Every part of an analysis, each of which is computed when it is asked for."""
    parts = [name for name, part in vars(type(analysis)).items() if isinstance(part, cached_property)]
    return [getattr(analysis, name) for name in parts]


def timed(action: Callable[[], Result]) -> tuple[Result, Cost]:
    """The result, and the median wall and CPU seconds of a few runs, of a single one if it is long.

    Peak memory is this process's so far.
    """
    walls: list[float] = []
    cpus: list[float] = []
    while not walls or (len(walls) < RUNS and sum(walls) < ENOUGH_SECONDS):
        result = None  # not two results at once
        begun, used = now_ns(), cpu_seconds()
        result = action()
        walls.append(seconds(now_ns() - begun))
        cpus.append(cpu_seconds() - used)
    assert result is not None
    return result, {
        "wall (s)": statistics.median(walls),
        "CPU (s)": statistics.median(cpus),
        "runs": len(walls),
        "peak memory (MB)": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
    }


def cpu_seconds() -> float:
    """User and system time of this process and of the workers that it waited for."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def slopes(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """By step, of wall and of CPU: the slope of log(seconds) over log(trials), of all sizes, of the largest two."""
    trials = np.log([row["trials"] for row in rows])
    found: dict[str, dict[str, list[float]]] = {}
    for step in rows[0]["costs"]:
        for key in ("wall (s)", "CPU (s)"):
            cost = np.log([row["costs"][step][key] for row in rows])
            ends = [np.polyfit(trials[part], cost[part], 1)[0] for part in (slice(None), slice(-2, None))]
            found.setdefault(step, {})[key] = list(map(float, ends))
    return found


def show_competition(found: dict[str, Any]) -> None:
    print(
        f"The v0.5 competition, {found['trials']:,} trials found; {found['rounds']} fresh processes each, in turn: "
        "median [least, most]"
    )
    table = found["costs"]
    print(f"  {'':46}" + "".join(f"{key:23}" for key in next(iter(table.values()))[0]))
    for what, costs in table.items():
        cells = [spread([cost[key] for cost in costs]) for key in costs[0]]
        print(f"  {what:46}" + "".join(f"{cell:23}" for cell in cells))
    for bar in found["bars"]:
        verdict = "met" if bar["found"] <= bar["bar"] else "not met"
        print(f"  bar: {bar['what']}: {bar['found']:.2f}, at most {bar['bar']:g}: {verdict}")
    print()


def spread(values: Sequence[float]) -> str:
    """Median [least, most]."""
    return f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


def show_growth(rows: Sequence[dict[str, Any]], slope: dict[str, dict[str, list[float]]]) -> None:
    print(
        f"Synthetic fields, files cached; under {2 * TRIALS_WORTH_A_WORKER:,} trials no worker process is used"
    )
    line("trials", [f"{row['trials']:,}" for row in rows], ["slope", "largest two"] if slope else [])
    line("submissions", [str(row["submissions"]) for row in rows], [])
    for step in rows[0]["costs"]:
        costs = [row["costs"][step] for row in rows]
        line(f"{step}: wall, s", [f"{cost['wall (s)']:.3f}" for cost in costs], [])
        for what, key in (("wall", "wall (s)"), ("CPU", "CPU (s)")):
            each = [1e6 * cost[key] / row["trials"] for cost, row in zip(costs, rows, strict=True)]
            ends = [f"{value:.2f}" for value in slope[step][key]] if slope else []
            line(f"  {what}, us a trial", [f"{value:.1f}" for value in each], ends)
        line("  peak memory so far, MB", [f"{cost['peak memory (MB)']:.0f}" for cost in costs], [])


def line(title: str, cells: Sequence[str], ends: Sequence[str]) -> None:
    print(f"  {title:36}" + "".join(f"{cell:>11}" for cell in cells) + "".join(f"{end:>13}" for end in ends))


@click.command()
@click.option(
    "--largest",
    default=SIZES[-1],
    show_default=True,
    type=click.IntRange(SIZES[0]),
    help="Largest field, in trials.",
)
@click.option(
    "--out",
    default=ROOT / "benchmarks" / "results" / "scoring.json",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the numbers go.",
)
def main(largest: int, out: Path) -> None:
    """Measure what scoring costs."""
    source = provenance.source_hash([ROOT / "scoring"])
    if LOGS.exists():
        show_competition(real := competition())
    else:
        real = {"skipped": f"the competition's logs are not in {LOGS.parent}"}
        print(f"Skipped: {real['skipped']}; set TIMETRIAL_REFERENCE_LOGS to a folder with them\n")
    rows = growth(largest)
    slope = slopes(rows) if len(rows) > 1 else {}
    show_growth(rows, slope)
    if provenance.source_hash([ROOT / "scoring"]) != source:
        sys.exit("scoring/ changed while it was measured: nothing was written, measure again")
    machine = {**provenance.hardware(), **provenance.versions()}
    write_json_atomic(
        out,
        {
            "command": f"python benchmarks/scoring.py --largest {largest}",
            "date": utc_timestamp(),
            "machine": machine | {"pandas": provenance.framework_version("pandas")},
            "source_hash": source,
            "competition": real,
            "growth": rows,
            "slopes, of all sizes and of the largest two": slope,
        },
    )
    print(json.dumps(machine))


if __name__ == "__main__":
    main()
