"""Lines that actors speak in a game: recordings of up to three seconds and the letters of their transcripts.

From the Debian package flight-of-the-amazon-queen, whose data file holds some 6,000 recordings (`game_speech.py`),
mono, 11,025 samples a second, and what is said in them. Decoded once, by libsndfile. An example is a recording of two
words or more; `MIN_SECONDS` and `MAX_SECONDS` bound its length. Its transcript is in capitals: whatever is neither a
letter nor an apostrophe separates words. Left out are recordings whose text names a noise or has a digit, and those
with more tokens than frames, `MOST_TOKENS` a second (a token that follows its like needs a frame between them).

A token is a letter, the apostrophe or the space; the last one is `END`. As in the full-size data, 0 is what padding
has, and CTC's blank; 1 is not used.

Whole dialogues and scenes are held out, by a checksum of their names that has ten remainders: one validates, one
tests. Many of their voices are heard nowhere else; the hero's is heard everywhere. What is also said in a held-out
place is left out of the training part. Evaluated examples are spread evenly over a split.

`spoken_lines_mel.py` has the front end's settings that suit these recordings, which hold little above 4,000 Hz, and
the means and standard deviations of its logarithms over the training part, a mel bin each (603,626 frames).

Source: the game is by J. Passfield and S. Stamatiadis; the package's copyright file has its licence.
"""

import io
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import numpy as np

from timetrial.data_loading import deb
from timetrial.data_loading.batches import evenly_spread
from timetrial.data_loading.debian import fetch_package
from timetrial.data_loading.game_speech import SpokenLine, spoken_lines
from timetrial.data_loading.prepared import Arrays, Side, open_arrays, prepare_once
from timetrial.data_loading.utterances import KEYS, Lengths, Utterances, shard_arrays
from timetrial.engine.errors import DataError
from timetrial.engine.facts import Batch, Dataset, Order, Split

NAME = "spoken_lines"
VERSION = 1
PACKAGE, SUITE = "flight-of-the-amazon-queen", "bookworm"
DATA_FILE = "usr/share/scummvm/flight-of-the-amazon-queen/queen.1c"
SHA256 = (
    "cc91960d133fcd4173eda4bac304e80d2bbdbaa085640287ab9e0507bd603f67"  # of DATA_FILE, in later suites too
)

SAMPLE_RATE = 11_025  # samples a second
MIN_SECONDS, MAX_SECONDS = 0.8, 3.0
MAX_SAMPLES = 33_075
MAX_LABELS = 64
MOST_TOKENS = 20  # a second
SYMBOLS = " 'ABCDEFGHIJKLMNOPQRSTUVWXYZ"
END, FIRST_SYMBOL = 2, 3
NUM_TOKENS = FIRST_SYMBOL + len(SYMBOLS)
NO_TRANSCRIPT = re.compile(r"[^\x20-\x7e]|[0-9<>@#$%&*+=/\\]")
BETWEEN_WORDS = re.compile(r"[^A-Z']+")
VARIANT = re.compile(r"(?<=\d)[A-Z]$")  # of a scene: C103A to C103F are one
HELD_OUT = {3: "validation", 5: "test"}  # of ten remainders


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Recordings per split; `train` is what the training part holds."""

    train: int = 3_014
    eval_train: int = 256
    validation: int = 256
    test: int = 256


SIZES = Sizes()


@dataclass(frozen=True)
class Letters:
    """Transcripts to tokens and back."""

    def encode(self, transcripts: Sequence[str]) -> list[list[int]]:
        """The tokens of every transcript, `END` last."""
        return [[FIRST_SYMBOL + SYMBOLS.index(symbol) for symbol in text] + [END] for text in transcripts]

    def decode(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        """The text of every list of tokens; those below `FIRST_SYMBOL` have none."""
        return ["".join(SYMBOLS[one - FIRST_SYMBOL] for one in row if one >= FIRST_SYMBOL) for row in tokens]


def load_tokenizer(folder: Path) -> Letters:
    """The vocabulary, which is not stored: it is the alphabet."""
    del folder
    return Letters()


def prepare(folder: Path, source: Path | None = None) -> None:
    """Fetch the package from the configured Debian mirror (35 MB) and convert it to 168 MB of arrays.

    DataError where the mirror has none or another data file.
    """
    del source

    def convert() -> Mapping[Side, Arrays]:
        package = fetch_package(PACKAGE, SUITE, folder / "downloads")
        arrays = split_arrays(spoken_lines(data_file(package)), SIZES)
        package.unlink()  # it holds the held-out recordings, which a training process must not find
        return arrays

    prepare_once(folder, NAME, VERSION, convert)


def data_file(package: Path) -> bytes:
    """The game's data file in the package. DataError where it is missing or another one."""
    for _, content in deb.files(package, DATA_FILE.__eq__):
        if (found := sha256(content).hexdigest()) != SHA256:
            raise DataError(f"{DATA_FILE} in {package} has sha256 {found}, not {SHA256}")
        return content
    raise DataError(f"{package} has no {DATA_FILE}")


@dataclass(frozen=True, kw_only=True)
class Recording:
    """An example: its place in the game, transcript and samples."""

    where: str
    transcript: str
    audio: np.ndarray  # (samples,) int16


def split_arrays(lines: Iterable[SpokenLine], sizes: Sizes) -> Mapping[Side, Arrays]:
    """All splits, in the order of the lines. DataError where there are more or fewer than `sizes` expects."""
    kept: dict[str, list[Recording]] = {"train": [], "validation": [], "test": []}
    for line in lines:
        if (recording := read(line)) is not None:
            kept[split_of(line.where)].append(recording)
    held_out = {recording.transcript for split in HELD_OUT.values() for recording in kept[split]}
    train = [recording for recording in kept["train"] if recording.transcript not in held_out]
    if len(train) != sizes.train:
        raise DataError(f"the game has {len(train)} recordings to train with, not {sizes.train}")
    evaluation: dict[str, np.ndarray] = {}
    for split, own in (("eval_train", train), *((split, kept[split]) for split in HELD_OUT.values())):
        chosen = evenly_spread(len(own), getattr(sizes, split), f"the {split} part")
        arrays = _arrays([own[i] for i in chosen])
        evaluation |= {f"{split}_{key}": array for key, array in arrays.items()}
    return {"training": _arrays(train), "evaluation": evaluation}


def split_of(where: str) -> str:
    """The split that a dialogue or scene belongs to."""
    return HELD_OUT.get(zlib.crc32(VARIANT.sub("", where).encode()) % 10, "train")


def transcript_of(text: str) -> str | None:
    """The words of a text, in capitals and with one space between them; None where it is not all words."""
    if NO_TRANSCRIPT.search(text):
        return None
    words = [word.strip("'") for word in BETWEEN_WORDS.split(text.upper())]
    return " ".join(word for word in words if word)


def read(line: SpokenLine) -> Recording | None:
    """The example that a line makes, None where it makes none. DataError where it is no mono mp3."""
    transcript = transcript_of(line.text)
    if transcript is None or " " not in transcript:
        return None
    audio = decode(line)
    if not MIN_SECONDS * SAMPLE_RATE <= len(audio) <= MAX_SAMPLES:
        return None
    (tokens,) = Letters().encode([transcript])
    repeated = sum(one == other for one, other in pairwise(tokens))
    if len(tokens) > MAX_LABELS or len(tokens) + repeated > MOST_TOKENS * len(audio) / SAMPLE_RATE:
        return None
    return Recording(where=line.where, transcript=transcript, audio=audio)


def decode(line: SpokenLine) -> np.ndarray:
    """The samples of a recording, (samples,) int16."""
    import soundfile  # a shared library, which commands that prepare nothing need not load

    try:
        audio, rate = soundfile.read(io.BytesIO(line.mp3), dtype="int16")
    except soundfile.LibsndfileError as error:
        raise DataError(f"recording {line.voice} of the game cannot be decoded: {error}") from error
    if rate != SAMPLE_RATE or audio.ndim != 1:
        raise DataError(f"recording {line.voice} of the game is not mono with {SAMPLE_RATE} samples a second")
    samples: np.ndarray = audio
    return samples


def _arrays(recordings: Sequence[Recording]) -> Arrays:
    tokens = Letters().encode([recording.transcript for recording in recordings])
    return shard_arrays([recording.audio for recording in recordings], tokens)


def training_batches(folder: Path, order: Order) -> Iterator[Batch]:
    """Batches as in `utterances.py`, of 33,075 samples and 64 labels, without end."""
    return _opened(folder, "training", "").training_batches(order)


def evaluation_batches(
    folder: Path, split: Split, batch_size: int, gpu: int | None = None
) -> Iterable[Batch]:
    """One split in the order of the recordings' names; the last batch filled up with rows of weight 0."""
    del gpu
    return _opened(folder, "evaluation", f"{split}_").evaluation_batches(batch_size)


def _opened(folder: Path, side: Side, prefix: str) -> Utterances:
    arrays = open_arrays(folder, side, NAME, VERSION)
    shard = {key: arrays[f"{prefix}{key}"] for key in KEYS}
    return Utterances([shard], Lengths(samples=MAX_SAMPLES, labels=MAX_LABELS))


DATASET = Dataset(
    name=NAME,
    version=VERSION,
    licence=(
        "Flight of the Amazon Queen (J. Passfield and S. Stamatiadis, 1995): free to distribute with its readme, not "
        "to be sold alone, modifications to be marked; fetched by the user from Debian"
    ),
    package="the package flight-of-the-amazon-queen 1.0.0-9 of Debian 12 (35 MB)",
    owner_files=None,
    prepare=prepare,
    disk_need=lambda source: 400_000_000,
    training_batches=training_batches,
    evaluation_batches=evaluation_batches,
)
