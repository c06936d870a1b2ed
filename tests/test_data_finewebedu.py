"""Educational pages as tokens: the encoding against its library, documents split and cut into windows, resumed."""

import json
from itertools import islice

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from tiktoken.load import data_gym_to_mergeable_bpe_ranks

from timetrial.data_loading import finewebedu, gpt2_tokens
from timetrial.data_loading.checksum import sha256_of
from timetrial.data_loading.finewebedu import Layout, convert_training, find_sources, windows_of
from timetrial.data_loading.prepared import prepare_once
from timetrial.engine.errors import DataError
from timetrial.engine.facts import Order

MERGES = "#version: 0.2\nt h\nth e\nĠ the\nĠ a\nÃ ¼\n"
DOCUMENTS = (70, 41)  # of each file
LAYOUT = Layout(
    documents=sum(DOCUMENTS), validated_of=3, documents_per_shard=30, validation_windows=9, length=8
)


def made_texts(file):
    draw = np.random.default_rng(file)
    words = ("the", "a", "über", "cat", "sat", "mat\n\n", "1984")
    texts = [" ".join(draw.choice(words, draw.integers(3, 25))) for _ in range(DOCUMENTS[file])]
    texts[4] = ""
    return texts


def write_source(folder):
    (folder / "sample/10BT").mkdir(parents=True)
    for file, count in enumerate(DOCUMENTS):
        table = pyarrow.table({"id": list(range(count)), "text": made_texts(file)})
        pyarrow.parquet.write_table(table, folder / f"sample/10BT/{file:03}_00000.parquet", row_group_size=16)
    (folder / "merges.txt").write_text(MERGES, encoding="utf-8")
    return folder


@pytest.fixture
def source(tmp_path, monkeypatch):
    folder = write_source(tmp_path / "source")
    monkeypatch.setattr(gpt2_tokens, "MERGES_SHA256", sha256_of(folder / "merges.txt"))
    return folder


def expected_windows(texts):
    encoding = gpt2_tokens.encoding_of(MERGES)
    tokens = [token for text in texts if text for token in [*encoding.encode_ordinary(text), 50256]]
    whole = len(tokens) // 9 * 9
    return [tokens[first : first + 9] for first in range(0, whole, 9)]


def converted(source, stored=()):
    return {
        name: arrays["windows"].tolist()
        for one in find_sources(source, LAYOUT)
        for name, arrays in convert_training(one, LAYOUT, frozenset(stored))
    }


def test_the_encoding_is_what_the_library_reads_from_the_published_files(tmp_path, monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    (tmp_path / "vocab.bpe").write_text(MERGES, encoding="utf-8")
    encoding = gpt2_tokens.encoding_of(MERGES)
    characters = [chr(i) for i in [*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324)]]
    names = [*characters, *(line.replace(" ", "") for line in MERGES.splitlines()[1:])]
    (tmp_path / "encoder.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    ranks = data_gym_to_mergeable_bpe_ranks(str(tmp_path / "vocab.bpe"), str(tmp_path / "encoder.json"))
    assert {encoding.decode_single_token_bytes(i): i for i in range(encoding.n_vocab)} == ranks
    assert encoding.encode_ordinary("the the über") == [257, 258, 220, 260, 65, 68, 81]
    assert encoding.decode(encoding.encode_ordinary(" a\n\tmat 漢")) == " a\n\tmat 漢"


def test_another_list_of_merges_is_refused(tmp_path):
    (tmp_path / "merges.txt").write_text(MERGES, encoding="utf-8")
    with pytest.raises(DataError, match=r"merges.txt should have sha256 1ce1664773c5"):
        gpt2_tokens.load(tmp_path / "merges.txt")


def test_shards_are_the_training_documents_end_to_end(source):
    validates = LAYOUT.validates()
    assert validates.sum() == sum(DOCUMENTS) // 3
    expected, first = {}, 0
    for file, count in enumerate(DOCUMENTS):
        for number, begin in enumerate(range(0, count, 30)):
            texts = made_texts(file)[begin : begin + 30]
            held = validates[first : first + count][begin : begin + 30]
            trained = [text for text, is_held in zip(texts, held, strict=True) if not is_held]
            expected[f"{file:03}_00000_{number:03}"] = expected_windows(trained)
        first += count
    assert converted(source) == expected


def test_a_conversion_that_broke_off_goes_on_with_the_same_shards(source):
    whole = converted(source)
    stored = ["000_00000_000", "001_00000_001"]
    assert converted(source, stored) == {name: rows for name, rows in whole.items() if name not in stored}


def test_special_tokens_in_a_text_are_text():
    encoding = gpt2_tokens.encoding_of(MERGES)
    text = "<|endoftext|>"
    windows = windows_of([text, None, "", "a"], encoding, 1)
    assert windows.ravel().tolist() == [*encoding.encode_ordinary(text), 50256, 64, 50256]
    assert windows.dtype == np.uint16


def test_prepared_windows_are_in_training_and_evaluation_batches(source, tmp_path, monkeypatch):
    shards = converted(source)
    folder = tmp_path / "data"
    # Workers are processes of their own, which do not see a patched checksum.
    monkeypatch.setattr(finewebedu, "prepare_parts", prepare_here)
    finewebedu.prepare(folder, source, LAYOUT)
    train = [tuple(row) for name in sorted(shards) for row in shards[name]]
    batch_size = 7
    seen = []
    batches = islice(
        finewebedu.training_batches(folder, Order(batch_size=batch_size, seed=2)), len(train) // 7
    )
    for batch in batches:
        assert batch["inputs"].shape == batch["targets"].shape == (batch_size, 8)
        assert batch["inputs"].dtype == np.int32
        np.testing.assert_array_equal(batch["inputs"][:, 1:], batch["targets"][:, :-1])
        seen += [tuple(row) for row in np.column_stack([batch["inputs"], batch["targets"][:, -1]]).tolist()]
    left_out = sorted(train)
    for row in seen:
        left_out.remove(row)  # each once
    assert len(left_out) == len(train) % 7
    validated = rows_of(finewebedu.evaluation_batches(folder, "validation", 4))
    assert validated == expected_validation()
    chosen = [train[i * len(train) // 5] for i in range(5)]
    assert rows_of(finewebedu.evaluation_batches(folder, "eval_train", 3, num_eval_train=5)) == chosen


def prepare_here(folder, name, version, list_parts):
    """`prepare_parts` in this process."""

    def convert():
        arrays = {"training": {}, "evaluation": {}}
        for part in list_parts():
            for shard, some in part.convert(frozenset()):
                arrays[part.side] |= {f"{shard}.{key}": array for key, array in some.items()}
        return arrays

    prepare_once(folder, name, version, convert)


def rows_of(batches):
    rows = []
    for batch in batches:
        real = batch["weights"].all(axis=1)
        assert not batch["weights"][~real].any()
        both = np.column_stack([batch["inputs"], batch["targets"][:, -1]])
        rows += [tuple(row) for row in both[real].tolist()]
    return rows


def expected_validation():
    """Four windows of the first file and five of the second, spread over what their held-out documents give."""
    validates = LAYOUT.validates()
    rows = []
    for file, share, first in ((0, 4, 0), (1, 5, DOCUMENTS[0])):
        held = validates[first : first + DOCUMENTS[file]]
        texts = [text for text, is_held in zip(made_texts(file), held, strict=True) if is_held]
        windows = expected_windows(texts)
        rows += [tuple(windows[i * len(windows) // share]) for i in range(share)]
    return rows


def test_sources_that_are_not_whole_are_refused(source, tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"hold 111 documents, not 9,672,101"):
        finewebedu.prepare(tmp_path / "data", source)
    file = source / "sample/10BT/001_00000.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"content": ["a"]}), file)
    with pytest.raises(DataError, match=r"001_00000.parquet has no column text; it has content"):
        find_sources(source, LAYOUT)
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(DataError, match=r"001_00000.parquet cannot be read as Parquet"):
        find_sources(source, LAYOUT)
    (source / "merges.txt").unlink()
    with pytest.raises(DataError, match=r"should hold the Parquet files of sample/10BT .* vocab.bpe"):
        find_sources(source, LAYOUT)
    with pytest.raises(DataError, match="finewebedu is not fetched"):
        finewebedu.prepare(tmp_path / "data")


def test_too_few_windows_to_validate_are_an_error(source):
    first, _ = find_sources(source, LAYOUT)
    with pytest.raises(DataError, match=r"000_00000.parquet has \d+ examples to choose 5000 from"):
        list(finewebedu.convert_validation(first, LAYOUT, 5000, frozenset()))
