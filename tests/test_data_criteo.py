"""The click logs: parsed as a plain loop does it, refused where malformed, cut into shards that can be resumed."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from criteo_logs import features, made_lines, text_of, write_day
from hypothesis import given
from hypothesis import strategies as st

from timetrial.data_loading import criteo1tb, criteo_days
from timetrial.data_loading.criteo1tb import Layout, convert_day
from timetrial.data_loading.criteo_days import Block
from timetrial.data_loading.criteo_rows import VOCABULARIES, buckets, parse
from timetrial.engine.errors import DataError

LAYOUT = Layout(rows_of_day=(25, 12, 23), rows_per_shard=10, test_shards=1, eval_train=8)
DAYS = [made_lines(rows, seed) for seed, rows in enumerate(LAYOUT.rows_of_day)]
LINE = DAYS[0][0]


def parsed(text, first_row=1):
    num_rows = text.count(b"\n")
    inputs, targets = np.empty((num_rows, 39), np.float32), np.empty(num_rows, np.uint8)
    parse(Block(file=Path("day_4.gz"), first_row=first_row, text=text, num_rows=num_rows), inputs, targets)
    return inputs, targets


def assert_is(lines, inputs, targets):
    expected = [features(line) for line in lines]
    dense, ids = np.split(np.array([row for row, _ in expected]), [13], axis=1)
    np.testing.assert_allclose(inputs[:, :13], dense, rtol=3e-7, atol=1e-7)
    np.testing.assert_array_equal(inputs[:, 13:], ids)
    assert targets.tolist() == [label for _, label in expected]


def converted(day, files, stored=()):
    return dict(convert_day(LAYOUT, day, tuple(files), frozenset(stored)))


@pytest.mark.parametrize(
    ("category", "column", "bucket"),
    # From a run of TensorFlow's to_hash_bucket_fast.
    [
        ("00000000", 0, 16124033),
        ("00000000", 1, 10351),
        ("00000000", 9, 27691836),
        ("00000000", 25, 8),
        ("05db9164", 0, 23230533),
        ("05db9164", 9, 31105631),
        ("68fd1e64", 0, 6734129),
        ("68fd1e64", 19, 7637784),
    ],
)
def test_buckets_are_the_references(category, column, bucket):
    word = np.array([int.from_bytes(category.encode(), "little")], np.uint64)
    assert buckets(word, column, VOCABULARIES[column]).tolist() == [bucket]


def test_buckets_are_rounded_to_float32_before_the_modulo():
    categories = ["05db9164"] * 26
    inputs, _ = parsed("\t".join(["1", *[""] * 13, *categories]).encode() + b"\n")
    assert inputs[0, 13] == 2259012  # 23230533 becomes 23230532
    assert inputs[0, 13 + 9] == 1745504  # 31105631 becomes 31105632
    assert inputs[0, 13:].max() < 2**22


integers = st.one_of(
    st.just(""), st.integers(-(10**12), 10**12).map(str), st.integers(0, 999).map("{:05}".format)
)
categories = st.one_of(st.just(""), st.integers(0, 2**32 - 1).map("{:08x}".format))
rows = st.tuples(
    st.sampled_from("01"), *[integers] * 13, *[categories] * 26
).map("\t".join)  # fmt: skip


@given(st.lists(rows, min_size=1, max_size=5))
def test_rows_are_parsed_as_a_plain_loop_does_it(lines):
    assert_is(lines, *parsed(text_of(lines)))


def with_field(number, text):
    fields = LINE.split("\t")
    fields[number] = text
    return "\t".join(fields)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (LINE.rpartition("\t")[0], "has 39 fields, not 40"),
        (LINE + "\t", "has 41 fields, not 40"),
        ("", "has 1 fields, not 40"),
        *[
            (with_field(0, text), rf"label of .* is '{text}', neither 0 nor 1")
            for text in ("2", "", "01", "-1")
        ],
        *[
            (with_field(5, text), "field 6 of .* neither integer nor empty")
            for text in ("1.5", "-", "--1", "+1", "1e3", " 1", "12345678x", "9" * 19, "/", ":", "\x0b", "é")
        ],
        *[
            (with_field(39, text), "field 40 of .* neither eight hex digits")
            for text in ("0123456", "012345678", "0123456g", "0123456`", "0123456:", "0123456/", "0123456A")
        ],
        (LINE + "\r", "field 40 of .* neither eight hex digits"),
    ],
)
def test_a_malformed_row_is_named(line, complaint):
    with pytest.raises(DataError, match=r"row 1,003 of day_4\.gz") as raised:
        parsed(text_of([LINE, LINE, line, LINE]), first_row=1001)
    assert raised.match(complaint)


def test_a_row_too_short_is_not_made_good_by_one_too_long():
    with pytest.raises(DataError, match=r"row 2 of .* has 39 fields"):
        parsed(text_of([LINE, LINE.rpartition("\t")[0], LINE + "\t"]))


@pytest.mark.parametrize("block_bytes", [1, 100, 1000, 1 << 20])
@pytest.mark.parametrize("form", ["gz", "plain", "cut"])
def test_a_day_becomes_shards_in_order(tmp_path, monkeypatch, form, block_bytes):
    monkeypatch.setattr(criteo_days, "BLOCK_BYTES", block_bytes)
    write_day(tmp_path, 0, DAYS[0], form, rows_per_file=7)
    shards = converted(0, criteo_days.files_of_day(tmp_path, 0))
    assert {name: len(arrays["targets"]) for name, arrays in shards.items()} == {
        "day_0_00": 10,
        "day_0_01": 10,
        "day_0_02": 5,
    }
    inputs, targets = (np.concatenate([s[key] for s in shards.values()]) for key in ("inputs", "targets"))
    assert inputs.dtype == np.float32 and targets.dtype == np.uint8
    assert_is(DAYS[0], inputs, targets)


def test_the_last_newline_may_be_missing(tmp_path):
    write_day(tmp_path, 1, DAYS[1], "cut", rows_per_file=5)
    files = criteo_days.files_of_day(tmp_path, 1)
    whole = converted(1, files)
    for file in files:
        file.write_bytes(file.read_bytes().removesuffix(b"\n"))
    for name, arrays in converted(1, files).items():
        np.testing.assert_array_equal(arrays["inputs"], whole[name]["inputs"])


def test_stored_shards_are_passed_over(tmp_path):
    write_day(tmp_path, 0, DAYS[0], "gz")
    files = criteo_days.files_of_day(tmp_path, 0)
    whole = converted(0, files)
    for stored in ({"day_0_00"}, {"day_0_01"}, {"day_0_00", "day_0_02"}):
        rest = converted(0, files, stored)
        assert set(rest) == set(whole) - stored
        for name, arrays in rest.items():
            np.testing.assert_array_equal(arrays["inputs"], whole[name]["inputs"])
    assert converted(0, [tmp_path / "not opened"], whole) == {}


def test_a_truncated_archive_is_refused(tmp_path):
    content = gzip.compress(text_of(DAYS[0]))
    file = tmp_path / "day_0.gz"
    for damaged in (content[:-12], content[: len(content) // 2], content[:-8] + b"checksum", b"not gzip"):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=r"day_0\.gz is damaged"):
            converted(0, [file])


@pytest.mark.parametrize(("rows", "whole"), [(24, 2), (20, 2), (3, 0), (26, 2), (47, 2)])
def test_a_day_with_other_rows_is_refused_before_its_last_shard(tmp_path, rows, whole):
    write_day(tmp_path, 0, made_lines(rows, 0), "plain")
    names = []
    with pytest.raises(DataError, match=rf"day 0 \(.*day_0\) has {rows} rows, not 25"):
        names.extend(name for name, _ in convert_day(LAYOUT, 0, (tmp_path / "day_0",), frozenset()))
    assert names == ["day_0_00", "day_0_01"][:whole]


def test_a_row_without_end_is_refused(tmp_path):
    (tmp_path / "day_0").write_bytes(text_of(DAYS[0][:3]) + b"x" * 5000)
    with pytest.raises(DataError, match=r"row 4 of .*day_0 has no end in 4,096 bytes"):
        converted(0, [tmp_path / "day_0"])


def test_missing_files_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(criteo1tb, "LAYOUT", LAYOUT)
    with pytest.raises(DataError, match=r"give the folder .* day_0\.gz to day_23\.gz"):
        criteo1tb.prepare(tmp_path / "data", None)
    with pytest.raises(DataError, match=r"nowhere has no day_0\.gz, day_0 or day_0_00"):
        criteo1tb.prepare(tmp_path / "data", tmp_path / "nowhere")
    source = tmp_path / "source"
    write_day(source, 0, DAYS[0], "gz")
    write_day(source, 2, DAYS[2], "plain")
    with pytest.raises(DataError, match=r"has no day_1\.gz"):
        criteo1tb.prepare(tmp_path / "data", source)
    write_day(source, 1, DAYS[1], "cut", rows_per_file=4)
    (source / "day_1_01").unlink()
    with pytest.raises(DataError, match="has day_1_02 and lacks day_1_01"):
        criteo1tb.prepare(tmp_path / "data", source)
    assert not (tmp_path / "data").exists()
