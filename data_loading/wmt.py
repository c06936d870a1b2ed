"""German-English parallel text of the workshops on machine translation: 5.9 million pairs of sentences.

Converted once from the files that the workshops distribute, in whatever archive they came. Training text is that of
TensorFlow Datasets' wmt17_translate/de-en (Europarl 7, Common Crawl, News Commentary 12, Rapid 2016), without pairs
one of whose sentences is empty; newstest2013 validates and newstest2014 tests. The source is German.

One SentencePiece vocabulary of 32,000 pieces serves both languages (`subword_tokenizer.py`), learnt from ten million
bytes of training pairs that a fixed permutation of all of them begins with. (AlgoPerf takes the first ones of
TensorFlow Datasets' stream, whose order is a hash's.) Pairs with more than 256 tokens on a side are left out.

Training: `packing.py`. Evaluation: a pair a row; the evaluated training pairs are spread evenly over all of them.

Source: statmt.org, WMT 2013, 2014, 2016 to 2018; O. Bojar et al. 2017 (W17-4717).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from timetrial.data_loading import subword_tokenizer
from timetrial.data_loading.batches import evenly_spread
from timetrial.data_loading.packing import packed_batches
from timetrial.data_loading.parallel_text import Text, find_texts, line_pairs, segment_pairs
from timetrial.data_loading.parts import Part, given, prepare_parts
from timetrial.data_loading.prepared import Arrays, Side, open_arrays
from timetrial.data_loading.subword_tokenizer import SubwordTokenizer
from timetrial.data_loading.token_pairs import TokenPairs, one_a_row, stored_pairs
from timetrial.engine.errors import DataError
from timetrial.engine.facts import Dataset, NumpyBatch, Order, Split

NAME = "wmt"
VERSION = 1
LENGTH = 256  # of a row, and of the longest sentence, in tokens
NUM_EVAL_TRAIN = 3_072
TOKENIZER = "tokenizer.model"  # its array
SAMPLE_SEED = 0  # of the pairs that the vocabulary is learnt from

# The German and the English file of each.
CORPORA = {
    "europarl": ("europarl-v7.de-en.de", "europarl-v7.de-en.en"),
    "commoncrawl": ("commoncrawl.de-en.de", "commoncrawl.de-en.en"),
    "news_commentary": ("news-commentary-v12.de-en.de", "news-commentary-v12.de-en.en"),
    "rapid": ("rapid2016.de-en.de", "rapid2016.de-en.en"),
}
VALIDATION = ("newstest2013.de", "newstest2013.en")
TEST = ("newstest2014-deen-src.de.sgm", "newstest2014-deen-ref.en.sgm")
OWNER_FILES = (
    "training-parallel-europarl-v7.tgz, training-parallel-commoncrawl.tgz, training-parallel-nc-v12.tgz, "
    "rapid2016.tgz and dev.tgz of WMT (statmt.org), or what is in them: "
    + ", ".join(name for names in (*CORPORA.values(), VALIDATION, TEST) for name in names)
)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How many pairs there are, before those that are too long are left out, and how they are stored."""

    train: int = 5_906_184
    validation: int = 3_000
    test: int = 3_003
    num_tokens: int = 32_000
    pairs_per_shard: int = 500_000
    sampled_pairs: int = 100_000  # their text is more than the vocabulary is learnt from


LAYOUT = Layout()


def prepare(folder: Path, source: Path | None = None, layout: Layout = LAYOUT) -> None:
    """Convert the owner's files in `source` to 0.8 GB of arrays, a corpus in each process.

    The vocabulary comes first, in minutes, and anew when a conversion that broke off is resumed. DataError where a
    text is missing, malformed, unequal to its translation, or of another number of pairs than it should be.
    """
    prepare_parts(folder, NAME, VERSION, lambda: _parts(given(source, NAME, OWNER_FILES), layout))


def disk_need(source: Path | None) -> int:
    """Bytes of all arrays: about 60 tokens of two bytes and two lengths a pair; an upper estimate."""
    del source
    return LAYOUT.train * 170


def training_batches(folder: Path, order: Order) -> Iterator[NumpyBatch]:
    """Rows of 256 and 256 tokens, packed (`packing.py`), without end."""
    pairs = _training_pairs(folder)
    pairs.check_lengths(LENGTH, NAME)
    return packed_batches(pairs, LENGTH, order)


def evaluation_batches(
    folder: Path, split: Split, batch_size: int, gpu: int | None = None, num_eval_train: int = NUM_EVAL_TRAIN
) -> Iterable[NumpyBatch]:
    """One split, a pair a row, in the order of the text; the last batch filled up with rows of zeros."""
    del gpu
    if split == "eval_train":
        # The judge may read the training side; the racer is denied the other one.
        pairs = _training_pairs(folder)
        chosen = evenly_spread(len(pairs), num_eval_train, f"{NAME} in {folder}")
    else:
        arrays = open_arrays(folder, "evaluation", NAME, VERSION)
        pairs = TokenPairs([{key: arrays[f"{split}.{key}"] for key in ("tokens", "lengths")}])
        chosen = np.arange(len(pairs))
    return one_a_row(pairs, chosen, batch_size, LENGTH)


def load_tokenizer(data: Path) -> SubwordTokenizer:
    """The vocabulary of the prepared data. DataError where there is none."""
    return subword_tokenizer.load(open_arrays(data, "evaluation", NAME, VERSION)[TOKENIZER])


def _training_pairs(folder: Path) -> TokenPairs:
    arrays = open_arrays(folder, "training", NAME, VERSION)
    shards = sorted({key.rpartition(".")[0] for key in arrays})
    return TokenPairs([{key: arrays[f"{shard}.{key}"] for key in ("tokens", "lengths")} for shard in shards])


def _parts(source: Path, layout: Layout) -> list[Part]:
    """Everything to convert, with the vocabulary that it needs."""
    files = (*CORPORA.values(), VALIDATION, TEST)
    texts = find_texts(source, [name for names in files for name in names])
    corpora = {name: (texts[german], texts[english]) for name, (german, english) in CORPORA.items()}
    model = subword_tokenizer.train(sampled_sentences(corpora.values(), layout), layout.num_tokens)
    parts = [
        _part(name, "training", both, partial(convert_corpus, name, both, layout, model))
        for name, both in corpora.items()
    ]
    held_out = {"validation": (VALIDATION, layout.validation), "test": (TEST, layout.test)}
    for split, (names, num_pairs) in held_out.items():
        both = (texts[names[0]], texts[names[1]])
        parts.append(
            _part(split, "evaluation", both, partial(convert_held_out, split, both, num_pairs, model))
        )
    convert = partial(convert_tokenizer, model)
    return [*parts, Part(name="tokenizer", side="evaluation", num_bytes=len(model), convert=convert)]


def _part(
    name: str,
    side: Side,
    both: tuple[Text, Text],
    convert: Callable[[frozenset[str]], Iterator[tuple[str, Arrays]]],
) -> Part:
    num_bytes = sum(file.stat().st_size for file in {text.file for text in both})
    return Part(name=name, side=side, num_bytes=num_bytes, convert=convert)


def _sentences(both: tuple[Text, Text]) -> Iterator[tuple[str, str]]:
    """The pairs of two files; those with an empty side are left out, as TensorFlow Datasets does."""
    read = segment_pairs if both[0].is_sgml else line_pairs
    return (pair for pair in read(*both) if all(pair))


def sampled_sentences(corpora: Iterable[tuple[Text, Text]], layout: Layout) -> list[str]:
    """German and English sentences by turns, of pairs in the order of a fixed permutation, some of them.

    DataError where there are not as many training pairs as there should be.
    """
    permutation = np.random.Generator(np.random.Philox(SAMPLE_SEED)).permutation(layout.train)
    ranks = {int(number): rank for rank, number in enumerate(permutation[: layout.sampled_pairs])}
    sampled: dict[int, tuple[str, str]] = {}
    number = 0
    for both in corpora:
        for pair in _sentences(both):
            if number in ranks:
                sampled[ranks[number]] = pair
            number += 1
    if number != layout.train:
        raise DataError(f"the training texts have {number:,} pairs of sentences, not {layout.train:,}")
    return [sentence for rank in sorted(sampled) for sentence in sampled[rank]]


def convert_corpus(
    name: str, both: tuple[Text, Text], layout: Layout, model: bytes, stored: frozenset[str]
) -> Iterator[tuple[str, Arrays]]:
    """The shards of a corpus that are not stored yet."""
    tokenizer = subword_tokenizer.load(model)
    sentences = _sentences(both)
    number = 0
    while some := list(islice(sentences, layout.pairs_per_shard)):
        shard = f"{name}_{number:02}"
        if shard not in stored:
            yield shard, _encoded(some, tokenizer)
        number += 1


def convert_held_out(
    split: str, both: tuple[Text, Text], num_pairs: int, model: bytes, stored: frozenset[str]
) -> Iterator[tuple[str, Arrays]]:
    """The one shard of a split. DataError where it has not as many pairs as it should."""
    if split in stored:
        return
    pairs = list(_sentences(both))
    if len(pairs) != num_pairs:
        raise DataError(f"{both[0]} has {len(pairs):,} sentences with a translation, not {num_pairs:,}")
    yield split, _encoded(pairs, subword_tokenizer.load(model))


def convert_tokenizer(model: bytes, stored: frozenset[str]) -> Iterator[tuple[str, Arrays]]:
    """The vocabulary, as the evaluation reads it."""
    if "tokenizer" not in stored:
        yield "tokenizer", {"model": subword_tokenizer.stored(model)}


def _encoded(pairs: Sequence[tuple[str, str]], tokenizer: SubwordTokenizer) -> Arrays:
    german, english = ([pair[side] for pair in pairs] for side in (0, 1))
    return stored_pairs(tokenizer.encode(german), tokenizer.encode(english), LENGTH)


DATASET = Dataset(
    name=NAME,
    version=VERSION,
    licence=(
        "WMT news translation data: Europarl (free), News Commentary, Common Crawl and Rapid under their owners' "
        "terms, for research; obtained by the user from statmt.org"
    ),
    package=None,
    owner_files=OWNER_FILES,
    prepare=prepare,
    disk_need=disk_need,
    training_batches=training_batches,
    evaluation_batches=evaluation_batches,
)
