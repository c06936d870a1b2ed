"""Subword vocabularies: SentencePiece unigram models, trained when a dataset is prepared and stored with it.

Every sentence ends in the piece `</s>` (id 2) and begins with none of its own; id 0 is the unknown piece, and what
the workloads pad with. A model is stored as an array of its bytes: `stored(model)` makes it, `load` reads it.

Models are trained as AlgoPerf trains its own: every character of the text is in the vocabulary, and the library's
defaults otherwise (NFKC normalisation). The same text gives the same model; the reference's, which it does not
publish, are of other lines of the text or of another order.

Source: T. Kudo and J. Richardson, SentencePiece (arXiv 1808.06226); T. Kudo (arXiv 1804.10959).
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from timetrial.engine.errors import DataError

UNKNOWN, END = 0, 2  # ids
MAX_BYTES = 10_000_000  # of the text that AlgoPerf trains its vocabularies on
THREADS = 16  # sums over sentences are rounded in an order that this number decides
ERRORS_ONLY = 2  # what the library prints


def train(sentences: Iterable[str], vocab_size: int, max_bytes: int = MAX_BYTES) -> bytes:
    """A model of `vocab_size` pieces of the first `max_bytes` bytes of the sentences (UTF-8, a line each).

    The sentence that goes beyond them is the last one. DataError where the text is too little for so many pieces
    or has more different characters.
    """
    model = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=_first(sentences, max_bytes),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            character_coverage=1.0,
            num_threads=THREADS,
            minloglevel=ERRORS_ONLY,
        )
    except RuntimeError as error:
        raise DataError(
            f"the text does not give a vocabulary of {vocab_size} pieces; SentencePiece says: {error}"
        ) from error
    return model.getvalue()


def _first(sentences: Iterable[str], max_bytes: int) -> Iterator[str]:
    so_far = 0
    for sentence in sentences:
        if so_far >= max_bytes:
            return
        so_far += len(sentence.encode()) + 1
        yield sentence


def stored(model: bytes) -> np.ndarray:
    """The model as an array that a prepared dataset can hold: (bytes,) uint8."""
    return np.frombuffer(model, np.uint8)


@dataclass(frozen=True)
class SubwordTokenizer:
    """Sentences to ids and back."""

    processor: SentencePieceProcessor

    @property
    def vocab_size(self) -> int:
        return int(self.processor.vocab_size())

    def encode(self, sentences: Sequence[str]) -> list[list[int]]:
        """The ids of every sentence, `END` last."""
        ids: list[list[int]] = self.processor.encode(
            list(sentences), out_type=int, add_eos=True, num_threads=1
        )
        return ids

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """The text of every list of ids; `END` has none. DataError where an id is outside the vocabulary."""
        try:
            # Not NumPy's integers, which the library does not take.
            texts = self.processor.decode([[int(one) for one in row] for row in ids], num_threads=1)
        except IndexError as error:
            raise DataError(f"there is an id outside the vocabulary's 0 to {self.vocab_size - 1}") from error
        return list(texts)


def load(model: np.ndarray | bytes) -> SubwordTokenizer:
    """The tokenizer of a model that `train` gave or that is stored. DataError where it is none."""
    content = model if isinstance(model, bytes) else np.asarray(model).tobytes()
    try:
        return SubwordTokenizer(SentencePieceProcessor(model_proto=content))
    except RuntimeError as error:
        raise DataError(
            "the stored vocabulary is no SentencePiece model; prepare the dataset again"
        ) from error
