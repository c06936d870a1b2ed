"""The files of OGB's ogbg-molpcba as its owner ships them: comma-separated numbers without headers, gzipped.

    raw/num-node-list, raw/num-edge-list    a row per graph: how many atoms, how many bonds
    raw/node-feat (9), raw/edge-feat (3)    a row per atom or bond, graph after graph: categories as integers
    raw/edge (2)                            a row per bond: its two atoms, numbered within the graph
    raw/graph-label (128)                   a row per graph: 0, 1, or nothing
    split/scaffold/train, valid, test       a row per graph of a split: its number

Each is NAME.csv.gz, in `pcba.zip` as downloaded, or in the extracted folder, which is called `pcba` and which
OGB's own loader renames to `ogbg_molpcba`.
"""

import gzip
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from timetrial.data_loading.graphs import UNKNOWN, PackedGraphs
from timetrial.engine.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

ARCHIVE = "pcba.zip"
FOLDERS = ("pcba", "ogbg_molpcba", ".")
NODE_FEATURES, EDGE_FEATURES = 9, 3
ROWS_AT_ONCE = 1_000_000
PARTS = {"train": "train", "validation": "valid", "test": "test"}  # what OGB calls the splits


class OwnerFiles:
    """The files in a folder, or in the archive in it. DataError where neither is there."""

    def __init__(self, source: Path) -> None:
        self._root = next((root for name in FOLDERS if ((root := source / name) / "raw").is_dir()), None)
        self._archive = source / ARCHIVE
        if self._root is None and not self._archive.is_file():
            raise DataError(f"{source} holds neither {ARCHIVE} nor a folder pcba or ogbg_molpcba")

    @contextmanager
    def open(self, name: str) -> Iterator[tuple[str, IO[bytes]]]:
        """What to call the file `name`.csv.gz in a message, and its packed bytes. DataError where it is missing."""
        if self._root is not None:
            path = self._root / f"{name}.csv.gz"
            if not path.is_file():
                raise DataError(f"{path} is missing")
            with path.open("rb") as file:
                yield str(path), file
            return
        member = f"pcba/{name}.csv.gz"
        try:
            with zipfile.ZipFile(self._archive) as archive, archive.open(member) as file:
                yield f"{member} in {self._archive}", file
        except KeyError as error:
            raise DataError(f"{self._archive} has no {member}") from error
        except zipfile.BadZipFile as error:
            raise DataError(f"{self._archive} is damaged: {error}") from error

    def integers(self, name: str, columns: int, largest: int, dtype: type[np.integer[Any]]) -> np.ndarray:
        """A file of whole numbers from 0 to `largest`, (rows, columns) of `dtype`.

        DataError where it has other columns or other numbers; rows are counted from 1.
        """
        pieces = []
        for where, first_row, values in self._pieces(name, columns):
            good = (values >= 0) & (values <= largest) & (values == np.floor(values))
            _require(good, where, first_row, f"{columns} whole numbers from 0 to {largest}")
            pieces.append(values.astype(dtype))
        return np.concatenate(pieces)

    def labels(self, name: str, columns: int) -> np.ndarray:
        """A file of 0, 1 and nothing, (rows, columns) int8, where nothing is `UNKNOWN`. DataError as above."""
        pieces = []
        for where, first_row, values in self._pieces(name, columns):
            unknown = np.isnan(values)
            _require(
                unknown | (values == 0) | (values == 1), where, first_row, f"{columns} labels 0, 1 or nothing"
            )
            pieces.append(np.where(unknown, UNKNOWN, values).astype(np.int8))
        return np.concatenate(pieces)

    def _pieces(self, name: str, columns: int) -> Iterator[tuple[str, int, np.ndarray]]:
        """What to call the file, the number of the piece's first row, and some rows as float64; empty cells NaN."""
        import pandas as pd  # a third of a second, for which the other workloads shall not wait

        with self.open(name) as (where, file):
            try:
                with pd.read_csv(
                    file, header=None, compression="gzip", chunksize=ROWS_AT_ONCE, skip_blank_lines=False
                ) as reader:
                    row = 1
                    for table in reader:
                        yield where, row, _numbers(table, columns, where, row)
                        row += len(table)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise DataError(f"{where} is damaged: {error}") from error
            except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
                raise DataError(
                    f"{where} is not rows of {columns} numbers: {' '.join(str(error).split())}"
                ) from error


def _numbers(table: "pd.DataFrame", columns: int, where: str, first_row: int) -> np.ndarray:
    import pandas as pd

    if table.shape[1] != columns:
        raise DataError(f"{where}: row {first_row} has {table.shape[1]} columns, not {columns}")
    numbers = table.apply(pd.to_numeric, errors="coerce")
    _require((numbers.notna() | table.isna()).to_numpy(), where, first_row, f"{columns} numbers")
    values: np.ndarray = numbers.to_numpy(np.float64)
    return values


def _require(good: np.ndarray, where: str, first_row: int, what: str) -> None:
    """DataError that names the first row in which not all is good."""
    bad = np.flatnonzero(~good.all(axis=1))
    if len(bad):
        raise DataError(f"{where}: row {first_row + int(bad[0])} is not {what}")


def read_bonds(files: OwnerFiles, num_tasks: int) -> PackedGraphs:
    """All molecules, each bond once. DataError where files are missing, wrong, or do not belong together."""
    most = int(np.iinfo(np.uint16).max)
    n_node = files.integers("raw/num-node-list", 1, most, np.int32)[:, 0]
    n_edge = files.integers("raw/num-edge-list", 1, most, np.int32)[:, 0]
    codes = int(np.iinfo(np.uint8).max)
    nodes = files.integers("raw/node-feat", NODE_FEATURES, codes, np.uint8)
    edges = files.integers("raw/edge-feat", EDGE_FEATURES, codes, np.uint8)
    ends = files.integers("raw/edge", 2, most, np.uint16)
    labels = files.labels("raw/graph-label", num_tasks)
    for name, found, wanted in (
        ("num-edge-list", len(n_edge), len(n_node)),
        ("graph-label", len(labels), len(n_node)),
        ("node-feat", len(nodes), int(n_node.sum())),
        ("edge-feat", len(edges), int(n_edge.sum())),
        ("edge", len(ends), int(n_edge.sum())),
    ):
        if found != wanted:
            with files.open(f"raw/{name}") as (where, _):
                raise DataError(
                    f"{where} has {found:,} rows, not {wanted:,} as the lists of nodes and edges say"
                )
    outside = np.flatnonzero((ends >= np.repeat(n_node, n_edge)[:, None]).any(axis=1))
    if len(outside):
        graph = int(np.searchsorted(np.cumsum(n_edge), outside[0], "right"))
        with files.open("raw/edge") as (where, _):
            raise DataError(
                f"{where}: row {outside[0] + 1} names an atom beyond the {n_node[graph]} of graph {graph}, its own"
            )
    return PackedGraphs(
        n_node=n_node,
        n_edge=n_edge,
        nodes=nodes,
        edges=edges,
        senders=ends[:, 0],
        receivers=ends[:, 1],
        labels=labels,
    )


def read_splits(files: OwnerFiles, num_graphs: int) -> dict[str, np.ndarray]:
    """The numbers of the graphs of `train`, `validation` and `test`, as stored. DataError where one is in two."""
    rows = {
        split: files.integers(f"split/scaffold/{part}", 1, num_graphs - 1, np.int64)[:, 0]
        for split, part in PARTS.items()
    }
    times = np.bincount(np.concatenate(list(rows.values())), minlength=num_graphs)
    if times.max() > 1:
        with files.open("split/scaffold/train") as (where, _):
            raise DataError(
                f"{where} and the files beside it name graph {times.argmax()} {times.max()} times"
            )
    return rows
