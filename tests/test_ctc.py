"""CTC in both frameworks against its definition, an enumeration of all paths, and against torch's own function."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from timetrial.workloads import ctc_jax, ctc_torch

FRAMEWORKS = ["torch", "jax"]


def collapsed(path):
    """What a path spells, symbol by symbol."""
    spelled, before = [], 0
    for symbol in path:
        if symbol not in (0, before):
            spelled.append(int(symbol))
        before = symbol
    return spelled


def enumerated(logits, labels):
    """Minus log of the summed probability of all paths that spell the labels, over (T, V) logits; a torch scalar."""
    log_probabilities = logits.log_softmax(-1)
    paths = [
        path for path in product(range(logits.shape[1]), repeat=len(logits)) if collapsed(path) == labels
    ]
    of_paths = [sum(log_probabilities[t, symbol] for t, symbol in enumerate(path)) for path in paths]
    return -torch.stack(of_paths).logsumexp(0)


def padded(rows, length):
    """(B, length) of rows with zeros after them, and their padding."""
    values = np.array([[*row, *[0] * (length - len(row))] for row in rows])
    return values, np.array([[0.0] * len(row) + [1.0] * (length - len(row)) for row in rows])


def torch_loss(labels, logits, mask=None):
    """The three results and the gradient of `summed` to the logits, as NumPy arrays."""
    values = torch.tensor(logits[0], requires_grad=True)
    given_mask = None if mask is None else torch.tensor(mask)
    pair = tuple(map(torch.tensor, labels))
    results = ctc_torch.ctc_loss(pair, (values, torch.tensor(logits[1])), given_mask, 0.1)
    results["summed"].backward()
    return {name: value.detach().numpy() for name, value in results.items()} | {
        "gradient": values.grad.numpy()
    }


@jax.jit
def jax_results(labels, logits, mask):
    def summed(values):
        results = ctc_jax.ctc_loss(labels, (values, logits[1]), mask, 0.1)
        return results["summed"], results

    gradient, results = jax.grad(summed, has_aux=True)(logits[0])
    return results | {"gradient": gradient}


def jax_loss(labels, logits, mask=None):
    with jax.enable_x64(True):
        return {name: np.array(value) for name, value in jax_results(labels, logits, mask).items()}


LOSSES = {"torch": torch_loss, "jax": jax_loss}

# Labels, frames, and whether a path spells them in so many frames.
UTTERANCES = [
    ([], 5, True),
    ([1], 5, True),
    ([2, 1], 4, True),
    ([1, 1], 5, True),
    ([2, 1, 2], 3, True),
    ([1, 1], 3, True),
    ([2, 2, 1], 5, True),
    ([1, 1], 2, False),
    ([1, 2, 2], 3, False),
    ([2], 0, False),
    ([], 0, True),
]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_loss_is_that_of_all_paths(framework):
    rng = np.random.default_rng(0)
    labels = padded([row for row, _, _ in UTTERANCES], 4)
    _, frame_padding = padded([[0] * frames for _, frames, _ in UTTERANCES], 5)
    logits = rng.normal(size=(len(UTTERANCES), 5, 3))
    got = LOSSES[framework](labels, (logits, frame_padding))
    assert got["n_valid_examples"] == sum(len(row) for row, _, possible in UTTERANCES if possible)
    np.testing.assert_allclose(got["summed"], got["per_example"].sum(), rtol=1e-12)
    for i, (row, frames, possible) in enumerate(UTTERANCES):
        values = torch.tensor(logits[i], requires_grad=True)
        if possible and frames:
            loss = enumerated(values[:frames], row)
            loss.backward()
            np.testing.assert_allclose(got["per_example"][i], loss.item(), rtol=1e-12)
            np.testing.assert_allclose(got["gradient"][i], values.grad, rtol=0, atol=1e-12)
        else:
            assert got["per_example"][i] == 0 and not got["gradient"][i].any()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_loss_is_torchs(framework):
    rng = np.random.default_rng(1)
    rows = [rng.integers(1, 12, size=length) for length in (9, 1, 5, 0)]
    rows[0][3:5] = 7
    frames = np.array([20, 3, 12, 8])
    labels, logits = padded(rows, 9), rng.normal(size=(4, 20, 12)) * 3
    got = LOSSES[framework](labels, (logits, (np.arange(20) >= frames[:, None]).astype(float)))
    values = torch.tensor(logits, requires_grad=True)
    log_probabilities = values.log_softmax(-1).transpose(0, 1)
    lengths = torch.tensor([len(row) for row in rows])
    losses = F.ctc_loss(
        log_probabilities, torch.tensor(labels[0]), torch.tensor(frames), lengths, reduction="none"
    )
    losses.sum().backward()
    np.testing.assert_allclose(got["per_example"], losses.detach(), rtol=1e-12)
    np.testing.assert_allclose(got["gradient"], values.grad, rtol=0, atol=1e-12)
    assert got["n_valid_examples"] == lengths.sum()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_masked_utterances_count_for_nothing(framework):
    rng = np.random.default_rng(2)
    labels, logits = padded([[1, 2, 3], [4], [2, 2]], 4), (rng.normal(size=(3, 9, 5)), np.zeros((3, 9)))
    full = LOSSES[framework](labels, logits)
    some = LOSSES[framework](labels, logits, np.array([1.0, 0.0, 1.0]))
    np.testing.assert_allclose(some["per_example"], full["per_example"] * [1, 0, 1], rtol=1e-15)
    assert some["n_valid_examples"] == 5 and not some["gradient"][1].any()
    none = LOSSES[framework](labels, logits, np.zeros(3))
    assert none["summed"] == 0 and none["n_valid_examples"] == 1 and not none["gradient"].any()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_improbable_labels_have_a_finite_loss(framework):
    logits = np.full((3, 9, 5), -1e4, np.float32)
    logits[:, :, 4] = 1e4
    labels = padded([[1, 1, 2], [3], [1, 2, 3, 2]], 4)
    got = LOSSES[framework](labels, (logits, np.zeros((3, 9), np.float32)))
    np.testing.assert_allclose(got["per_example"], 9 * 2e4, rtol=1e-4)  # every symbol but 4 costs 2e4
    assert np.isfinite(got["gradient"]).all() and (got["gradient"][:, :, 4] > 0.9).all()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_half_precision_is_computed_in_single(framework):
    rng = np.random.default_rng(3)
    values = torch.tensor(rng.normal(size=(2, 9, 5)), dtype=torch.bfloat16)
    labels, padding = padded([[1, 2], [3]], 2), np.zeros((2, 9), np.float32)
    wanted = torch_loss(labels, (values.float().numpy(), padding))["per_example"]
    if framework == "torch":
        pair = tuple(map(torch.tensor, labels))
        got = ctc_torch.ctc_loss(pair, (values, torch.tensor(padding)), None, 0.0)["per_example"]
    else:
        half = jnp.asarray(values.float().numpy(), jnp.bfloat16)
        got = jax_results(labels, (half, padding), None)["per_example"]
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_padding_changes_nothing(data):
    """In torch against the utterance alone; in JAX against another filling of the padding."""
    seed = data.draw(st.integers(0, 2**32 - 1))
    lengths = data.draw(st.lists(st.integers(0, 4), min_size=3, max_size=3))
    frames = data.draw(st.lists(st.integers(0, 9), min_size=3, max_size=3))
    rng = np.random.default_rng(seed)
    tokens, logits = rng.integers(1, 5, size=(3, 4)), rng.normal(size=(3, 9, 5))
    label_padding = (np.arange(4) >= np.array(lengths)[:, None]).astype(float)
    frame_padding = (np.arange(9) >= np.array(frames)[:, None]).astype(float)
    batch = torch_loss((tokens, label_padding), (logits, frame_padding))
    assert not batch["gradient"][frame_padding == 1].any()
    for i, (length, count) in enumerate(zip(lengths, frames, strict=True)):
        count = max(count, 1)
        labels = tokens[i : i + 1, :length], np.zeros((1, length))
        alone = torch_loss(labels, (logits[i : i + 1, :count], frame_padding[i : i + 1, :count]))
        np.testing.assert_allclose(batch["per_example"][i], alone["per_example"][0], rtol=1e-12)
        np.testing.assert_allclose(batch["gradient"][i, :count], alone["gradient"][0], rtol=0, atol=1e-12)
    others = np.where(label_padding == 1, rng.integers(0, 5, size=(3, 4)), tokens)
    filled = np.where(frame_padding[..., None] == 1, 1e6, logits)
    for got in (
        jax_loss((tokens, label_padding), (logits, frame_padding)),
        jax_loss((others, label_padding), (filled, frame_padding)),
    ):
        np.testing.assert_allclose(got["per_example"], batch["per_example"], rtol=1e-12)
        np.testing.assert_allclose(got["gradient"], batch["gradient"], rtol=0, atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_greedy_paths_are_collapsed(data):
    symbols = data.draw(st.lists(st.lists(st.integers(0, 2), min_size=8, max_size=8), min_size=2, max_size=2))
    frames = data.draw(st.lists(st.integers(0, 8), min_size=2, max_size=2))
    logits = np.eye(3)[symbols]
    padding = (np.arange(8) >= np.array(frames)[:, None]).astype(float)
    wanted, _ = padded([collapsed(row[:count]) for row, count in zip(symbols, frames, strict=True)], 8)
    np.testing.assert_array_equal(ctc_torch.greedy_path(torch.tensor(logits), torch.tensor(padding)), wanted)
    np.testing.assert_array_equal(jax.jit(ctc_jax.greedy_path)(logits, padding), wanted)


def scores(framework, batch, logits):
    if framework == "torch":
        tensors = {
            key: tuple(map(torch.tensor, value)) if isinstance(value, tuple) else torch.tensor(value)
            for key, value in batch.items()
        }
        return ctc_torch.ctc_score(tensors, tuple(map(torch.tensor, logits)))
    with jax.enable_x64(True):
        compute = jax.jit(ctc_jax.ctc_score)
        return {name: np.array(value) for name, value in compute(batch, logits).items()}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_scores_are_sums_and_rows(framework):
    rng = np.random.default_rng(4)
    targets, logits = padded([[1, 2, 4], [3, 3], []], 4), (rng.normal(size=(3, 9, 5)), np.zeros((3, 9)))
    targets[0][1, 3] = 4  # what padding holds is no label
    whole = torch_loss(targets, logits)
    got = scores(framework, {"targets": targets}, logits)
    np.testing.assert_allclose(got["ctc_loss"], whole["summed"], rtol=1e-12)
    assert got["count"] == 5 and np.ndim(got["count"]) == 0
    np.testing.assert_array_equal(got["weights"], np.ones(3))
    np.testing.assert_array_equal(got["references"], padded([[1, 2, 4], [3, 3], []], 4)[0])
    wanted, _ = padded([collapsed(row) for row in logits[0].argmax(-1)], 9)
    np.testing.assert_array_equal(got["hypotheses"], wanted)
    weighted = scores(framework, {"targets": targets, "weights": np.array([1.0, 0.0, 0.0])}, logits)
    np.testing.assert_allclose(weighted["ctc_loss"], whole["per_example"][0], rtol=1e-12)
    assert weighted["count"] == 3
    np.testing.assert_array_equal(weighted["weights"], [1, 0, 0])
    # Nothing but padding: nothing is counted, not even the 1 by which a loss is divided then.
    assert scores(framework, {"targets": targets, "weights": np.zeros(3)}, logits)["count"] == 0


def test_torch_compiles_it_whole_and_once():
    torch._dynamo.reset()
    compiled = torch.compile(ctc_torch.ctc_loss, fullgraph=True, backend="aot_eager")
    rng = np.random.default_rng(5)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for rows in ([[1, 2], [3, 3]], [[], [4, 1, 2]]):
            labels, values = padded(rows, 3), rng.normal(size=(2, 6, 5))
            wanted = torch_loss(labels, (values, np.zeros((2, 6))))
            logits = torch.tensor(values, requires_grad=True)
            pair = tuple(map(torch.tensor, labels))
            got = compiled(pair, (logits, torch.zeros(2, 6, dtype=torch.float64)), None, 0.0)
            got["summed"].backward()
            np.testing.assert_allclose(got["per_example"].detach(), wanted["per_example"], rtol=1e-12)
            np.testing.assert_allclose(logits.grad, wanted["gradient"], rtol=0, atol=1e-12)
    torch._dynamo.reset()


@pytest.mark.parametrize("with_gradient", [True, False])
def test_torchs_operator_is_registered_correctly(with_gradient):
    logits = torch.randn(3, 7, 5, dtype=torch.float64, requires_grad=with_gradient)
    tokens, ones = torch.randint(1, 5, (3, 2)), torch.ones(3, dtype=torch.int64)
    torch.library.opcheck(ctc_torch._ctc, (logits, tokens, 7 * ones, 2 * ones, with_gradient))
