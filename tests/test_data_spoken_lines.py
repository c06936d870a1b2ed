"""The spoken lines, from a small data file of the game's layout in a Debian package: what is kept, and batches."""

import hashlib
import io
import itertools
import lzma
import struct
import tarfile

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from timetrial.data_loading import spoken_lines
from timetrial.data_loading.game_speech import SpokenLine
from timetrial.data_loading.game_speech import spoken_lines as lines_of
from timetrial.engine.errors import DataError
from timetrial.engine.facts import Order

RATE = 11_025
TRAIN_KEYS, VALIDATION_KEY, TEST_KEY = (1, 2, 3), 5, 4  # of dialogues, by `split_of`


def mp3(seconds, rate=RATE, channels=1):
    rng = np.random.default_rng(int(1000 * seconds))
    samples = 0.1 * rng.standard_normal((int(seconds * rate), channels))
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="MP3", subtype="MPEG_LAYER_III")
    return file.getvalue()


def text(content, alignment, place):
    """A text as it is stored at a place."""
    stored = bytes([len(content)]) + content.encode("latin-1")
    return stored + bytes(-(place + len(stored)) % alignment if content else 0)


def dialogue(key, hero, others):
    """KEY.DOG of {line: text}."""
    levels = 2
    data = bytearray(32 + 96 * levels)
    for name, lines in (("hero", hero), ("others", others)):
        if name == "others":
            struct.pack_into(">H", data, 22, len(data))
        for number, line in lines.items():
            data += struct.pack(">hh", 0, number)
            data += text(line, 4, len(data))
    struct.pack_into(">5h", data, 0, levels, 5, key, len(hero), len(others))
    return b"AmBk" + bytes(16) + data


def scene(lines):
    """NAME.CUT of texts, the one before the first included."""
    data = bytearray(60)
    struct.pack_into(">hhhH", data, 2, 1 - len(lines), 0, 0, 60)
    for line in lines:
        data += text(line, 2, len(data))
    return b"AmBk" + bytes(16) + data


def container(entries):
    """The data file with these entries."""
    begin = 15 + 21 * len(entries)
    head, body = b"QTBLCEM10\0\0\0\1" + struct.pack(">H", len(entries)), b""
    assert len(head) == 15
    for name, content in entries.items():
        head += struct.pack(">12sBII", name.encode(), 1, begin + len(body), len(content))
        body += content
    return head + body


def small_game():
    entries = {}
    for key in (*TRAIN_KEYS, VALIDATION_KEY, TEST_KEY):
        hero = {0xBD: f"Is number {'abcdefghijklmnopqrstuvwxyz'[key]} here?*03"}
        others = {
            i: f"*FLThey're {'xyzw'[i]} of {'abcdefghijklmnopqrstuvwxyz'[key]}.*00Good-bye, pal!"
            for i in range(4)
        }
        entries[f"TALK{key}.DOG"] = dialogue(key, hero, others)
        entries[f"{key:02}00BDJ1.SB"] = mp3(1.5)
        for i in range(4):
            entries[f"{key:02}{i:04X}P2.SB"] = mp3(1.25 + 0.25 * i)
    return entries


def voices(entries):
    return {line.voice: (line.where, line.text, line.mp3) for line in lines_of(container(entries))}


def test_a_recording_is_found_by_place_line_speaker_and_segment():
    entries = {
        "APE.DOG": dialogue(5, {0xBD: "Sorry pal.*16*02Not you.", 7: ""}, {0xBD: "*FLThanks *00a lot!"}),
        "C15E.CUT": scene(["", "Skip?*03", "*01No thanks.*00I'm grown up.*00*02"]),
        "QUEEN2.JAS": b"It looks nice*03\r\nNeat*02But small*24\r\n",
        "0500BDJ1.SB": b"a",
        "0500BDJ2.SB": b"b",  # nothing is said between the two directions
        "0500BDJ3.SB": b"c",
        "0500BDP3.SB": b"d",
        "C15E_023.SB": b"e",
        "JOE00422.SB": b"f",
        "05SSSSJ1.SB": b"g",  # a stock reply
        "APE.PCX": b"not of speech",
    }
    assert voices(entries) == {
        "0500BDJ1": ("dialogue 05", "Sorry pal.", b"a"),
        "0500BDJ3": ("dialogue 05", "Not you.", b"c"),
        "0500BDP3": ("dialogue 05", "a lot!", b"d"),
        "C15E_023": ("scene C15E", "I'm grown up.", b"e"),
        "JOE00422": ("descriptions", "But small", b"f"),
    }


def test_the_tenth_segment_is_an_a():
    line = "*00".join(f"word {i}" for i in range(12))
    found = voices({"T.DOG": dialogue(3, {}, {1: line}), "030001PA.SB": b"x", "030001PC.SB": b"y"})
    assert [said for _, said, _ in found.values()] == ["word 9", "word 11"]


def test_another_file_is_refused():
    game = container(small_game())
    for content, message in (
        (b"QTBLCEM10\0\0\0\0" + game[13:], "not the data file .* with recordings in mp3"),
        (b"PK" + game, "not the data file"),
        (game[:-1], "cut off"),
        (game[:20], "damaged"),
        (container({"T.DOG": dialogue(1, {1: "a b"}, {})[:-6]}), "damaged"),
    ):
        with pytest.raises(DataError, match=message):
            lines_of(content)


@pytest.mark.parametrize(
    ("said", "transcript"),
    [
        ("Wise guy, eh?", "WISE GUY EH"),
        ("Good-bye... 'pal'!", "GOOD BYE PAL"),
        ("They WON'T get far", "THEY WON'T GET FAR"),
        ("' -- '", ""),
        ("<sneeze> oh no", None),
        ("less than 50?", None),
        ("caf\xe9 olé", None),
    ],
)
def test_transcripts_are_capital_words(said, transcript):
    assert spoken_lines.transcript_of(said) == transcript


@given(st.lists(st.text(spoken_lines.SYMBOLS, max_size=20), max_size=4))
def test_letters_come_back_from_their_tokens(transcripts):
    letters = spoken_lines.Letters()
    tokens = letters.encode(transcripts)
    assert all(row[-1] == 2 and not {0, 1, 2} & set(row[:-1]) for row in tokens)
    assert max((one for row in tokens for one in row), default=0) < spoken_lines.NUM_TOKENS == 31
    assert letters.decode(tokens) == transcripts
    assert letters.decode([[0, 1, *row, 0, 0] for row in tokens]) == transcripts


@pytest.mark.parametrize(
    ("said", "seconds", "kept"),
    [
        ("two words", 1.5, True),
        ("two words", 0.7, False),
        ("two words", 3.2, False),
        ("word", 1.5, False),
        ("<noise> two words", 1.5, False),
        # 20 tokens a second, of which a letter that follows its like counts twice and the end once
        ("a" + " b" * 11, 1.25, True),
        ("a" + " b" * 12, 1.25, False),
        ("aa" + " bb" * 6, 1.6, True),
        ("aa" + " bb" * 6, 1.1, False),
    ],
)
def test_what_is_kept(said, seconds, kept):
    recording = spoken_lines.read(SpokenLine(voice="v", where="here", text=said, mp3=mp3(seconds)))
    assert (recording is not None) == kept
    if recording is not None:
        assert recording.audio.dtype == np.int16 and abs(len(recording.audio) - seconds * RATE) < 1200


def test_a_recording_that_is_none_is_named():
    for content, message in (
        (b"nothing" * 9, "recording v of the game cannot be decoded"),
        (mp3(1, 8_000), "recording v of the game is not mono with 11025"),
        (mp3(1, channels=2), "recording v of the game is not mono"),
    ):
        with pytest.raises(DataError, match=message):
            spoken_lines.read(SpokenLine(voice="v", where="here", text="two words", mp3=content))


def test_whole_places_are_held_out():
    splits = {
        key: spoken_lines.split_of(f"dialogue {key:02}") for key in (*TRAIN_KEYS, VALIDATION_KEY, TEST_KEY)
    }
    assert splits == dict.fromkeys(TRAIN_KEYS, "train") | {VALIDATION_KEY: "validation", TEST_KEY: "test"}
    assert len({spoken_lines.split_of(f"scene C103{variant}") for variant in ("", *"ABCDEF")}) == 1


def test_a_line_of_a_held_out_place_is_not_trained_on():
    said = [("dialogue 01", "one two"), ("dialogue 02", "One, two!"), ("dialogue 02", "three four")]
    said.append((f"dialogue {TEST_KEY:02}", "one two"))
    said.append((f"dialogue {VALIDATION_KEY:02}", "five six"))
    lines = [SpokenLine(voice=str(i), where=where, text=t, mp3=mp3(1.5)) for i, (where, t) in enumerate(said)]
    arrays = spoken_lines.split_arrays(lines, spoken_lines.Sizes(train=1, eval_train=1, validation=1, test=1))
    letters = spoken_lines.Letters()
    assert letters.decode([arrays["training"]["tokens"].tolist()]) == ["THREE FOUR"]
    assert letters.decode([arrays["evaluation"]["test_tokens"].tolist()]) == ["ONE TWO"]
    with pytest.raises(DataError, match="the game has 1 recordings to train with, not 3014"):
        spoken_lines.split_arrays(lines, spoken_lines.Sizes())


def package_of(content, name=spoken_lines.DATA_FILE):
    """A Debian package with one file."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        member = tarfile.TarInfo(f"./{name}")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    packed = lzma.compress(tar.getvalue())
    head = b"".join(
        field.ljust(width)
        for field, width in ((b"data.tar.xz", 48), (str(len(packed)).encode(), 10), (b"`\n", 2))
    )
    return b"!<arch>\n" + head + packed


def mirror_with(root, package):
    """A Debian mirror that has the game's package."""
    pool = root / "pool" / "flight.deb"
    pool.parent.mkdir(parents=True)
    pool.write_bytes(package)
    sha256 = hashlib.sha256(package).hexdigest()
    stanza = f"Package: {spoken_lines.PACKAGE}\nFilename: pool/flight.deb\nSHA256: {sha256}\n"
    index = lzma.compress(stanza.encode())
    path = root / "dists" / spoken_lines.SUITE / "main" / "binary-amd64" / "Packages.xz"
    path.parent.mkdir(parents=True)
    path.write_bytes(index)
    release = f"SHA256:\n {hashlib.sha256(index).hexdigest()} {len(index)} main/binary-amd64/Packages.xz\n"
    (root / "dists" / spoken_lines.SUITE / "Release").write_text(release)
    return root.as_uri()


SIZES = spoken_lines.Sizes(train=15, eval_train=4, validation=5, test=3)


@pytest.fixture(scope="module")
def game():
    return container(small_game())


@pytest.fixture
def prepared(tmp_path, game, monkeypatch):
    """A folder prepared from the small game, fetched from a local mirror."""
    monkeypatch.setenv("TIMETRIAL_DEBIAN_MIRROR", mirror_with(tmp_path / "mirror", package_of(game)))
    monkeypatch.setattr(spoken_lines, "SHA256", hashlib.sha256(game).hexdigest())
    monkeypatch.setattr(spoken_lines, "SIZES", SIZES)
    spoken_lines.prepare(tmp_path / "data")
    return tmp_path / "data"


def texts(batch, folder):
    labels, padding = batch["targets"]
    rows = [row[mask == 0].tolist() for row, mask in zip(labels, padding, strict=True)]
    return spoken_lines.load_tokenizer(folder).decode(rows)


def test_an_epoch_holds_every_training_recording_and_resumes(prepared, game):
    order = Order(batch_size=5, seed=1)
    batches = list(itertools.islice(spoken_lines.training_batches(prepared, order), 4))
    said = [one for batch in batches[:3] for one in texts(batch, prepared)]
    of_game = {
        spoken_lines.transcript_of(line.text): line
        for line in lines_of(game)
        if spoken_lines.split_of(line.where) == "train"
    }
    assert len(of_game) == 15 and sorted(said) == sorted(of_game) and said != sorted(said)
    assert batches[0]["inputs"][0].shape == (5, 33_075) and batches[0]["targets"][0].shape == (5, 64)
    for row, transcript in enumerate(texts(batches[0], prepared)):
        audio, padding = (array[row] for array in batches[0]["inputs"])
        original = spoken_lines.decode(of_game[transcript])
        np.testing.assert_array_equal(audio[padding == 0], original)
        assert (padding == 0).sum() == len(original)
    later = next(spoken_lines.training_batches(prepared, Order(batch_size=5, seed=1, first_batch=3)))
    assert texts(later, prepared) == texts(batches[3], prepared)


def test_evaluated_recordings_count_once(prepared):
    for split, count in (("eval_train", 4), ("validation", 5), ("test", 3)):
        batches = list(spoken_lines.evaluation_batches(prepared, split, 4))
        weights = np.concatenate([batch["weights"] for batch in batches])
        assert weights.tolist() == [1.0] * count + [0.0] * (-count % 4)
        said = [one for batch in batches for one in texts(batch, prepared)]
        assert len(set(said[:count])) == count and not any(said[count:])
        padding = np.concatenate([batch["inputs"][1] for batch in batches])[count:]
        assert (padding == 1).all()


def test_nothing_of_the_package_stays_behind(prepared):
    assert not list(prepared.rglob("*.deb"))


def test_another_package_is_refused(tmp_path, game):
    path = tmp_path / "flight.deb"
    path.write_bytes(package_of(game))
    with pytest.raises(DataError, match=r"has sha256 .*, not cc91960d"):
        spoken_lines.data_file(path)
    path.write_bytes(package_of(game, "usr/share/doc/readme"))
    with pytest.raises(DataError, match=r"has no usr/share/scummvm/.*queen\.1c"):
        spoken_lines.data_file(path)
