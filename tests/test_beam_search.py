"""Beam search against searches of the plainest kind, whose every step reads whole sentences again, in float64."""

import itertools
import math
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from timetrial.workloads.models import (
    transformer_decoding_jax,
    transformer_decoding_torch,
    transformer_jax,
    transformer_torch,
)
from timetrial.workloads.models.transformer import Transformer, length_penalty

EOS = 2
FRAMEWORKS = ("torch", "jax")

small = partial(Transformer, width=8, num_layers=2, num_heads=2, mlp_width=8)
SEARCHED = {
    # One beam for each of the 81 hypotheses without end that four tokens can make.
    "exhaustive": small(num_tokens=4, max_length=5, beam_size=81, num_layers=1),
    "greedy": small(num_tokens=9, max_length=14, beam_size=1, num_layers=1),
    "beam": small(num_tokens=9, max_length=21, beam_size=4, attention_temp=2.0),
    "short": small(num_tokens=9, max_length=7, beam_size=3),
}


@cache
def scrambled(name, seed=0, scale=2.0):
    """A module in float64 whose translations vary from row to row."""
    torch.manual_seed(seed)
    module = transformer_torch.program(SEARCHED[name]).module().double().eval()
    with torch.no_grad():
        for path, parameter in module.named_parameters():
            parameter += (0.1 if "embedding" in path else scale) * torch.randn_like(parameter)
    return module


def sources(config, rows, length=5):
    """Sentences of several lengths, padded; the last row is padding."""
    rng = np.random.default_rng(0)
    inputs = rng.integers(1, config.num_tokens, (rows, length))
    inputs[np.arange(length) >= 1 + np.arange(rows)[:, None] % length] = 0
    inputs[-1] = 0
    return inputs


@cache
def jax_search(name):
    program = transformer_jax.program(SEARCHED[name])
    search = partial(transformer_decoding_jax.translations, program.module)
    return program, jax.jit(search)


def translated(framework, name, module, inputs):
    if framework == "torch":
        with torch.no_grad():
            return transformer_decoding_torch.translations(module, torch.from_numpy(inputs)).numpy()
    with jax.enable_x64(True):
        program, search = jax_search(name)
        params, _ = program.from_torch(module.state_dict())
        return np.asarray(search(params, inputs))


def next_log_probabilities(module, source, hypotheses):
    """Of every token after each hypothesis, (hypotheses, V), without any cache."""
    read = torch.tensor([[0, *tokens] for tokens in hypotheses])
    source = torch.from_numpy(source[source > 0])[None].expand(len(read), -1)
    places = torch.arange(read.shape[1])
    everything = torch.ones((1, 1, 1, source.shape[1]), dtype=torch.bool)
    past = (places[:, None] >= places)[None, None]
    with torch.no_grad():
        memory = module.source(module.encoded(source, everything))
        logits = module.decoded(read, places, memory, past, everything)
    return logits[:, -1].log_softmax(-1).numpy()


def score(log_probability, tokens):
    return log_probability / ((5 + tokens) / 6) ** 0.6


def plain_search(module, source):
    """The best translation that a beam finds, without cache, tensors of beams or an early end."""
    config = module.config
    live, finished = [(0.0, ())], []
    for length in range(1, config.max_length):
        log_probabilities = next_log_probabilities(module, source, [tokens for _, tokens in live])
        candidates = [
            (total + log_probabilities[i, token], (*tokens, token))
            for i, (total, tokens) in enumerate(live)
            for token in range(config.num_tokens)
        ]
        candidates = sorted(candidates, reverse=True)[: 2 * config.beam_size]
        ended = [(score(total, length), tokens) for total, tokens in candidates if tokens[-1] == EOS]
        finished = sorted(finished + ended, reverse=True)[: config.beam_size]
        live = [(total, tokens) for total, tokens in candidates if tokens[-1] != EOS][: config.beam_size]
    return list((finished or live)[0][1])


def padded(config, rows):
    return [row + [0] * (config.max_length - 1 - len(row)) for row in rows]


def test_the_length_penalty():
    assert length_penalty(1.0) == 1 and length_penalty(7.0) == pytest.approx(2**0.6)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_beam_wide_enough_finds_the_best_of_all_sentences(framework):
    config, module = SEARCHED["exhaustive"], scrambled("exhaustive", 1)
    inputs = sources(config, 6)
    wanted = []
    for source in inputs[:-1]:
        following = cache(lambda *tokens, source=source: next_log_probabilities(module, source, [tokens])[0])
        sentences = [
            (*words, EOS)
            for length in range(1, config.max_length)
            for words in itertools.product((0, 1, 3), repeat=length - 1)
        ]
        scores = [
            score(sum(following(*s[:i])[token] for i, token in enumerate(s)), len(s)) for s in sentences
        ]
        wanted.append(list(sentences[int(np.argmax(scores))]))
    assert len({len(row) for row in wanted}) > 1  # of several lengths
    found = translated(framework, "exhaustive", module, inputs)
    assert found[:-1].tolist() == padded(config, wanted)


@pytest.mark.parametrize("name", ["greedy", "beam"])
def test_both_frameworks_find_what_a_plain_search_finds(name):
    config, inputs = SEARCHED[name], sources(SEARCHED[name], 5)
    texts, lengths = set(), set()
    for seed, scale in ((0, 0.6), (0, 2.0), (4, 0.6), (5, 2.0)):
        module = scrambled(name, seed, scale)
        wanted = [plain_search(module, source) for source in inputs[:-1]]
        for framework in FRAMEWORKS:
            found = translated(framework, name, module, inputs)
            assert found.shape == (5, config.max_length - 1)
            assert found[:-1].tolist() == padded(config, wanted), framework
        texts |= set(map(tuple, wanted))
        lengths |= {row.index(EOS) + 1 if EOS in row else None for row in wanted}
    assert len(texts) > 4 and len(lengths) > {"greedy": 1, "beam": 3}[name], (texts, lengths)


def test_rows_do_not_depend_on_each_other():
    module, inputs = scrambled("beam", 5), sources(SEARCHED["beam"], 5)
    together = translated("torch", "beam", module, inputs)
    for row, alone in zip(inputs[:-1], together, strict=False):
        cut = row[: max(np.flatnonzero(row)) + 1]
        assert translated("torch", "beam", module, cut[None])[0].tolist() == alone.tolist()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_cached_steps_give_the_logits_of_the_whole_sentence(framework, monkeypatch):
    """Though hypotheses change their beams after every step."""
    config, module, inputs = SEARCHED["short"], scrambled("short"), sources(SEARCHED["short"], 4)[:3]
    rng = np.random.default_rng(1)
    rows, num_beams, length = len(inputs), config.beam_size, config.max_length
    read = rng.integers(0, config.num_tokens, (rows, num_beams, length - 1))
    read[..., 0] = 0
    with torch.no_grad():
        repeated = torch.from_numpy(inputs).repeat_interleave(num_beams, 0)
        targets = torch.from_numpy(np.pad(read[..., 1:], ((0, 0), (0, 0), (0, 1)), constant_values=1))
        # No padding among the targets: it is masked in training, and read in a search.
        targets = targets.flatten(0, 1).clamp_min(1)
        wanted = module(repeated, targets).unflatten(0, (rows, num_beams)).numpy()
    read[..., 1:] = read[..., 1:].clip(1)

    order, computed = np.tile(np.arange(num_beams), (rows, 1)), []
    decoding = {"torch": transformer_decoding_torch, "jax": transformer_decoding_jax}[framework]
    convert = {"torch": torch.from_numpy, "jax": jnp.asarray}[framework]

    def forced(beams, logits, place):
        """Every beam goes on with the sentence of another one."""
        nonlocal order
        restored = np.empty(logits.shape)
        np.put_along_axis(restored, order[..., None], np.asarray(logits), 1)
        computed.append(restored)
        parents = rng.permuted(np.tile(np.arange(num_beams), (rows, 1)), axis=1)
        order = np.take_along_axis(order, parents, 1)
        live = np.zeros((rows, num_beams, length), np.int64)
        live[..., : length - 1] = np.take_along_axis(read, order[..., None], 1)
        visible = np.take_along_axis(np.asarray(beams.visible_BKPK), parents[..., None, None], 1)
        return beams._replace(live_BKP=convert(live), visible_BKPK=convert(visible))

    monkeypatch.setattr(decoding, "advanced", forced)
    if framework == "torch":
        with torch.no_grad():
            source = decoding.encoded_source(module, torch.from_numpy(inputs))
            keys = source.layers[0].keys
            beams = decoding.first_beams(config, rows, keys)
            caches = [decoding.first_cache(config, keys) for _ in source.layers]
            for place in range(length - 1):
                beams = decoding.step(module, source, caches, beams, torch.tensor([place]), length - 1)
    else:
        with jax.enable_x64(True):
            program = transformer_jax.program(config)
            params, _ = program.from_torch(module.state_dict())
            source = decoding.encoded_source(program.module, params, jnp.asarray(inputs))
            keys = source.layers[0].keys
            beams = decoding.first_beams(config, rows, keys.dtype)
            caches = [decoding.first_cache(config, keys) for _ in source.layers]
            for place in range(length - 1):
                beams, caches = decoding.step(program.module, params, source, caches, beams, jnp.int32(place))
    np.testing.assert_allclose(np.stack(computed, 2), wanted, rtol=1e-10, atol=1e-10)


def with_end(name, logit):
    """A module that ends, or does not end, every sentence at once."""
    module = transformer_torch.program(SEARCHED[name]).module().double().eval()
    module.load_state_dict(scrambled(name).state_dict())
    with torch.no_grad():
        module.decoder.norm.bias[0] = 5.0
        module.shared_embedding.weight[:, 0] = 0.0
        module.shared_embedding.weight[EOS, 0] = logit
    return module


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_sentences_that_end_at_once_and_never(framework):
    config, inputs = SEARCHED["beam"], sources(SEARCHED["beam"], 5)
    ended = translated(framework, "beam", with_end("beam", 30.0), inputs)[:-1]
    assert ended.tolist() == padded(config, [[EOS]] * 4)
    module = with_end("beam", -30.0)
    endless = translated(framework, "beam", module, inputs)[:-1]
    assert endless.tolist() == [plain_search(module, source) for source in inputs[:-1]]
    assert not (endless == EOS).any()


@pytest.mark.parametrize("case", ["ended", "padding", "not a number"])
def test_a_search_stops_when_nothing_can_change(case, monkeypatch):
    calls = []
    decoded = transformer_torch.Network.decoded
    monkeypatch.setattr(
        transformer_torch.Network,
        "decoded",
        lambda self, *args, **kwargs: calls.append(1) or decoded(self, *args, **kwargs),
    )
    module, inputs = with_end("beam", 30.0), sources(SEARCHED["beam"], 3)
    if case == "padding":
        module, inputs = scrambled("beam"), inputs[-1:]
    elif case == "not a number":
        module.decoder.layers[0].norm2.bias.data[0] = math.nan
    translated("torch", "beam", module, inputs)
    assert len(calls) == 8


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_when_a_row_is_done(framework):
    config = small(num_tokens=9, max_length=7, beam_size=2)  # the penalty of 7 tokens is 2 ** 0.6
    bound = -2.0 / 2**0.6

    def done(live, scores, is_row=True):
        module, convert = {
            "torch": (transformer_decoding_torch, torch.tensor),
            "jax": (transformer_decoding_jax, jnp.asarray),
        }[framework]
        other = ([-1.0, -2.0], [0.0, 0.0])  # a row that is done
        beams = module.Beams(None, convert([live, other[0]]), None, None, convert([scores, other[1]]))
        return bool(module.all_done(config, beams, convert([is_row, True])))

    live = [-2.0, -9.0]
    assert done(live, [-0.1, bound + 1e-3]) and not done(live, [-0.1, bound - 1e-3])
    assert not done(live, [-0.1, -math.inf]) and done(live, [-0.1, -math.inf], is_row=False)
    assert done([math.nan, math.nan], [-math.inf, -math.inf])


def test_looking_less_often_changes_nothing(monkeypatch):
    module, inputs = scrambled("beam", 5), sources(SEARCHED["beam"], 5)
    found = []
    for steps in (1, 8, 100):
        monkeypatch.setattr(transformer_decoding_torch, "STEPS_BETWEEN_CHECKS", steps)
        found.append(translated("torch", "beam", module, inputs)[:-1].tolist())
    assert found[0] == found[1] == found[2]


def test_the_torch_step_compiles_whole_and_once():
    config, module = SEARCHED["short"], scrambled("short")
    decoding = transformer_decoding_torch
    compiled = torch.compile(decoding.step, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        source = decoding.encoded_source(module, torch.from_numpy(sources(config, 4)))
        keys = source.layers[0].keys
        results = []
        for step in (decoding.step, compiled):
            beams = decoding.first_beams(config, 4, keys)
            caches = [decoding.first_cache(config, keys) for _ in source.layers]
            try:
                for place in torch.arange(4).split(1):
                    with torch._dynamo.config.patch(error_on_recompile=bool(place[0] > 0)):
                        beams = step(module, source, caches, beams, place, 6)
            finally:
                torch._dynamo.reset()
            results.append((beams, caches))
    torch.testing.assert_close(results[1], results[0])


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_decode_says_which_rows_are_rows(framework):
    config, module = SEARCHED["greedy"], scrambled("greedy")
    inputs = sources(config, 4)
    targets = np.array([[3, 0, EOS], [0, 0, EOS], [5, EOS, 0], [0, 0, 0]])
    batch = {"inputs": inputs, "targets": targets, "weights": (targets > 0).astype(np.float32)}
    if framework == "torch":
        tensors = {key: torch.from_numpy(array) for key, array in batch.items()}
        with torch.no_grad():
            found = transformer_torch.program(config).decode(module, tensors)
        unweighted = transformer_torch.program(config).decode(
            module, {key: tensors[key] for key in ("inputs", "targets")}
        )
    else:
        program = transformer_jax.program(config)
        with jax.enable_x64(True):
            params, _ = program.from_torch(module.state_dict())
            decode = jax.jit(program.decode)
            found = decode(params, None, batch)
            unweighted = decode(params, None, {key: batch[key] for key in ("inputs", "targets")})
    assert found.keys() == {"translations", "references", "rows"}
    assert np.asarray(found["rows"]).tolist() == [1, 1, 1, 0]
    assert np.asarray(unweighted["rows"]).tolist() == [1, 1, 1, 1]
    np.testing.assert_array_equal(found["references"], targets)
    wanted = translated("torch", "greedy", module, inputs)
    np.testing.assert_array_equal(np.asarray(found["translations"])[:-1], wanted[:-1])
