"""Do torch and JAX reach a target in a similar number of steps? `python benchmarks/agreement.py [WORKLOAD…]`.

Races the NAdamW baseline on the pocket suite, or on the WORKLOADs named, in both frameworks, five studies each
unless --studies says otherwise (each with its own seed), and prints per workload and framework: how many studies
reached the target; the median, least and most of the steps and of the submission seconds to it; the stall, the share
of submission time that was spent waiting for data; and the share of wall time that evaluation took. The same table,
with the curve of every trial, goes to benchmarks/results/agreement.json; workloads that are not raced keep what it
says of them. Steps are resolved to one evaluation period. A run that was cut short is continued by the same command
with the same --out.
"""

import csv
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from timetrial.engine import provenance
from timetrial.engine.clock import seconds, utc_timestamp
from timetrial.engine.records import TrialRecord, read_trial, write_json_atomic
from timetrial.workloads import SUITES, WORKLOADS

RESULTS = Path(__file__).parent / "results" / "agreement.json"
FRAMEWORKS = ("torch", "jax")


def race(workloads: tuple[str, ...], studies: int, out: Path) -> None:
    """Run, or continue, all trials."""
    for framework in FRAMEWORKS:
        command = ["timetrial", "run", "nadamw", "--workload", ",".join(workloads), "--framework", framework]
        command += ["--studies", str(studies), "--out", str(out), "--resume"]
        subprocess.run([str(Path(sys.executable).parent / command[0]), *command[1:]], check=True)


def spread(values: list[float]) -> str:
    """Median [least, most]."""
    if not values:
        return "-"
    return f"{statistics.median(values):.4g} [{min(values):.4g}, {max(values):.4g}]"


def curve(trial: Path, metric: str) -> list[list[float]]:
    """[step, submission seconds, validation value] of every evaluation."""
    with (trial / "eval_measurements.csv").open() as file:
        return [
            [int(row["global_step"]), round(float(row["score"]), 2), float(row[f"validation/{metric}"])]
            for row in csv.DictReader(file)
        ]


def table_row(trials: dict[Path, TrialRecord], metric: str) -> dict[str, Any]:
    """One line of the table, from the trials of one workload in one framework."""
    records = list(trials.values())
    reached = [record for record in records if record.status == "target"]
    return {
        "reached": f"{len(reached)}/{len(records)}",
        "steps": sorted(record.steps for record in reached),
        "seconds": sorted(round(seconds(record.submission_ns), 2) for record in reached),
        "first_step_seconds": sorted(
            round(seconds(record.breakdown.get("first_call", 0)), 2) for record in records
        ),
        "stall_percent": sorted(
            round(100 * record.breakdown.get("data_wait", 0) / record.submission_ns, 2) for record in records
        ),
        "evaluation_percent": sorted(
            round(100 * record.accounts.get("evaluation", 0) / record.wall_ns, 2) for record in records
        ),
        "curves": [curve(trial, metric) for trial in trials],
    }


@click.command()
@click.argument("workloads", nargs=-1, type=click.Choice(SUITES["pocket"]))
@click.option("--studies", default=5, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Where the races go; default: a scratch folder.")
def main(workloads: tuple[str, ...], studies: int, out: Path | None) -> None:
    """Race the baseline on WORKLOADS, or on the pocket suite, in both frameworks."""
    workloads = workloads or SUITES["pocket"]
    out = out or Path(tempfile.mkdtemp(prefix="agreement-"))
    race(workloads, studies, out)
    trials = {path.parent: read_trial(path) for path in sorted(out.rglob("trial.json"))}
    table: dict[str, dict[str, Any]] = json.loads(RESULTS.read_text())["table"] if RESULTS.exists() else {}
    click.echo(
        f"{'workload':31}{'framework':11}{'reached':9}{'steps to target':26}{'seconds to target':26}{'stall %':20}"
        "judging %"
    )
    for name in workloads:
        for framework in FRAMEWORKS:
            chosen = {p: r for p, r in trials.items() if r.workload == name and r.framework == framework}
            line = table_row(chosen, WORKLOADS[name].metric.name)
            table[f"{name}, {framework}"] = line
            steps, sec = spread(line["steps"]), spread(line["seconds"])
            stall, judging = spread(line["stall_percent"]), spread(line["evaluation_percent"])
            click.echo(f"{name:31}{framework:11}{line['reached']:9}{steps:26}{sec:26}{stall:20}{judging}")
        click.echo(f"{'':31}evaluated every {WORKLOADS[name].eval_period_steps} steps of the baseline")
    versions = {name: provenance.framework_version(name) for name in FRAMEWORKS}
    machine = {**provenance.hardware(), **provenance.versions(), **versions}
    write_json_atomic(
        RESULTS,
        {
            "command": "python benchmarks/agreement.py",
            "date": utc_timestamp(),
            "machine": machine,
            "table": table,
        },
    )


if __name__ == "__main__":
    main()
