"""`timetrial score`: read run directories or AlgoPerf logs and print, or write, the leaderboard."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from timetrial.engine.errors import Error, UsageError

if TYPE_CHECKING:
    from timetrial.scoring.analysis import Analysis
    from timetrial.scoring.time_to_target import Mode

_OUTPUT = click.Path(dir_okay=False, path_type=Path)
_INPUT = click.Path(dir_okay=False, exists=True, path_type=Path)


@click.command("score")
@click.argument(
    "directories", nargs=-1, required=True, metavar="DIR...", type=click.Path(path_type=Path, file_okay=False)
)
@click.option(
    "--rules",
    type=click.Choice(["pocket", "v0.5", "v0.6", "v1.0"]),
    help="Which workloads and targets count; found out from the logs if not given.",
)
@click.option(
    "--mode",
    type=click.Choice(["exact", "algoperf"]),
    help="exact: the written rules, by closed-form integral (default for Timetrial's runs); algoperf: as published "
    "scores were computed (default for AlgoPerf's logs).",
)
@click.option("--strict", is_flag=True, help="Refuse logs in which anything is damaged, missing or left out.")
@click.option(
    "--resamples",
    type=click.IntRange(min=0),
    default=10_000,
    show_default=True,
    metavar="N",
    help="Resamples for error bars; 0 for none.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the resamples."
)
@click.option("--baseline", metavar="NAME", help="The submission to which speed-ups compare.")
@click.option(
    "--frozen",
    type=_INPUT,
    metavar="FILE",
    help="Score against the best times in FILE, which --json wrote earlier, instead of this group's.",
)
@click.option(
    "--paces",
    type=_INPUT,
    metavar="FILE",
    help="Expect the seconds a step in FILE, which --json wrote earlier, when looking for slow trials.",
)
@click.option("--html", type=_OUTPUT, metavar="FILE", help="Write a report that needs no network.")
@click.option("--json", type=_OUTPUT, metavar="FILE", help="Write everything at full precision.")
@click.option("--csv", type=_OUTPUT, metavar="FILE", help="Write the table.")
@click.option("--markdown", type=_OUTPUT, metavar="FILE", help="Write the tables as Markdown.")
@click.option("--latex", type=_OUTPUT, metavar="FILE", help="Write the tables as LaTeX (booktabs).")
def command(
    directories: tuple[Path, ...],
    rules: str | None,
    mode: "Mode | None",
    strict: bool,
    resamples: int,
    seed: int,
    baseline: str | None,
    frozen: Path | None,
    paces: Path | None,
    **outputs: Path | None,
) -> None:
    """Score every submission found below DIR... against each other.

    DIR holds SUBMISSION/study_K/WORKLOAD_FRAMEWORK/trial_N folders, as `timetrial run` and AlgoPerf write
    them, or is one SUBMISSION. The score is the share of workloads within a factor tau of the fastest
    submission, averaged over tau from 1 to 4: 1 means fastest everywhere, and it depends on who else takes
    part, unless --frozen says against what to score.

    \b
    Examples:
      timetrial score runs
      timetrial score runs/adamw runs/nadamw --html report.html
      timetrial score logs/external_tuning --rules v0.5 --mode algoperf --json v05.json
      timetrial score my_entry --rules v0.5 --frozen v05.json
    """
    from rich.console import Console

    try:
        from timetrial.scoring import stored
        from timetrial.scoring.analysis import analyse
        from timetrial.scoring.field import read_field
        from timetrial.scoring.leaderboard import default_mode, score_field
        from timetrial.scoring.terminal import show_problems

        for output in filter(None, outputs.values()):
            if not output.parent.is_dir():
                raise UsageError(f"{output} cannot be written: {output.parent} is not a folder")
        field = read_field(directories, rules, processes=os.cpu_count() or 1)
        mode = mode or default_mode(field)
        reference = stored.read_best_times(frozen, field.rules.name, mode) if frozen else None
        board = score_field(field, mode, reference)
        if board.problems:
            show_problems(board.problems, Console(stderr=True))
        if strict and board.problems:
            raise UsageError(
                f"--strict refuses logs with problems, and there are {len(board.problems)}, listed above; mend them, "
                "or leave out --strict to score what can be used"
            )
        analysis = analyse(
            board,
            resamples=resamples,
            seed=seed,
            reference=baseline,
            stored_paces=stored.read_paces(paces) if paces else None,
        )
        _write(analysis, outputs)
    except (Error, OSError) as error:
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(2) from error
    _show(analysis)


def _write(analysis: "Analysis", outputs: dict[str, Path | None]) -> None:
    from timetrial.engine.records import write_text_atomic
    from timetrial.scoring import export, tables

    if path := outputs["html"]:
        from timetrial.scoring.report import write_report

        write_report(analysis, path)
    if path := outputs["json"]:
        export.write_json(analysis, path)
    for name, text_of in (
        ("csv", tables.csv_text),
        ("markdown", tables.markdown_text),
        ("latex", tables.latex_text),
    ):
        if path := outputs[name]:
            write_text_atomic(path, text_of(analysis))


def _show(analysis: "Analysis") -> None:
    from rich.console import Console

    from timetrial.scoring.terminal import show_health, show_leaderboard, show_mode_differences

    console = Console()
    show_leaderboard(analysis, console)
    show_mode_differences(analysis, console)
    show_health(analysis, console)
