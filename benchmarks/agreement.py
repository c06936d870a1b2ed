"""Do torch and JAX reach a target in a similar number of steps? `python benchmarks/agreement.py [STUDIES] [OUT]`.

Races the NAdamW baseline on the pocket suite in both frameworks, five studies each unless told otherwise (each
with its own seed), and prints per workload and framework: how many studies reached the target, and the median,
least and most of the steps and of the submission seconds to it. The same table goes to
benchmarks/results/agreement.json. Steps are resolved to one evaluation period. A run that was cut short is
continued by the same command with the same OUT.
"""

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from timetrial.engine import provenance
from timetrial.engine.clock import seconds, utc_timestamp
from timetrial.engine.records import TrialRecord, read_trial, write_json_atomic
from timetrial.workloads import SUITES, WORKLOADS

ROOT = Path(__file__).resolve().parents[1]
FRAMEWORKS = ("torch", "jax")


def race(studies: int, out: Path) -> None:
    """Run, or continue, all trials."""
    for framework in FRAMEWORKS:
        command = ["timetrial", "run", "nadamw", "--suite", "pocket", "--framework", framework]
        command += ["--studies", str(studies), "--out", str(out), "--resume"]
        subprocess.run([str(Path(sys.executable).parent / command[0]), *command[1:]], check=True)


def spread(values: list[float]) -> str:
    """Median [least, most]."""
    if not values:
        return "-"
    return f"{statistics.median(values):.4g} [{min(values):.4g}, {max(values):.4g}]"


def row(records: list[TrialRecord]) -> dict[str, Any]:
    """One line of the table."""
    reached = [record for record in records if record.status == "target"]
    return {
        "reached": f"{len(reached)}/{len(records)}",
        "steps": sorted(record.steps for record in reached),
        "seconds": sorted(round(seconds(record.submission_ns), 2) for record in reached),
        "first_step_seconds": sorted(
            round(seconds(record.breakdown.get("first_call", 0)), 2) for record in records
        ),
    }


def main() -> None:
    studies = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    out = Path(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp(prefix="agreement-"))
    race(studies, out)
    records = [read_trial(path) for path in sorted(out.rglob("trial.json"))]
    table: dict[str, dict[str, Any]] = {}
    print(f"{'workload':24}{'framework':11}{'reached':9}{'steps to target':26}{'seconds to target'}")
    for name in SUITES["pocket"]:
        for framework in FRAMEWORKS:
            line = row([r for r in records if r.workload == name and r.framework == framework])
            table[f"{name}, {framework}"] = line
            steps, sec = spread(line["steps"]), spread(line["seconds"])
            print(f"{name:24}{framework:11}{line['reached']:9}{steps:26}{sec}")
        print(f"{'':24}evaluated every {WORKLOADS[name].eval_period_steps} steps of the baseline")
    versions = {name: provenance.framework_version(name) for name in FRAMEWORKS}
    write_json_atomic(
        ROOT / "benchmarks" / "results" / "agreement.json",
        {
            "command": "python benchmarks/agreement.py",
            "date": utc_timestamp(),
            "machine": {**provenance.hardware(), **provenance.versions(), **versions},
            "table": table,
        },
    )


if __name__ == "__main__":
    main()
