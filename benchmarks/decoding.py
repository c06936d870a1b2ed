"""How fast outputs are decoded, beside a straightforward loop: `python benchmarks/decoding.py`.

Beam search: `wmt_pocket`'s transformer with its initial weights, whose translations are as long as they may be, by our
search in both frameworks and by a loop that takes one sentence after another, reads every hypothesis whole at each step
and keeps its candidates in lists. Greedy CTC and the character error rate: made logits of the size of the speech
twins', by our operators and by a loop over frames and a dynamic program over characters, in Python.

Everything runs in one process and one thread, compiled before it is measured. Printed are sentences and utterances
per second of processor time; results go to benchmarks/results/decoding.json.
"""

import itertools
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click

os.environ |= {
    "OMP_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}  # before the frameworks are imported

import jax
import numpy as np
import torch
from cpu_rate import rate

from timetrial.data_loading import spoken_lines
from timetrial.engine import provenance
from timetrial.engine.clock import utc_timestamp
from timetrial.engine.records import write_json_atomic
from timetrial.workloads import ctc_jax, ctc_torch
from timetrial.workloads.metrics_text import BLANK, character_error_rate
from timetrial.workloads.models import (
    transformer_decoding_jax,
    transformer_decoding_torch,
    transformer_jax,
    transformer_torch,
)
from timetrial.workloads.models.transformer import END_OF_SENTENCE, Transformer, length_penalty
from timetrial.workloads.wmt_pocket import WMT_POCKET

RESULTS = Path(__file__).parent / "results" / "decoding.json"
SENTENCES, UTTERANCES, FRAMES, LABELS = 64, 64, 74, 40
Rates = dict[str, float]


def calls(decode: Callable[[], Any]) -> Iterator[Any]:
    """What it returns, called again and again."""
    return itertools.starmap(decode, itertools.repeat(()))


def translations() -> Rates:
    """Sentences of 4 to 24 tokens."""
    config: Transformer = WMT_POCKET.model
    generator = np.random.default_rng(0)
    inputs = generator.integers(3, config.num_tokens, (SENTENCES, config.max_length)).astype(np.int32)
    inputs[np.arange(config.max_length) >= generator.integers(4, 25, SENTENCES)[:, None]] = 0
    torch.manual_seed(0)
    module: Any = transformer_torch.program(config).module().eval()
    program = transformer_jax.program(config)
    params, _ = program.from_torch(module.state_dict())
    search = jax.jit(partial(transformer_decoding_jax.translations, program.module))
    few = 4
    with torch.no_grad():
        batch = torch.from_numpy(inputs)
        return {
            "torch": rate(calls(lambda: transformer_decoding_torch.translations(module, batch)), SENTENCES),
            "jax": rate(calls(lambda: search(params, inputs).block_until_ready()), SENTENCES),
            "loop": rate(calls(lambda: [translation(module, row) for row in inputs[:few]]), few),
        }


def translation(module: Any, source: np.ndarray) -> tuple[int, ...]:
    """The best translation of one sentence that a beam finds: no cache, no end before the longest."""
    config: Transformer = module.config
    words = torch.from_numpy(source[source > 0])[None]
    live: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    finished: list[tuple[float, tuple[int, ...]]] = []
    for length in range(1, config.max_length):
        read = torch.tensor([[0, *tokens] for _, tokens in live])
        places = torch.arange(length)
        everything = torch.ones((1, 1, 1, words.shape[1]), dtype=torch.bool)
        memory = module.source(module.encoded(words.expand(len(live), -1), everything))
        past = (places[:, None] >= places)[None, None]
        following = module.decoded(read, places, memory, past, everything)[:, -1].log_softmax(-1)
        totals, indices = (
            (following + torch.tensor([[total] for total, _ in live])).flatten().topk(2 * config.beam_size)
        )
        candidates = [
            (total, (*live[index // config.num_tokens][1], index % config.num_tokens))
            for total, index in zip(totals.tolist(), indices.tolist(), strict=True)
        ]
        ended = [
            (total / length_penalty(float(length)), t) for total, t in candidates if t[-1] == END_OF_SENTENCE
        ]
        finished = sorted(finished + ended, reverse=True)[: config.beam_size]
        live = [(total, t) for total, t in candidates if t[-1] != END_OF_SENTENCE][: config.beam_size]
    return (finished or live)[0][1]


def spellings() -> Rates:
    """Utterances of 74 frames and 40 labels, blanks in half of the frames."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(UTTERANCES, FRAMES, spoken_lines.NUM_TOKENS)).astype(np.float32)
    logits[..., BLANK] += 2
    padding = np.zeros((UTTERANCES, FRAMES), np.float32)
    labels = generator.integers(spoken_lines.FIRST_SYMBOL, spoken_lines.NUM_TOKENS, (UTTERANCES, LABELS))
    tokenizer = spoken_lines.Letters()
    scalars = {"ctc_loss": np.float64(0), "count": np.float64(1)}

    def errors(hypotheses: Any) -> float:
        rows = {"hypotheses": np.asarray(hypotheses), "references": labels, "weights": np.ones(UTTERANCES)}
        return character_error_rate({**rows, **scalars}, Path(), tokenizer=lambda data: tokenizer)["cer"]

    in_torch = (torch.from_numpy(logits), torch.from_numpy(padding))
    greedy = jax.jit(ctc_jax.greedy_path)
    found = {
        "torch": lambda: errors(ctc_torch.greedy_path(*in_torch)),
        "jax": lambda: errors(greedy(logits, padding)),
        "loop": lambda: error_rate(logits, labels),
    }
    values = {name: decode() for name, decode in found.items()}
    if max(values.values()) - min(values.values()) > 1e-9:
        raise click.ClickException(f"the error rates should be equal: {values}")
    return {name: rate(calls(decode), UTTERANCES) for name, decode in found.items()}


def error_rate(logits: np.ndarray, labels: np.ndarray) -> float:
    """Frame by frame, then character by character."""
    wrong = 0
    for utterance, wanted in zip(logits, labels.tolist(), strict=True):
        symbols = [int(frame.argmax()) for frame in utterance]
        spelled = [symbol for symbol, _ in itertools.groupby(symbols) if symbol != BLANK]
        spelled = [symbol for symbol in spelled if symbol >= spoken_lines.FIRST_SYMBOL]
        above = list(range(len(wanted) + 1))
        for i, symbol in enumerate(spelled, 1):
            row = [i]
            for j, other in enumerate(wanted, 1):
                row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (symbol != other)))
            above = row
        wrong += above[-1]
    return wrong / labels.size


@click.command()
def main() -> None:
    """Measure both."""
    torch.set_num_threads(1)
    rows = {"beam search": translations(), "greedy CTC and error rate": spellings()}
    click.echo(f"{'examples per CPU second':28}{'torch':>10}{'jax':>10}{'loop':>10}{'ratios':>16}")
    for name, found in rows.items():
        ratios = " ".join(f"{found[framework] / found['loop']:7.1f}" for framework in ("torch", "jax"))
        click.echo(f"{name:28}{found['torch']:10.1f}{found['jax']:10.1f}{found['loop']:10.2f}{ratios:>16}")
    versions = {name: provenance.framework_version(name) for name in ("torch", "jax")}
    machine = {**provenance.hardware(), **provenance.versions(), **versions}
    write_json_atomic(
        RESULTS,
        {
            "command": "python benchmarks/decoding.py",
            "date": utc_timestamp(),
            "machine": machine,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
