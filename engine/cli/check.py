"""`timetrial check`: what is wrong, and what is worth knowing, about a submission before it races."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from timetrial.engine.facts import Framework, WorkloadFacts
    from timetrial.engine.trial import TrialPlan


@click.command(name="check")
@click.argument("submission")
@click.option(
    "--framework",
    type=click.Choice(["torch", "jax"]),
    default="torch",
    show_default=True,
    help="Which of its files to check, and where to take the step.",
)
@click.option("--no-step", is_flag=True, help="Only read the files; take no step on the toy workload.")
def command(submission: str, framework: "Framework", no_step: bool) -> None:
    """Check SUBMISSION: a folder, a Python file, or the name of one that comes with Timetrial.

    Its functions, signatures, search space and imports are read; two steps are taken on a workload that lasts
    a second. Ends with 2 if a race would fail or a rule of the benchmark is broken.

    \b
    Examples:
      timetrial check nadamw
      timetrial check ./my_submission --framework jax
    """
    from timetrial.engine.check import Level, check
    from timetrial.engine.cli.places import submission_path
    from timetrial.submissions.batches import BATCH_SIZES
    from timetrial.workloads import SUITES, WORKLOADS

    raced = [facts for name, facts in WORKLOADS.items() if name not in SUITES.get("test", ())]
    names = {*BATCH_SIZES, *(facts.name for facts in raced), *(facts.base for facts in raced)}
    findings = check(
        submission_path(submission),
        framework,
        workload_names=names,
        dry_step=None if no_step else _dry_step,
    )
    _print(findings)
    if any(finding.level is Level.ERROR for finding in findings):
        raise click.exceptions.Exit(2)


def _print(findings: list[Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from timetrial.engine.check import Level

    colours = {Level.OK: "green", Level.NOTE: "yellow", Level.ERROR: "bold red"}
    table = Table("", "where", "line", "finding")
    for finding in findings:
        level = f"[{colours[finding.level]}]{finding.level.value}[/]"
        line = "" if finding.line is None else str(finding.line)
        table.add_row(level, _plain(finding.subject), line, _plain(finding.text))
    console = Console()
    console.print(table)
    counts = {level: sum(finding.level is level for finding in findings) for level in Level}
    console.print(f"errors: {counts[Level.ERROR]}, notes: {counts[Level.NOTE]}")


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _dry_step(file: Path, framework: "Framework") -> str:
    """Two steps of the submission on the toy workload, in a racer of their own."""
    from timetrial.engine.cli.places import data_folder
    from timetrial.engine.crew import ProcessCrew
    from timetrial.engine.errors import SubmissionError
    from timetrial.engine.link import Gone, ProcessLink
    from timetrial.engine.messages import Failed, Go, Message, TakeSnapshot
    from timetrial.engine.progress import Progress
    from timetrial.engine.trial import preparation
    from timetrial.workloads import WORKLOADS

    facts = WORKLOADS["toy"]
    data = data_folder(None)
    facts.dataset.prepare(data, None)
    plan = _dry_plan(facts, file, framework, data)
    with ProcessCrew() as crew:
        progress = crew.scratch / "progress"
        Progress(progress, create=True).close()
        messages: list[Message] = [
            preparation(
                plan,
                progress=progress,
                compile_cache=crew.scratch / "compiled",
                forbidden=[data / "evaluation"],
                checkpoint=None,
            ),
            Go(run_ns=60_000_000_000, last_step=2, new_results=[], train_state={}),
            TakeSnapshot(path=str(crew.scratch / "snapshot")),
        ]
        racer = ProcessLink("racer", crew.scratch / "racer.log")
        try:
            for message in messages:
                racer.send(message)
                answer = racer.receive(300.0)
                if answer is None:
                    raise SubmissionError("two steps on the toy workload took more than five minutes")
                if isinstance(answer, Failed):
                    raise SubmissionError(f"{answer.why}\n{answer.traceback}".strip())
        except Gone as gone:
            raise SubmissionError(f"the racer died: {gone}") from gone
        finally:
            racer.kill()
    return f"two steps on {facts.name} and a snapshot"


def _dry_plan(facts: "WorkloadFacts", file: Path, framework: "Framework", data: Path) -> "TrialPlan":
    from timetrial.engine.cli.places import home
    from timetrial.engine.records import TrialDirectory
    from timetrial.engine.seeds import study_seed, trial_seed
    from timetrial.engine.trial import TrialPlan

    return TrialPlan(
        facts=facts,
        framework=framework,
        submission=file.stem,
        submission_path=file,
        ruleset="external",
        study=0,
        trial=1,
        seed=trial_seed(study_seed(0, 0), facts.name, 1),
        hyperparameters=_first_point(file),
        budget_sec=60.0,
        eval_period_sec=60.0,
        max_steps=2,
        compile=False,
        data=data,
        caches=home(),
        directory=TrialDirectory(path=home()),
    )


def _first_point(file: Path) -> dict[str, Any] | None:
    from timetrial.engine.search import load_space, trial_points
    from timetrial.engine.submission import SEARCH_SPACE_FILE

    path = file.parent / SEARCH_SPACE_FILE
    if not path.is_file():
        return None
    return trial_points(load_space(path), search="quasirandom", studies=1, trials=1, seed=0)[0][0]
