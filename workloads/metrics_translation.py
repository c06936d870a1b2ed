"""From the translations of a split to BLEU, on the host; one of a page's `metrics`, as in `metrics.py`."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from timetrial.engine.facts import Statistics
from timetrial.workloads.metrics import accuracy_and_loss
from timetrial.workloads.metrics_text import Tokenizer
from timetrial.workloads.models.transformer import END_OF_SENTENCE


def bleu(statistics: Statistics, data: Path, *, tokenizer: Callable[[Path], Tokenizer]) -> dict[str, float]:
    """`bleu` (0 to 100), and per token of the references `accuracy` (0 to 1) and `loss` (nats).

    Of `translations` and `references`, tokens (rows, length), those rows are compared whose `rows` is not 0: as
    texts that the tokenizer makes of the tokens up to the first end of a sentence, sacreBLEU's corpus BLEU with its
    tokeniser 13a, exponential smoothing and case kept (Post 2018). `tokenizer` loads one from the folder `data`.
    """
    from sacrebleu.metrics.bleu import BLEU  # takes a tenth of a second, which only an evaluation needs

    decoder = tokenizer(data)
    is_row = np.asarray(statistics["rows"]) != 0
    translated, expected = (
        decoder.decode([sentence(tokens) for tokens in np.asarray(statistics[name])[is_row]])
        for name in ("translations", "references")
    )
    # `force` leaves out a warning about texts that look tokenised: early in training they may.
    metric = BLEU(tokenize="13a", smooth_method="exp", lowercase=False, force=True)
    score = metric.corpus_score(translated, [expected]).score
    return {"bleu": float(score), **accuracy_and_loss(statistics, data)}


def sentence(tokens: np.ndarray) -> list[int]:
    """The tokens up to the first end of a sentence, that one included; all of them where there is none."""
    ends = np.flatnonzero(tokens == END_OF_SENTENCE)
    kept: list[int] = tokens[: ends[0] + 1 if len(ends) else None].tolist()
    return kept
