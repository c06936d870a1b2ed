"""`timetrial data`: fetch and convert datasets ahead of a race."""

from pathlib import Path

import click


@click.group(name="data")
def command() -> None:
    """Fetch and convert the data that workloads need; `timetrial run` does it too where it has not been done."""


@command.command()
@click.argument("workloads", nargs=-1, required=True)
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where to; default: the user's cache.")
def prepare(workloads: tuple[str, ...], data_dir: Path | None) -> None:
    """Fetch and convert the data of WORKLOADS, once.

    \b
    Example:
      timetrial data prepare imagenet_resnet_pocket finewebedu_lm_pocket
    """
    from timetrial.engine.cli import fetch
    from timetrial.engine.cli.places import chosen_workloads, data_folder

    for facts in chosen_workloads(",".join(workloads), None):
        click.echo(f"{facts.name}: {facts.licence}")
        fetch.prepare(facts, data_folder(data_dir))
        click.echo(f"{facts.name}: ready in {data_folder(data_dir)}")
