"""German and English sentences of LibreOffice's help, from the Debian packages of both languages.

Every paragraph of a help page has a number, the same in all languages, so paragraphs of the two packages are paired by
page and number; aligned by their places they would be mismatched. Kept are pairs of prose: four words and more,
at most 120 characters a side, no digits and no signs of formulas or code, every pair once. The source is German.

Of every sixteen pages, in the order of their names, one validates and one tests, and what is also in a training page,
the same sentence in either language, is left out there. One vocabulary for both languages is learnt from the training
pages. Evaluated pairs are spread evenly over a split.

Both packages were the same, word for word, through Debian's corrections of LibreOffice 7.4.7 (deb12u13 and deb12u14
compared), so what is pinned is not a package but the text.

Source: the LibreOffice contributors, MPL-2.0; Debian 12 (bookworm).
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import numpy as np

from timetrial.data_loading import subword_tokenizer
from timetrial.data_loading.batches import evenly_spread
from timetrial.data_loading.deb import files
from timetrial.data_loading.debian import fetch_package
from timetrial.data_loading.packing import packed_batches
from timetrial.data_loading.prepared import Arrays, Side, open_arrays, prepare_once
from timetrial.data_loading.subword_tokenizer import SubwordTokenizer
from timetrial.data_loading.token_pairs import TokenPairs, one_a_row, stored_pairs
from timetrial.engine.errors import DataError
from timetrial.engine.facts import Dataset, NumpyBatch, Order, Split

NAME = "manuals"
VERSION = 2
SUITE = "bookworm"
PACKAGES = {"de": "libreoffice-help-de", "en-US": "libreoffice-help-en-us"}
TEXT_SHA256 = "ef01cbf831cf3b795571539d3d0d14b8a6f368014ae3ff209217d7de7c81afdd"  # of all pairs

NUM_TOKENS = 1_500
LENGTH = 64  # of a row, and of the longest sentence, in tokens
MOST_CHARACTERS, FEWEST_WORDS = 120, 4
PROSE = re.compile(r"[^\W\d_][^\d_=<>{}\[\]|\\*+@#$%&^~\"“„]*")
VALIDATION_PAGE, TEST_PAGE, PAGES = 0, 8, 16  # of every sixteen
PARAGRAPH = re.compile(r"p|h[1-6]")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Pairs per split; `train` is what the training pages hold, less what SentencePiece 0.2.3 cuts into too many."""

    train: int = 12_640
    eval_train: int = 128
    validation: int = 256
    test: int = 256


SIZES = Sizes()


class Pair(NamedTuple):
    """One paragraph in both languages."""

    page: str
    german: str
    english: str


def prepare(folder: Path, source: Path | None = None) -> None:
    """Fetch both packages and the list of packages from apt's mirror (14 MB) and convert them to 2 MB of arrays.

    DataError where no mirror is configured or the packages hold other text than they should.
    """
    del source

    def convert() -> Mapping[Side, Arrays]:
        packages = {
            language: fetch_package(package, SUITE, folder / "downloads")
            for language, package in PACKAGES.items()
        }
        pairs = prose_pairs(*(pages(package, language) for language, package in packages.items()))
        found = hashlib.sha256("\n".join("\t".join(pair) for pair in pairs).encode()).hexdigest()
        if found != TEXT_SHA256:
            raise DataError(
                f"{', '.join(map(str, packages.values()))} hold {len(pairs)} pairs with sha256 {found}, "
                f"not the text of LibreOffice 7.4.7 in Debian {SUITE}"
            )
        arrays = split_arrays(pairs, SIZES, NUM_TOKENS)
        for package in packages.values():
            package.unlink()  # it holds the held-out pages, which a training process must not find
        return arrays

    prepare_once(folder, NAME, VERSION, convert)


def training_batches(folder: Path, order: Order) -> Iterator[NumpyBatch]:
    """Rows of 64 and 64 tokens, packed (`packing.py`), without end."""
    arrays = open_arrays(folder, "training", NAME, VERSION)
    pairs = TokenPairs([arrays])
    pairs.check_lengths(LENGTH, NAME)
    return packed_batches(pairs, LENGTH, order)


def evaluation_batches(
    folder: Path, split: Split, batch_size: int, gpu: int | None = None
) -> Iterable[NumpyBatch]:
    """One split, a pair a row, in the order of the pages; the last batch filled up with rows of zeros."""
    del gpu
    arrays = open_arrays(folder, "evaluation", NAME, VERSION)
    pairs = TokenPairs([{key: arrays[f"{split}_{key}"] for key in ("tokens", "lengths")}])
    return one_a_row(pairs, np.arange(len(pairs)), batch_size, LENGTH)


def load_tokenizer(data: Path) -> SubwordTokenizer:
    """The vocabulary of the prepared data. DataError where there is none."""
    return subword_tokenizer.load(open_arrays(data, "evaluation", NAME, VERSION)["tokenizer"])


def pages(package: Path, language: str) -> dict[str, list[tuple[str, str]]]:
    """Number and text of all paragraphs of every help page of a package."""
    folder = f"usr/share/libreoffice/help/{language}/text/"
    found = {}
    for name, content in files(package, lambda name: name.startswith(folder) and name.endswith(".html")):
        page = _Paragraphs()
        page.feed(content.decode())
        found[name.removeprefix(folder)] = page.found
    return found


class _Paragraphs(HTMLParser):
    """Collects number and text of every numbered paragraph and heading of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self._number: str | None = None  # of the paragraph that is being read
        self._text: list[str] = []
        self._spans: list[bool] = []  # around this place: whether what they hold is shown

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if PARAGRAPH.fullmatch(tag):
            self._number, self._text, self._spans = attributes.get("id"), [], []
        elif tag == "span":
            # The name of a key on a Mac stands beside the other one; a page shows one of them.
            self._spans.append(attributes.get("class") != "MAC")
        elif tag == "br":
            self._text.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if PARAGRAPH.fullmatch(tag) and self._number is not None:
            self.found.append((self._number, " ".join("".join(self._text).split())))
            self._number = None
        elif tag == "span" and self._spans:
            self._spans.pop()

    def handle_data(self, data: str) -> None:
        if all(self._spans):
            self._text.append(data)


def prose_pairs(
    german: Mapping[str, Sequence[tuple[str, str]]], english: Mapping[str, Sequence[tuple[str, str]]]
) -> list[Pair]:
    """The pairs of prose of all pages, in the order of their names, each once."""
    pairs: dict[tuple[str, str], Pair] = {}
    for page in sorted(german.keys() & english.keys()):
        counts = [Counter(number for number, _ in side[page]) for side in (german, english)]
        translations = dict(german[page])
        for number, text in english[page]:
            if all(count[number] == 1 for count in counts):
                pair = Pair(page, translations[number], text)
                if _is_prose(pair):
                    pairs.setdefault(pair[1:], pair)
    return list(pairs.values())


def _is_prose(pair: Pair) -> bool:
    sides = (pair.german, pair.english)
    return (
        pair.german != pair.english  # not translated
        and len(pair.english.split()) >= FEWEST_WORDS
        and all(len(side) <= MOST_CHARACTERS and PROSE.fullmatch(side) for side in sides)
    )


def by_split(pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    """The pairs of `train`, `validation` and `test`, which have no sentence in common with `train`."""
    places = {page: place % PAGES for place, page in enumerate(sorted({pair.page for pair in pairs}))}
    names = {VALIDATION_PAGE: "validation", TEST_PAGE: "test"}
    splits: dict[str, list[Pair]] = {"train": [], "validation": [], "test": []}
    for pair in pairs:
        splits[names.get(places[pair.page], "train")].append(pair)
    german = {pair.german for pair in splits["train"]}
    english = {pair.english for pair in splits["train"]}
    for name in names.values():
        splits[name] = [
            pair for pair in splits[name] if pair.german not in german and pair.english not in english
        ]
    return splits


def split_arrays(pairs: Sequence[Pair], sizes: Sizes, num_tokens: int) -> Mapping[Side, Arrays]:
    """All splits, and the vocabulary. DataError where a split has fewer pairs than are evaluated."""
    splits = by_split(pairs)
    model = subword_tokenizer.train(
        (side for pair in splits["train"] for side in (pair.german, pair.english)), num_tokens
    )
    tokenizer = subword_tokenizer.load(model)
    evaluation: dict[str, np.ndarray] = {"tokenizer": subword_tokenizer.stored(model)}
    for split in ("eval_train", "validation", "test"):
        held = splits["train" if split == "eval_train" else split]
        chosen = evenly_spread(len(held), getattr(sizes, split), f"{split} of the help pages")
        for key, array in _encoded([held[i] for i in chosen], tokenizer).items():
            evaluation[f"{split}_{key}"] = array
    return {"training": _encoded(splits["train"], tokenizer), "evaluation": evaluation}


def _encoded(pairs: Sequence[Pair], tokenizer: SubwordTokenizer) -> Arrays:
    return stored_pairs(
        tokenizer.encode([pair.german for pair in pairs]),
        tokenizer.encode([pair.english for pair in pairs]),
        LENGTH,
    )


DATASET = Dataset(
    name=NAME,
    version=VERSION,
    licence=(
        "LibreOffice help, MPL-2.0; fetched by the user as the Debian packages libreoffice-help-de and "
        "libreoffice-help-en-us of bookworm"
    ),
    package="libreoffice-help-de and libreoffice-help-en-us of Debian bookworm (14 MB with the list of packages)",
    owner_files=None,
    prepare=prepare,
    disk_need=lambda source: 20_000_000,
    training_batches=training_batches,
    evaluation_batches=evaluation_batches,
)
