"""FineWeb-Edu, the sample of ten billion tokens: educational pages of the web, as GPT-2's tokens.

Converted once from the owner's Parquet files. Every document that is not empty is followed by the end of a text; 90 %
of the documents, drawn with a fixed seed, train and the others validate. The documents of a stretch of a file are laid
end to end and cut into windows of 1,025 tokens that do not overlap; what is left at the end of a stretch is dropped.
Inputs are the first 1,024 tokens of a window, targets the last. Windows cross the borders of documents, as AlgoPerf's.

Validated are 100,000 windows, as many of each file, spread evenly over its own; the evaluated training windows are
spread evenly over all. AlgoPerf takes the first ones of its shuffled documents, its training windows in the order of a
moving buffer of 1,000; here an epoch is one permutation of all windows.

Source: HuggingFaceFW/fineweb-edu, sample-10BT (G. Penedo et al., arXiv 2406.17557).
"""

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import compress, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from timetrial.data_loading import gpt2_tokens
from timetrial.data_loading.batches import evenly_spread, padded_batches, selections
from timetrial.data_loading.parquet_text import count_texts, texts
from timetrial.data_loading.parts import Part, given, prepare_parts
from timetrial.data_loading.prefetch import in_order
from timetrial.data_loading.prepared import Arrays, Side, open_arrays
from timetrial.engine.errors import DataError
from timetrial.engine.facts import Dataset, NumpyBatch, Order, Split

if TYPE_CHECKING:
    from tiktoken import Encoding

NAME = "finewebedu"
VERSION = 1
NUM_TOKENS = gpt2_tokens.NUM_TOKENS
LENGTH = 1_024  # tokens that are predicted per window
OWNER_FILES = (
    "the Parquet files of sample/10BT of HuggingFaceFW/fineweb-edu and GPT-2's list of merges as merges.txt or "
    "vocab.bpe, in it or below it"
)
MERGES = ("merges.txt", "vocab.bpe")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Windows per split; `train` is AlgoPerf's number, near which the drawn documents give another one."""

    train: int = 8_749_870
    eval_train: int = 10_000
    validation: int = 100_000


SIZES = Sizes()


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What the files hold and how it is divided."""

    documents: int = 9_672_101
    validated_of: int = 10  # one document of so many validates
    seed: int = 0
    documents_per_shard: int = 50_000
    validation_windows: int = SIZES.validation
    length: int = LENGTH

    def validates(self) -> np.ndarray:
        """Whether each document, numbered through all files, validates: (documents,) bool."""
        drawn = np.random.Generator(np.random.Philox(self.seed)).permutation(self.documents)
        validates = np.zeros(self.documents, bool)
        validates[drawn[: self.documents // self.validated_of]] = True
        return validates


LAYOUT = Layout()


@dataclass(frozen=True, kw_only=True)
class Source:
    """One of the owner's files, and the list of merges that it is encoded with."""

    file: Path
    first: int  # number of its first document
    documents: int
    merges: Path


def prepare(folder: Path, source: Path | None = None, layout: Layout = LAYOUT) -> None:
    """Convert the owner's files in `source`, 28 GB, to 18 GB of arrays, a file in each process.

    DataError where files are missing, damaged, or of another number of documents than they should be.
    """
    prepare_parts(folder, NAME, VERSION, lambda: _parts(given(source, NAME, OWNER_FILES), layout))


def disk_need(source: Path | None) -> int:
    """Bytes of all arrays: AlgoPerf's number of windows, two bytes a token, and one part in a hundred more."""
    del source
    return (SIZES.train + SIZES.validation) * (LENGTH + 1) * 2 * 101 // 100


def training_batches(folder: Path, order: Order) -> Iterator[NumpyBatch]:
    """`inputs` and `targets`, both (batch, 1024) int32, without end."""
    windows = Windows(folder, "training")
    chosen = (selection.indices for selection in selections(len(windows), order))
    return in_order(lambda indices: _batch(windows.of(indices)), chosen, 2, 4)


def evaluation_batches(
    folder: Path,
    split: Split,
    batch_size: int,
    gpu: int | None = None,
    num_eval_train: int = SIZES.eval_train,
) -> Iterable[NumpyBatch]:
    """One split in the order of the files; `weights` (one per target token) as `padded_batches` gives them."""
    del gpu
    # The judge may read the training side; the racer is denied the other one.
    windows = Windows(folder, "training" if split == "eval_train" else "evaluation")
    count = num_eval_train if split == "eval_train" else len(windows)
    chosen = evenly_spread(len(windows), count, f"{NAME} in {folder}")
    for first in range(0, count, batch_size):
        some = _batch(windows.of(chosen[first : first + batch_size]))
        yield from padded_batches(some, batch_size, per_token=True)


def _batch(windows: np.ndarray) -> NumpyBatch:
    tokens = windows.astype(np.int32)
    return {"inputs": np.ascontiguousarray(tokens[:, :-1]), "targets": np.ascontiguousarray(tokens[:, 1:])}


class Windows:
    """The windows of one side, numbered through its shards, memory-mapped."""

    def __init__(self, folder: Path, side: Side) -> None:
        arrays = open_arrays(folder, side, NAME, VERSION)
        self._shards = [np.asarray(arrays[key]) for key in sorted(arrays)]
        self._ends = np.cumsum([len(shard) for shard in self._shards])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def of(self, indices: np.ndarray) -> np.ndarray:
        """The windows of these numbers: (n, 1025) uint16."""
        shards = np.searchsorted(self._ends, indices, side="right")
        windows = np.empty((len(indices), self._shards[0].shape[1]), np.uint16)
        for shard in np.unique(shards):
            here = shards == shard
            begin = self._ends[shard] - len(self._shards[shard])
            windows[here] = self._shards[shard][indices[here] - begin]
        return windows


def _parts(source: Path, layout: Layout) -> list[Part]:
    """Two parts a file: its training documents, and those that validate."""
    sources = find_sources(source, layout)
    shares = np.diff(np.arange(len(sources) + 1) * layout.validation_windows // len(sources))
    parts = []
    for one, share in zip(sources, shares, strict=True):
        num_bytes = one.file.stat().st_size
        train = partial(convert_training, one, layout)
        parts.append(Part(name=f"train_{one.file.stem}", side="training", num_bytes=num_bytes, convert=train))
        validate = partial(convert_validation, one, layout, int(share))
        name = f"validation_{one.file.stem}"
        parts.append(Part(name=name, side="evaluation", num_bytes=num_bytes, convert=validate))
    return parts


def find_sources(folder: Path, layout: Layout) -> list[Source]:
    """The owner's files by name. DataError where one is missing, damaged or holds another number of documents."""
    files = sorted(folder.rglob("*.parquet"), key=lambda file: file.name)
    merges = [path for name in MERGES for path in sorted(folder.rglob(name))]
    if not files or not merges:
        raise DataError(f"{folder} should hold {OWNER_FILES}")
    gpt2_tokens.load(merges[0])  # before hours of work: it may be another list
    sources, first = [], 0
    for file in files:
        documents = count_texts(file)
        sources.append(Source(file=file, first=first, documents=documents, merges=merges[0]))
        first += documents
    if first != layout.documents:
        raise DataError(f"{len(files)} files in {folder} hold {first:,} documents, not {layout.documents:,}")
    return sources


def convert_training(source: Source, layout: Layout, stored: frozenset[str]) -> Iterator[tuple[str, Arrays]]:
    """A shard for every so many documents of a file, those that are stored already left out."""
    encoding = gpt2_tokens.load(source.merges)
    trains = ~layout.validates()[source.first : source.first + source.documents]
    rows = texts(source.file)
    for number, begin in enumerate(range(0, source.documents, layout.documents_per_shard)):
        stretch = slice(begin, begin + layout.documents_per_shard)
        documents = compress(islice(rows, layout.documents_per_shard), trains[stretch])
        shard = f"{source.file.stem}_{number:03}"
        if shard in stored:
            for _ in documents:
                pass
            continue
        yield shard, {"windows": windows_of(documents, encoding, layout.length)}


def convert_validation(
    source: Source, layout: Layout, count: int, stored: frozenset[str]
) -> Iterator[tuple[str, Arrays]]:
    """`count` windows of a file's documents that validate, spread evenly. DataError where there are fewer."""
    if source.file.stem in stored:
        return
    validates = layout.validates()[source.first : source.first + source.documents]
    encoding = gpt2_tokens.load(source.merges)
    windows = windows_of(compress(texts(source.file), validates), encoding, layout.length)
    yield source.file.stem, {"windows": windows[evenly_spread(len(windows), count, str(source.file))]}


def windows_of(documents: Iterable[str | None], encoding: "Encoding", length: int) -> np.ndarray:
    """Documents end to end, cut into windows: (windows, `length` + 1) uint16."""
    tokens = array("H")
    for document in documents:
        if document:
            # As plain text, also where it spells the name of a special token.
            tokens.extend(encoding.encode_ordinary(document))
            tokens.append(gpt2_tokens.END_OF_TEXT)
    whole = len(tokens) // (length + 1)
    return np.frombuffer(tokens, np.uint16, whole * (length + 1)).reshape(whole, length + 1)


DATASET = Dataset(
    name=NAME,
    version=VERSION,
    licence=(
        "FineWeb-Edu (HuggingFaceFW), ODC-By 1.0, and Common Crawl's terms of use; obtained by the user from its owner"
    ),
    package=None,
    owner_files=OWNER_FILES,
    prepare=prepare,
    disk_need=disk_need,
    training_batches=training_batches,
    evaluation_batches=evaluation_batches,
)
