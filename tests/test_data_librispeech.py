"""LibriSpeech from a small corpus in the owner's layout: what is stored, what is refused, and batches."""

import itertools
import shutil
from dataclasses import replace

import numpy as np
import pytest
from speech_maker import TOO_LONG, TOO_WORDY, flac, made_utterances, write_archives, write_folders

from timetrial.data_loading import librispeech
from timetrial.data_loading.batches import selections
from timetrial.data_loading.librispeech_sources import OwnerFiles, parse_transcripts, utterances
from timetrial.data_loading.prepared import open_arrays
from timetrial.engine.errors import DataError
from timetrial.engine.facts import Order

CORPUS = made_utterances()
COUNTS = {
    "train_clean_100": 7,
    "train_clean_360": 3,
    "train_other_500": 6,
    "dev_clean": 3,
    "dev_other": 3,
    "test_clean": 3,
}
SIZES = librispeech.Sizes(
    **COUNTS, train=14, eval_train=5, validation=6, test=3, vocabulary=40, per_shard=2, hours=1
)


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(librispeech, "SIZES", SIZES)
        yield


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder prepared from the archives; only read from."""
    folder = tmp_path_factory.mktemp("librispeech")
    librispeech.prepare(folder, write_archives(folder / "source", CORPUS))
    shutil.rmtree(folder / "source")
    return folder


def wanted(split):
    """[(transcript, samples)] of a split, by the utterances' numbers, without those that are too long."""
    own = [one for part in librispeech.SPLITS[split] for chapter in CORPUS[part].values() for one in chapter]
    own.sort(key=lambda one: [int(number) for number in one[0].split("-")])
    return [(transcript, samples) for name, transcript, samples in own if name not in (TOO_LONG, TOO_WORDY)]


def rows(batch):
    """[(labels, samples)] of a batch's rows, padding removed after checking that it is at the end and zero."""
    found = []
    for (values, padding), (labels, label_padding) in zip(
        zip(*batch["inputs"], strict=True), zip(*batch["targets"], strict=True), strict=True
    ):
        pair = []
        for array, mask in ((labels, label_padding), (values, padding)):
            length = int((mask == 0).sum())
            assert mask[:length].max(initial=0) == 0 and mask[length:].min(initial=1) == 1
            assert not array[length:].any()
            pair.append(array[:length])
        found.append(tuple(pair))
    return found


def text_of(folder, labels):
    assert labels[-1] == 2 and 2 not in labels[:-1] and 0 not in labels
    return librispeech.load_tokenizer(folder).decode([labels.tolist()])[0]


@pytest.mark.parametrize("split", ["validation", "test", "train"])
def test_every_short_utterance_is_stored_exactly_and_in_the_order_of_its_numbers(prepared, split):
    found = [
        row for batch in librispeech._opened(prepared, split).evaluation_batches(3) for row in rows(batch)
    ]
    found = [row for row in found if len(row[1])]
    assert len(found) == len(wanted(split)) == getattr(SIZES, split)
    for (labels, audio), (transcript, samples) in zip(found, wanted(split), strict=True):
        np.testing.assert_array_equal(audio, samples.astype(np.float32))
        assert text_of(prepared, labels) == transcript


def test_batches_have_the_lengths_of_the_longest_that_are_kept(prepared):
    batch = next(librispeech.training_batches(prepared, Order(batch_size=4, seed=0)))
    described = {
        key: [
            (array.shape, array.dtype.name, array.flags.c_contiguous, array.flags.writeable) for array in pair
        ]
        for key, pair in batch.items()
    }
    assert described == {
        "inputs": [((4, 320_000), "float32", True, True)] * 2,
        "targets": [((4, 256), "int32", True, True), ((4, 256), "float32", True, True)],
    }


def test_the_training_order_is_the_projects_and_resumes_anywhere(prepared):
    order = Order(batch_size=4, seed=3)
    whole = [rows(batch) for batch in itertools.islice(librispeech.training_batches(prepared, order), 5)]
    kept = wanted("train")
    for batch, selection in zip(whole, selections(len(kept), order), strict=False):
        for (_, audio), index in zip(batch, selection.indices, strict=True):
            np.testing.assert_array_equal(audio, kept[index][1])
    shares = []
    for rank in (0, 1):
        later = Order(batch_size=4, seed=3, first_batch=4, rank=rank, world_size=2)
        shares += rows(next(librispeech.training_batches(prepared, later)))
    for (_, audio), (_, same) in zip(shares, whole[4], strict=True):
        np.testing.assert_array_equal(audio, same)


@pytest.mark.parametrize(("split", "batch_size"), [("eval_train", 2), ("validation", 4), ("test", 3)])
def test_evaluated_utterances_count_once(prepared, split, batch_size):
    batches = list(librispeech.evaluation_batches(prepared, split, batch_size))
    weights = np.concatenate([batch["weights"] for batch in batches])
    audio = [row[1] for batch in batches for row in rows(batch)]
    labels = [row[0] for batch in batches for row in rows(batch)]
    kept = wanted("train" if split == "eval_train" else split)
    if split == "eval_train":
        kept = [kept[i * len(kept) // 5] for i in range(5)]
    assert weights.tolist() == [1.0] * len(kept) + [0.0] * (-len(kept) % batch_size)
    for found, (_, samples) in zip(audio, kept, strict=False):
        np.testing.assert_array_equal(found, samples)
    assert not any(map(len, audio[len(kept) :])) and not any(map(len, labels[len(kept) :]))
    assert {batch["inputs"][0].shape for batch in batches} == {(batch_size, 320_000)}


def test_archives_and_folders_give_the_same_batches(prepared, tmp_path):
    # Shards differ, for archives are in another order.
    librispeech.prepare(tmp_path / "data", write_folders(tmp_path, CORPUS))
    order = Order(batch_size=7, seed=1)
    for batches in (
        [next(librispeech.training_batches(folder, order)) for folder in (prepared, tmp_path / "data")],
        [
            next(iter(librispeech.evaluation_batches(folder, "validation", 6)))
            for folder in (prepared, tmp_path / "data")
        ],
    ):
        for key in ("inputs", "targets"):
            for one, other in zip(batches[0][key], batches[1][key], strict=True):
                np.testing.assert_array_equal(one, other)
    first = open_arrays(prepared, "training", "librispeech", librispeech.VERSION)[
        "train-clean-100_000.numbers"
    ]
    other = open_arrays(tmp_path / "data", "training", "librispeech", 1)["train-clean-100_000.numbers"]
    assert first.tolist() != other.tolist()


def test_the_training_side_holds_nothing_of_the_other_splits(prepared):
    names = {
        key.split("_")[0] for key in open_arrays(prepared, "training", "librispeech", librispeech.VERSION)
    }
    assert names == set(librispeech.SPLITS["train"])


def test_samples_are_stored_in_two_bytes(prepared):
    arrays = open_arrays(prepared, "evaluation", "librispeech", librispeech.VERSION)
    assert arrays["test-clean_000.audio"].dtype == np.int16
    assert librispeech.disk_need(None) > sum(
        array.nbytes
        for side in ("training", "evaluation")
        for array in open_arrays(prepared, side, "librispeech", 1).values()
    )


def test_a_broken_conversion_keeps_its_shards_and_goes_on(tmp_path, monkeypatch):
    source = write_archives(tmp_path / "source", CORPUS)
    files = OwnerFiles(path=source / "test-clean.tar.gz", split="test-clean")
    (part,) = [part for part in librispeech.parts(source, SIZES) if part.name == "test-clean"]
    shards = dict(part.convert(frozenset()))
    assert list(shards) == ["test-clean_000", "test-clean_001"]
    rest = dict(part.convert(frozenset({"test-clean_000"})))
    assert list(rest) == ["test-clean_001"]
    for key, array in rest["test-clean_001"].items():
        np.testing.assert_array_equal(array, shards["test-clean_001"][key])
    assert [one.name for one in utterances(files)] == [f"61-70968-{i:04}" for i in (2, 1, 0)]
    with pytest.raises(DataError, match=r"test-clean\.tar\.gz holds 3 utterances, not 4"):
        dict(
            librispeech.convert_split(
                files, b"", librispeech.Sizes(**(COUNTS | {"test_clean": 4})), frozenset()
            )
        )


def edited(tmp_path, change):
    """The extracted corpus after `change` of its folder LibriSpeech."""
    source = write_folders(tmp_path, CORPUS)
    change(source / "LibriSpeech")
    return source


CHAPTER = "dev-clean/84/121123/84-121123"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda root: shutil.rmtree(root / "dev-other"),
            r"holds neither dev-other\.tar\.gz nor LibriSpeech/dev-other/",
        ),
        (
            lambda root: (root / f"{CHAPTER}.trans.txt").unlink(),
            r"dev-clean lacks 84-121123\.trans\.txt, the transcripts of recordings that are there",
        ),
        (
            lambda root: (root / f"{CHAPTER}-0001.flac").unlink(),
            r"dev-clean lacks 84-121123-0001\.flac, of which there is a transcript",
        ),
        (
            lambda root: (root / f"{CHAPTER}.trans.txt").write_text(
                "84-121123-0000 YES\n84-121123-0002 NO\n"
            ),
            r"84-121123-0001\.flac has no line in 84-121123\.trans\.txt",
        ),
        (
            lambda root: (root / f"{CHAPTER}.trans.txt").write_text("84-121123-0000 YES\n84-121123-0001\n"),
            r"84-121123\.trans\.txt, line 2: '84-121123-0001' is not the name of an utterance and its transcript",
        ),
        (
            lambda root: (root / f"{CHAPTER}-0001.flac").write_bytes(
                (root / f"{CHAPTER}-0001.flac").read_bytes()[:-900]
            ),
            r"84-121123-0001\.flac is cut short or no FLAC file",
        ),
        (
            lambda root: (root / f"{CHAPTER}-0002.flac").write_bytes(flac(np.zeros(9, np.int16), 8_000)),
            r"84-121123-0002\.flac has 8000 samples a second, not 16000",
        ),
        (
            lambda root: (root / f"{CHAPTER}-0002.flac").write_bytes(flac(np.zeros((9, 2), np.int16))),
            r"84-121123-0002\.flac has 2 channels, not 1",
        ),
        (
            lambda root: shutil.rmtree(root / "train-clean-100/19"),
            r"train-clean-100 has transcripts of 4 utterances, not 7",
        ),
    ],
)
def test_what_is_missing_or_damaged_is_named(tmp_path, change, message):
    source = edited(tmp_path, change)
    with pytest.raises(DataError, match=message):
        for part in librispeech.parts(source, SIZES):
            if part.name == "dev-clean":
                list(part.convert(frozenset()))


def test_a_truncated_archive_is_named(tmp_path):
    source = write_archives(tmp_path, CORPUS)
    archive = source / "train-clean-100.tar.gz"
    archive.write_bytes(archive.read_bytes()[:20_000])
    with pytest.raises(DataError, match=r"train-clean-100\.tar\.gz cannot be read to its end"):
        librispeech.parts(source, SIZES)


def test_no_owners_files_are_fetched(tmp_path):
    with pytest.raises(DataError, match="give the folder that holds train-clean-100"):
        librispeech.prepare(tmp_path)


@pytest.mark.parametrize(("wanted_count", "refused"), [(11, True), (12, False), (16, False), (17, True)])
def test_a_filter_that_keeps_another_number_is_noticed(prepared, monkeypatch, wanted_count, refused):
    monkeypatch.setattr(librispeech, "SIZES", replace(SIZES, train=wanted_count))
    if not refused:
        assert len(librispeech._opened(prepared, "train")) == 14
        return
    with pytest.raises(
        DataError, match=rf"14 utterances of train-clean-100 .* short enough, not {wanted_count}"
    ):
        librispeech.training_batches(prepared, Order(batch_size=4, seed=0))


def test_transcripts_keep_their_characters():
    assert parse_transcripts(b"1-2-0003 IT'S A  LINE\r\n", "file") == {"1-2-0003": "IT'S A  LINE"}
    with pytest.raises(DataError, match="file is no text in UTF-8"):
        parse_transcripts(b"1-2-0003 \xff\n", "file")
