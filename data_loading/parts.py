"""Datasets too large for memory, converted part by part in worker processes, and resumed where they broke off.

A part is a stretch of the conversion that can be done alone, such as a day of logs; it yields shards. A shard's
arrays are stored with their checksums as they come, and a record of them last, so a killed conversion keeps
every shard that has a record. When all parts are done the records become the two manifests of `prepared.py`.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import msgspec

from timetrial.data_loading.download import progress
from timetrial.data_loading.prepared import (
    SIDES,
    Arrays,
    Manifest,
    Side,
    StoredArray,
    is_complete,
    locked,
    move_into_place,
    scratch_folder,
    store_array,
    write_manifest,
)
from timetrial.engine.errors import DataError

RECORDS = "records"  # a folder beside the two sides: one file a finished shard
PLAN = "plan.json"  # what is being converted, so that another conversion is not taken for its continuation
LOOK_SECONDS = 1.0  # between two looks at how far the workers are


@dataclass(frozen=True, kw_only=True)
class Part:
    """One stretch of a conversion. `convert` runs in a process of its own, so it must be picklable.

    Given the names of this part's shards that are stored already, it yields (name, arrays) of each of the
    others, in order. Names are unique within the dataset's side.
    """

    name: str
    side: Side
    num_bytes: int  # of the source files
    convert: Callable[[frozenset[str]], Iterator[tuple[str, Arrays]]]


class Plan(msgspec.Struct, frozen=True):
    """What a scratch folder holds a conversion of."""

    version: int
    parts: list[tuple[str, Side, int]]  # name, side, bytes of the source


class ShardRecord(msgspec.Struct, frozen=True):
    """A finished shard. Its arrays are stored as SHARD.KEY."""

    part: str
    shard: str
    side: Side
    arrays: dict[str, StoredArray]


def prepare_parts(folder: Path, name: str, version: int, list_parts: Callable[[], Sequence[Part]]) -> None:
    """Make the dataset unless it is there, of this version and with files of the right sizes.

    Its parts are listed only then. Whatever a part raises ends the conversion; the shards that are finished stay
    for the next attempt.
    """
    if is_complete(folder, name, version):
        return
    parts = list_parts()  # before anything is written: it may find that the source is wrong
    with locked(folder, name):
        if is_complete(folder, name, version):
            return  # by another process meanwhile
        scratch = _scratch(folder, name, version, parts)
        _convert(scratch, name, parts)
        records = list(_records(scratch))
        for side in SIDES:
            arrays = {
                f"{record.shard}.{key}": stored
                for record in records
                if record.side == side
                for key, stored in record.arrays.items()
            }
            write_manifest(scratch / side, Manifest(version=version, arrays=arrays))
        move_into_place(folder, name)


def given(source: Path | None, name: str, owner_files: str) -> Path:
    """The folder of the owner's files. DataError, which says what it must hold, where none is given."""
    if source is None:
        raise DataError(f"{name} is not fetched: give the folder that holds {owner_files}")
    return source


def _scratch(folder: Path, name: str, version: int, parts: Sequence[Part]) -> Path:
    """The scratch folder, emptied unless it holds a conversion of the same parts."""
    scratch = scratch_folder(folder, name)
    plan = msgspec.json.encode(
        Plan(version=version, parts=[(part.name, part.side, part.num_bytes) for part in parts])
    )
    if not (scratch / PLAN).is_file() or (scratch / PLAN).read_bytes() != plan:
        shutil.rmtree(scratch, ignore_errors=True)
        for inside in (*SIDES, RECORDS):
            (scratch / inside).mkdir(parents=True)
        (scratch / PLAN).write_bytes(plan)
    return scratch


def _records(scratch: Path) -> Iterator[ShardRecord]:
    for path in sorted((scratch / RECORDS).glob("*.json")):
        yield msgspec.json.decode(path.read_bytes(), type=ShardRecord)


def _convert(scratch: Path, name: str, parts: Sequence[Part]) -> None:
    """Run all parts, as many at a time as there are cores, and report how far they are."""
    finished: dict[str, set[str]] = {}
    for record in _records(scratch):
        finished.setdefault(record.part, set()).add(record.shard)
    report = progress.get() or (lambda *_: None)
    workers = min(len(parts), len(os.sched_getaffinity(0)))
    # Not forked: this process may have threads.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        running: dict[Future[None], Part] = {
            pool.submit(_convert_part, scratch, part, frozenset(finished.get(part.name, ()))): part
            for part in parts
        }
        done_bytes, total_bytes = 0, sum(part.num_bytes for part in parts)
        try:
            while running:
                report(f"{name}: source read", done_bytes, total_bytes)
                report(f"{name}: written", _bytes_below(scratch), None)
                done, _ = wait(running, timeout=LOOK_SECONDS, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                    done_bytes += running.pop(future).num_bytes
        except BrokenProcessPool as error:
            raise DataError(
                f"a process that converted {name} was killed, for want of memory perhaps; the same command goes on"
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _convert_part(scratch: Path, part: Part, stored: frozenset[str]) -> None:
    """In a worker: store every shard of a part that is not stored."""
    for shard, arrays in part.convert(stored):
        written = {
            key: store_array(scratch / part.side, f"{shard}.{key}", array) for key, array in arrays.items()
        }
        record = ShardRecord(part=part.name, shard=shard, side=part.side, arrays=written)
        unfinished = scratch / RECORDS / f"{part.side}.{shard}.tmp"
        unfinished.write_bytes(msgspec.json.encode(record))
        unfinished.replace(unfinished.with_suffix(".json"))


def _bytes_below(scratch: Path) -> int:
    return sum(entry.stat().st_size for side in SIDES for entry in os.scandir(scratch / side))
