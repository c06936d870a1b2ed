"""A column of texts in a Parquet file, read row by row."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from timetrial.engine.errors import DataError

COLUMN = "text"
ROWS_AT_ONCE = 1_000


def count_texts(path: Path) -> int:
    """The number of rows. DataError where the file is damaged or has no column `text`."""
    with _opened(path) as table:
        names = table.schema_arrow.names
        if COLUMN not in names:
            raise DataError(f"{path} has no column {COLUMN}; it has {', '.join(names)}")
        return int(table.metadata.num_rows)


def texts(path: Path) -> Iterator[str | None]:
    """The texts in order, None where there is none. DataError where they cannot be read."""
    with _opened(path) as table:
        for rows in table.iter_batches(ROWS_AT_ONCE, columns=[COLUMN]):
            yield from rows.column(0).to_pylist()


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file; whatever the library says of it while it is open becomes a DataError."""
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise DataError("Parquet files are read with pyarrow: install timetrial[full]") from error
    try:
        with ParquetFile(path) as table:
            yield table
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}") from error
