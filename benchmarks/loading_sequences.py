"""Loaders of graphs, pairs of sentences and speech, beside the obvious code; `loading.py` runs and records it.

Stored are made examples of the sizes that the real datasets have. Each function gives two rates, ours and the plain
one, in examples (graphs; packed rows of sentences; utterances) per second of processor time.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from cpu_rate import rate

from timetrial.data_loading import graph_batches, librispeech, ogbg, subword_tokenizer
from timetrial.data_loading.graph_batches import Budget
from timetrial.data_loading.graphs import UNKNOWN, PackedGraphs, with_both_directions
from timetrial.data_loading.packing import packed_batches
from timetrial.data_loading.prepared import Arrays, open_arrays, prepare_once
from timetrial.data_loading.token_pairs import TokenPairs, stored_pairs
from timetrial.data_loading.utterances import Lengths, Utterances, shard_arrays
from timetrial.engine.facts import Order

SECONDS_OF_SPEECH = (2.0, 20.0)
SAMPLES_A_SECOND = 16_000
WORDS, WORDS_A_SENTENCE = 5_000, (8, 40)
SENTENCE_TOKENS = 256


def stored(folder: Path, arrays: Arrays) -> Arrays:
    """The same arrays, memory-mapped, as a race reads them."""
    prepare_once(folder, "made", 1, lambda: {"training": arrays, "evaluation": {"none": np.zeros(1)}})
    return open_arrays(folder, "training", "made", 1)


def molecules(sizes: np.ndarray, generator: np.random.Generator) -> PackedGraphs:
    """Rings of so many atoms, at least 15, with two bonds more: both directions of every bond, as ogbg-molpcba's."""
    rings = [np.arange(size) for size in sizes]
    return with_both_directions(
        PackedGraphs(
            n_node=sizes.astype(np.int32),
            n_edge=(sizes + 2).astype(np.int32),
            nodes=generator.integers(10, size=(sizes.sum(), 9)).astype(np.uint8),
            edges=generator.integers(4, size=((sizes + 2).sum(), 3)).astype(np.uint8),
            senders=np.concatenate([np.append(ring, [0, 8]) for ring in rings]).astype(np.uint16),
            receivers=np.concatenate([np.append((ring + 1) % len(ring), [6, 14]) for ring in rings]).astype(
                np.uint16
            ),
            labels=generator.integers(UNKNOWN, 2, (len(sizes), ogbg.NUM_TASKS)).astype(np.int8),
        )
    )


def graphs() -> tuple[float, float]:
    """Graphs in batches of 512, collated: plainly, one after another."""
    batch_size = 512
    generator = np.random.default_rng(0)
    packed = molecules(generator.integers(16, 37, 20_000), generator)  # 26 atoms on average, as the real ones
    budget = Budget.of(batch_size, ogbg.AVERAGES)
    with tempfile.TemporaryDirectory() as name:
        kept = PackedGraphs.of(stored(Path(name), vars(packed)))
        order = Order(batch_size=batch_size, seed=0)
        ours = rate(graph_batches.training_batches(kept, order, ogbg.AVERAGES), batch_size)
    return ours, rate(joined_one_by_one(packed, batch_size, budget), batch_size)


def joined_one_by_one(packed: PackedGraphs, batch_size: int, budget: Budget) -> Iterator[Any]:
    """Each graph's arrays by themselves, shifted, joined and padded."""
    generator = np.random.default_rng(0)
    first_nodes = np.concatenate([[0], np.cumsum(packed.n_node)])
    first_edges = np.concatenate([[0], np.cumsum(packed.n_edge)])
    while True:
        parts: dict[str, list[np.ndarray]] = {
            key: [] for key in ("nodes", "edges", "senders", "receivers", "targets", "weights")
        }
        nodes = 0
        for number in generator.integers(len(packed.n_node), size=batch_size):
            of_nodes = slice(first_nodes[number], first_nodes[number + 1])
            of_edges = slice(first_edges[number], first_edges[number + 1])
            parts["nodes"].append(packed.nodes[of_nodes].astype(np.float32))
            parts["edges"].append(packed.edges[of_edges].astype(np.float32))
            parts["senders"].append(packed.senders[of_edges].astype(np.int32) + nodes)
            parts["receivers"].append(packed.receivers[of_edges].astype(np.int32) + nodes)
            labels = packed.labels[number]
            parts["targets"].append(np.where(labels == UNKNOWN, 0, labels).astype(np.float32)[None])
            parts["weights"].append((labels != UNKNOWN).astype(np.float32)[None])
            nodes += int(packed.n_node[number])
        rows = {"nodes": budget.nodes, "targets": budget.graphs, "weights": budget.graphs}
        joined = {key: np.concatenate(arrays) for key, arrays in parts.items()}
        yield {
            key: np.resize(array, (max(rows.get(key, budget.edges), len(array)), *array.shape[1:]))
            for key, array in joined.items()
        }


def sentences() -> tuple[float, float]:
    """Pairs of sentences in batches of 128 rows of 256 tokens: plainly, SentencePiece and a loop over the pairs."""
    rows, generator = 128, np.random.default_rng(0)
    words = [
        "".join(generator.choice(list("aeioubdfgklmnrst"), generator.integers(2, 10))) for _ in range(WORDS)
    ]

    def sentence() -> str:
        return " ".join(generator.choice(words, generator.integers(*WORDS_A_SENTENCE)))

    pairs = [(sentence(), sentence()) for _ in range(20_000)]
    model = subword_tokenizer.train((side for pair in pairs[:5_000] for side in pair), 4_000)
    tokenizer = subword_tokenizer.load(model)
    sides = [tokenizer.encode([pair[side] for pair in pairs]) for side in (0, 1)]
    with tempfile.TemporaryDirectory() as name:
        kept = TokenPairs([stored(Path(name), stored_pairs(*sides, SENTENCE_TOKENS))])
        ours = rate(packed_batches(kept, SENTENCE_TOKENS, Order(batch_size=rows, seed=0)), rows)
    return ours, rate(packed_in_a_loop(pairs, tokenizer, rows), rows)


def packed_in_a_loop(pairs: list[tuple[str, str]], tokenizer: Any, rows: int) -> Iterator[Any]:
    """The same rows from the text: each pair encoded, then put into the row of the one before it or the next one."""
    generator = np.random.default_rng(0)
    names = [f"{side}{what}" for side in ("inputs", "targets") for what in ("", "_position", "_segmentation")]
    batch = {name: np.zeros((rows, SENTENCE_TOKENS), np.int32) for name in names}
    row, segment, used = 0, 0, [0, 0]
    while True:
        both = tokenizer.encode(list(pairs[generator.integers(len(pairs))]))
        if any(begin + len(tokens) > SENTENCE_TOKENS for begin, tokens in zip(used, both, strict=True)):
            row, segment, used = row + 1, 0, [0, 0]
        if row == rows:
            yield {**batch, "weights": (batch["targets"] > 0).astype(np.float32)}
            batch = {name: np.zeros((rows, SENTENCE_TOKENS), np.int32) for name in names}
            row = 0
        segment += 1
        for side, name in enumerate(("inputs", "targets")):
            place = slice(used[side], used[side] + len(both[side]))
            batch[name][row, place] = both[side]
            batch[f"{name}_position"][row, place] = np.arange(len(both[side]))
            batch[f"{name}_segmentation"][row, place] = segment
            used[side] += len(both[side])


def speech() -> tuple[float, float]:
    """Utterances of 2 to 20 s in batches of 32: plainly, from a pair of NumPy's files each, padded by `np.pad`."""
    batch_size, generator = 32, np.random.default_rng(0)
    lengths = Lengths(samples=librispeech.MAX_SAMPLES, labels=librispeech.MAX_LABELS)
    sizes = (generator.uniform(*SECONDS_OF_SPEECH, 256) * SAMPLES_A_SECOND).astype(int)
    audio = [generator.integers(-20_000, 20_000, size).astype(np.int16) for size in sizes]
    tokens = [generator.integers(3, 1_000, size // 4_000).tolist() for size in sizes]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kept = Utterances([stored(folder / "data", shard_arrays(audio, tokens))], lengths)
        ours = rate(kept.training_batches(Order(batch_size=batch_size, seed=0)), batch_size)
        for number, (samples, labels) in enumerate(zip(audio, tokens, strict=True)):
            np.save(folder / f"{number}_audio.npy", samples.astype(np.float32))
            np.save(folder / f"{number}_targets.npy", np.array(labels, np.int32))
        plain = rate(padded_one_by_one(folder, len(audio), lengths, batch_size), batch_size)
    return ours, plain


def padded_one_by_one(folder: Path, count: int, lengths: Lengths, batch_size: int) -> Iterator[Any]:
    """Each utterance from its files, which hold float32 as AlgoPerf's do."""
    generator = np.random.default_rng(0)

    def padded(name: str, length: int) -> tuple[np.ndarray, np.ndarray]:
        values = np.load(folder / name)
        missing = (0, length - len(values))
        return np.pad(values, missing), np.pad(np.zeros(len(values), np.float32), missing, constant_values=1)

    while True:
        numbers = generator.integers(count, size=batch_size)
        sides = (("audio", lengths.samples), ("targets", lengths.labels))
        yield [
            [
                np.stack(arrays)
                for arrays in zip(*(padded(f"{i}_{name}.npy", n) for i in numbers), strict=True)
            ]
            for name, n in sides
        ]
