"""LibriSpeech: a thousand hours of English read aloud, 16,000 samples a second, cut into 281,241 utterances.

Converted once from the owner's files (`librispeech_sources.py`): FLAC to PCM, transcripts to the tokens of a
SentencePiece unigram vocabulary of 1,024, trained on the transcripts of train-clean-100 as AlgoPerf does; every
utterance's last token is `END`. Utterances of more than 320,000 samples (20 s) or 256 characters are left out. To
train: train-clean-100, train-clean-360 and train-other-500; to validate: dev-clean and dev-other; to test: test-clean.
test-other is not read. Stored are shards of `utterances.py` and `numbers` (n, 3) int32: an utterance's speaker,
chapter and number, by which a split is ordered, so that it is the same from archives and from folders. The
evaluated training utterances are spread evenly over that order.

AlgoPerf stores 64-bit integers, a file an utterance; here is a quarter of its bytes.

Source: Panayotov et al., "Librispeech: an ASR corpus based on public domain audio books" (ICASSP 2015), OpenSLR 12;
splits, filter and numbers are those of AlgoPerf (arXiv 2306.07179).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from pathlib import Path

import numpy as np

from timetrial.data_loading import subword_tokenizer
from timetrial.data_loading.batches import evenly_spread
from timetrial.data_loading.librispeech_sources import (
    OwnerFiles,
    Utterance,
    owner_files,
    transcripts,
    utterances,
)
from timetrial.data_loading.parts import Part, given, prepare_parts
from timetrial.data_loading.prepared import Arrays, Side, StoredArrays, open_arrays
from timetrial.data_loading.subword_tokenizer import SubwordTokenizer
from timetrial.data_loading.utterances import KEYS, Lengths, Utterances, shard_arrays
from timetrial.engine.errors import DataError, UsageError
from timetrial.engine.facts import Batch, Dataset, Order, Split

NAME = "librispeech"
VERSION = 1
OWNER_FILES = (
    "train-clean-100.tar.gz, train-clean-360.tar.gz, train-other-500.tar.gz, dev-clean.tar.gz, dev-other.tar.gz and "
    "test-clean.tar.gz of OpenSLR 12, or the folder LibriSpeech they are extracted to"
)
SAMPLE_RATE = 16_000  # samples a second
NUM_TOKENS = 1_024
MAX_SAMPLES, MAX_LABELS = 320_000, 256
MAX_CHARACTERS = 256  # of a transcript
TOKENIZER_SPLIT = "train-clean-100"
TOKENIZER, TOKENIZER_KEY = "tokenizer", "model"
# The owner's splits of each of the workload's.
SPLITS = {
    "train": ("train-clean-100", "train-clean-360", "train-other-500"),
    "validation": ("dev-clean", "dev-other"),
    "test": ("test-clean",),
}
# How far a workload's split may be from what AlgoPerf states, whose three numbers add up to 271,660; the number of
# files that its documentation tells the user to expect is that of 271,658 utterances.
TOLERANCE = 2


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Utterances of the owner's splits, and of the workload's after filtering."""

    train_clean_100: int = 28_539
    train_clean_360: int = 104_014
    train_other_500: int = 148_688
    dev_clean: int = 2_703
    dev_other: int = 2_864
    test_clean: int = 2_620
    train: int = 263_840
    eval_train: int = 5_376
    validation: int = 5_348
    test: int = 2_472
    hours: int = 979  # before filtering, rounded up
    vocabulary: int = NUM_TOKENS
    per_shard: int = 1_500  # utterances; 0.6 GB, and as much again is held while they are decoded

    def of(self, owner_split: str) -> int:
        """Utterances of an owner's split."""
        return int(getattr(self, owner_split.replace("-", "_")))


SIZES = Sizes()


def prepare(folder: Path, source: Path | None = None) -> None:
    """Convert the owner's files in `source`, about 60 GB, to 105 GB of arrays, a split in each process.

    DataError where a split is missing, damaged or has another number of utterances than it should, before or after
    filtering.
    """
    prepare_parts(folder, NAME, VERSION, lambda: parts(given(source, NAME, OWNER_FILES), SIZES))
    for split in SPLITS:
        _opened(folder, split)  # which counts


def disk_need(source: Path | None) -> int:
    """Bytes of all arrays if nothing were left out."""
    del source
    samples = SIZES.hours * 3_600 * SAMPLE_RATE
    num_utterances = sum(SIZES.of(split) for splits in SPLITS.values() for split in splits)
    return 2 * samples + num_utterances * (2 * MAX_LABELS + 2 * 8 + 3 * 4)


def parts(source: Path, sizes: Sizes) -> list[Part]:
    """The conversion of all splits. Trains the vocabulary, which all of them need: a minute or two."""
    files = {split: owner_files(source, split) for splits in SPLITS.values() for split in splits}
    told = transcripts(files[TOKENIZER_SPLIT])
    if len(told) != sizes.of(TOKENIZER_SPLIT):
        raise DataError(
            f"{files[TOKENIZER_SPLIT].path} has transcripts of {len(told)} utterances, "
            f"not {sizes.of(TOKENIZER_SPLIT)}"
        )
    model = subword_tokenizer.train(told.values(), sizes.vocabulary)
    listed = [
        Part(
            name=split,
            side="training" if name == "train" else "evaluation",
            num_bytes=files[split].num_bytes,
            convert=partial(convert_split, files[split], model, sizes),
        )
        for name, splits in SPLITS.items()
        for split in splits
    ]
    # The largest first: it is what takes longest.
    listed.sort(key=lambda part: -part.num_bytes)
    return [
        Part(name=TOKENIZER, side="evaluation", num_bytes=0, convert=partial(_tokenizer_shard, model)),
        *listed,
    ]


def _tokenizer_shard(model: bytes, stored: frozenset[str]) -> Iterator[tuple[str, Arrays]]:
    if TOKENIZER not in stored:
        yield TOKENIZER, {TOKENIZER_KEY: subword_tokenizer.stored(model)}


def convert_split(
    files: OwnerFiles, model: bytes, sizes: Sizes, stored: frozenset[str]
) -> Iterator[tuple[str, Arrays]]:
    """The shards of an owner's split that are not stored yet, each of `per_shard` utterances before filtering."""
    tokenizer = subword_tokenizer.load(model)
    coming = utterances(files)
    found = 0
    for number in count():
        shard = list(islice(coming, sizes.per_shard))
        found += len(shard)
        # Before the last shard is given: its record would say that the split is done.
        if len(shard) < sizes.per_shard and found != sizes.of(files.split):
            raise DataError(f"{files.path} holds {found} utterances, not {sizes.of(files.split)}")
        if not shard:
            return
        name = f"{files.split}_{number:03}"
        if name not in stored:
            yield name, convert_utterances(shard, tokenizer)


def convert_utterances(shard: list[Utterance], tokenizer: SubwordTokenizer) -> Arrays:
    """The arrays of those utterances that are not too long."""
    try:
        # Here, for it needs DALI, which reading and racing do not.
        from timetrial.data_loading.flac_dali import decode
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("nvidia"):
            raise
        raise UsageError(
            "LibriSpeech's files are decoded by NVIDIA DALI, which is not installed; install timetrial[full]"
        ) from error
    short = [one for one in shard if len(one.transcript) <= MAX_CHARACTERS]
    decoded = decode([one.flac for one in short], [one.where for one in short], SAMPLE_RATE)
    kept = [(one, audio) for one, audio in zip(short, decoded, strict=True) if len(audio) <= MAX_SAMPLES]
    tokens = tokenizer.encode([one.transcript for one, _ in kept])
    for (one, _), labels in zip(kept, tokens, strict=True):
        if len(labels) > MAX_LABELS:
            raise DataError(f"the transcript of {one.where} has {len(labels)} tokens; {MAX_LABELS} fit")
    return {
        **shard_arrays([audio for _, audio in kept], tokens),
        "numbers": np.array([one.numbers for one, _ in kept], np.int32).reshape(-1, 3),
    }


def training_batches(folder: Path, order: Order) -> Iterator[Batch]:
    """Batches as in `utterances.py`, of 320,000 samples and 256 labels, without end."""
    return _opened(folder, "train").training_batches(order)


def evaluation_batches(
    folder: Path, split: Split, batch_size: int, gpu: int | None = None
) -> Iterable[Batch]:
    """One split by speaker, chapter and number; the last batch filled up with rows of weight 0."""
    del gpu
    return _opened(folder, split).evaluation_batches(batch_size)


def load_tokenizer(folder: Path) -> SubwordTokenizer:
    """The vocabulary of the prepared data."""
    return subword_tokenizer.load(
        open_arrays(folder, "evaluation", NAME, VERSION)[f"{TOKENIZER}.{TOKENIZER_KEY}"]
    )


def _opened(folder: Path, split: str) -> Utterances:
    """The utterances of a split by their numbers. DataError where there are too many or too few."""
    # The judge may read the training side; the racer is denied the other one.
    source = "train" if split == "eval_train" else split
    side: Side = "training" if source == "train" else "evaluation"
    arrays = open_arrays(folder, side, NAME, VERSION)
    names = _shards(arrays, source)
    order = np.lexsort(np.concatenate([arrays[f"{name}.numbers"] for name in names]).T[::-1])
    wanted = int(getattr(SIZES, source))
    if abs(len(order) - wanted) > TOLERANCE:
        raise DataError(
            f"{folder} holds {len(order)} utterances of {' and '.join(SPLITS[source])} that are short enough, "
            f"not {wanted}; prepare {NAME} again from whole files"
        )
    if split == "eval_train":
        order = order[evenly_spread(len(order), SIZES.eval_train, "the training part")]
    shards = [{key: arrays[f"{name}.{key}"] for key in KEYS} for name in names]
    return Utterances(shards, Lengths(samples=MAX_SAMPLES, labels=MAX_LABELS), order)


def _shards(arrays: StoredArrays, split: str) -> list[str]:
    names = {key.rpartition(".")[0] for key in arrays}
    return sorted(name for name in names if name.rpartition("_")[0] in SPLITS[split])


DATASET = Dataset(
    name=NAME,
    version=VERSION,
    licence="LibriSpeech (V. Panayotov et al., OpenSLR 12), CC BY 4.0; obtained by the user from its owner",
    package=None,
    owner_files=OWNER_FILES,
    prepare=prepare,
    disk_need=disk_need,
    training_batches=training_batches,
    evaluation_batches=evaluation_batches,
)
