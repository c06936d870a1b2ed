"""Preparing a workload's data, with a progress bar where there is a terminal."""

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from timetrial.data_loading.download import progress
from timetrial.engine.facts import WorkloadFacts


def prepare(facts: WorkloadFacts, folder: Path) -> None:
    """Fetch and convert the data of `facts` below `folder`, unless it is there. DataError if that fails."""
    console = Console(highlight=False)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        shown: dict[str, TaskID] = {}

        def report(name: str, done: int, total: int | None) -> None:
            if name not in shown:
                shown[name] = bars.add_task(name, total=total)
            bars.update(shown[name], completed=done, total=total)

        token = progress.set(report)
        try:
            facts.prepare(folder)
        finally:
            progress.reset(token)
