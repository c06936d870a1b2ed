"""`timetrial score`: read run directories or AlgoPerf logs and print, or write, the leaderboard."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from timetrial.engine.errors import Error, UsageError

if TYPE_CHECKING:
    from timetrial.scoring.leaderboard import Leaderboard
    from timetrial.scoring.time_to_target import Mode

_OUTPUT = click.Path(dir_okay=False, path_type=Path)


@click.command("score")
@click.argument(
    "directories", nargs=-1, required=True, metavar="DIR...", type=click.Path(path_type=Path, file_okay=False)
)
@click.option(
    "--rules",
    type=click.Choice(["pocket", "v0.5", "v0.6"]),
    help="Which workloads and targets count; found out from the logs if not given.",
)
@click.option(
    "--mode",
    type=click.Choice(["exact", "algoperf"]),
    default="exact",
    show_default=True,
    help="exact: the written rules, by closed-form integral; algoperf: as published scores were computed.",
)
@click.option("--html", type=_OUTPUT, metavar="FILE", help="Write a report that needs no network.")
@click.option("--json", type=_OUTPUT, metavar="FILE", help="Write everything at full precision.")
@click.option("--csv", type=_OUTPUT, metavar="FILE", help="Write the table.")
def command(
    directories: tuple[Path, ...],
    rules: str | None,
    mode: "Mode",
    html: Path | None,
    json: Path | None,
    csv: Path | None,
) -> None:
    """Score every submission found below DIR... against each other.

    DIR holds SUBMISSION/study_K/WORKLOAD_FRAMEWORK/trial_N folders, as `timetrial run` and AlgoPerf write
    them, or is one SUBMISSION. The score is the share of workloads within a factor tau of the fastest
    submission, averaged over tau from 1 to 4: 1 means fastest everywhere, and it depends on who else takes
    part.

    \b
    Examples:
      timetrial score runs
      timetrial score runs/adamw runs/nadamw --html report.html
      timetrial score logs/external_tuning --rules v0.5 --mode algoperf
    """
    try:
        from timetrial.scoring.leaderboard import score_directories

        for output in filter(None, (html, json, csv)):
            if not output.parent.is_dir():
                raise UsageError(f"{output} cannot be written: {output.parent} is not a folder")
        board = score_directories(directories, rules, mode)
        _write(board, html, json, csv)
    except (Error, OSError) as error:
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(2) from error
    _show(board)


def _write(board: "Leaderboard", html: Path | None, json: Path | None, csv: Path | None) -> None:
    from timetrial.scoring import export

    if html:
        from timetrial.scoring.report import write_report

        write_report(board, html)
    if json:
        export.write_json(board, json)
    if csv:
        export.write_csv(board, csv)


def _show(board: "Leaderboard") -> None:
    from rich.console import Console

    from timetrial.scoring.terminal import show_leaderboard, show_problems

    show_leaderboard(board, Console())
    if board.problems:
        show_problems(board.problems, Console(stderr=True))
