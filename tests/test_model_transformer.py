"""The translation model against float64 NumPy, one sentence at a time; its names and types."""

import math
from collections import Counter
from functools import cache, partial

import jax
import numpy as np
import pytest
import torch

from timetrial.workloads.models import transformer_jax, transformer_torch
from timetrial.workloads.models.transformer import Transformer, position_code

KEY = np.array([0, 5], np.uint32)
EOS = 2
LENGTH = 12

full = partial(Transformer, num_tokens=32_000, max_length=256, width=1024, num_layers=6, num_heads=16)
# Parameters, tensors, and AlgoPerf's types where they are not those of the first.
FULL = {
    "wmt": (full(mlp_width=1024), 133_521_408, 185, {}),
    "post_ln": (
        full(mlp_width=1024, post_ln=True),
        133_517_312,
        181,
        {"LAYER_NORM_SCALE": 30, "LAYER_NORM_BIAS": 30},
    ),
    "glu_tanh": (full(mlp_width=1024, glu_tanh=True), 146_116_608, 209, {"WEIGHT": 36, "BIAS": 36}),
}
TYPES = {"EMBEDDING": 1, "WEIGHT": 24, "BIAS": 24, "LAYER_NORM_SCALE": 32, "LAYER_NORM_BIAS": 32}
TYPES |= {f"ATTENTION_{name}": 18 for name in ("Q", "K", "V", "OUT")}

tiny = partial(
    Transformer, num_tokens=11, max_length=LENGTH, width=12, num_layers=2, num_heads=3, mlp_width=10
)
TINY = {
    "base": tiny(),
    "post_ln": tiny(num_layers=1, post_ln=True),
    "attention_temp": tiny(num_layers=1, attention_temp=4.0),
    "glu_tanh": tiny(num_layers=1, glu_tanh=True),
}


def flat(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(entry.key for entry in path): leaf for path, leaf in leaves}


def jax_shapes(model):
    """Flax's names and shapes as AlgoPerf has them."""
    width, heads, hidden = model.width, model.num_heads, model.mlp_width
    tree = {"shared_embedding/embedding": (model.num_tokens, width)}

    def layers(stack, name, attentions):
        for i in range(model.num_layers):
            block = f"{stack}/{name}_{i}"
            for j in range(attentions):
                attention = f"{block}/MultiHeadDotProductAttention_{j}"
                for projection in ("query", "key", "value"):
                    tree[f"{attention}/{projection}/kernel"] = (width, heads, width // heads)
                tree[f"{attention}/out/kernel"] = (heads, width // heads, width)
            for j in range(attentions + 1):
                tree[f"{block}/LayerNorm_{j}/scale"] = tree[f"{block}/LayerNorm_{j}/bias"] = (width,)
            dense = [(width, hidden)] * (1 + model.glu_tanh) + [(hidden, width)]
            for j, shape in enumerate(dense):
                tree[f"{block}/MlpBlock_0/Dense_{j}/kernel"] = shape
                tree[f"{block}/MlpBlock_0/Dense_{j}/bias"] = shape[1:]

    layers("encoder", "encoderblock", 1)
    layers("decoder", "encoderdecoderblock", 2)
    if not model.post_ln:
        for norm in ("encoder/encoder_layernorm", "decoder/encoderdecoder_layernorm"):
            tree[f"{norm}/scale"] = tree[f"{norm}/bias"] = (width,)
    return tree


@pytest.mark.parametrize("name", FULL)
def test_full_size_parameters_are_algoperfs(name):
    model, size, tensors, types = FULL[name]
    program = transformer_jax.program(model)
    params, state = jax.eval_shape(program.init, KEY)
    assert state is None
    wanted = jax_shapes(model)
    assert {path: leaf.shape for path, leaf in flat(params).items()} == wanted and len(wanted) == tensors
    assert sum(math.prod(shape) for shape in wanted.values()) == size
    with torch.device("meta"):
        module = transformer_torch.program(model).module()
    assert sum(p.numel() for p in module.parameters()) == size
    for kinds in (transformer_torch.program(model).parameter_types, program.parameter_types):
        assert Counter(kind.name for kind in flat(dict(kinds)).values()) == TYPES | types


def code(place, width):
    """One token's code, number by number."""
    count = width // 2
    angles = [place * 10_000 ** (-i / (count - 1)) for i in range(count)]
    return [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]


def test_the_position_code_is_the_formulas():
    wanted = [code(place, 12) for place in range(7)]
    np.testing.assert_allclose(position_code(7, 12), wanted, rtol=0, atol=1e-14)


class Forward:
    """Logits of one sentence from the torch module's state dict, in loops over tokens and heads."""

    def __init__(self, config, weights):
        self.config, self.w = config, weights

    def norm(self, x, name):
        centred = x - x.mean(-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        return centred / deviation * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def attention(self, x, tokens, name, causal):
        q, k, v = (
            y @ self.w[f"{name}.{projection}_proj.weight"].T
            for y, projection in ((x, "q"), (tokens, "k"), (tokens, "v"))
        )
        size = self.config.width // self.config.num_heads
        out = np.zeros_like(q)
        for head in range(self.config.num_heads):
            part = slice(head * size, (head + 1) * size)
            for t in range(len(q)):
                seen = t + 1 if causal else len(k)
                scores = np.array([q[t, part] @ k[s, part] for s in range(seen)])
                scores *= self.config.attention_temp / math.sqrt(size)
                weights = np.exp(scores - scores.max())
                out[t, part] = weights / weights.sum() @ v[:seen, part]
        return out @ self.w[f"{name}.out_proj.weight"].T

    def mlp(self, x, name):
        def linear(y, layer):
            return y @ self.w[f"{name}.{layer}.weight"].T + self.w[f"{name}.{layer}.bias"]

        h = linear(x, "linear1")
        h = np.tanh(h) * linear(x, "glu_linear") if self.config.glu_tanh else np.maximum(h, 0)
        return linear(h, "linear2")

    def part(self, x, norm, function):
        """One part of a layer beside its shortcut."""
        if self.config.post_ln:
            return self.norm(x + function(x), norm)
        return x + function(self.norm(x, norm))

    def embedded(self, tokens):
        places = np.array([code(place, self.config.width) for place in range(len(tokens))])
        return self.w["shared_embedding.weight"][tokens] + places

    def __call__(self, source, tokens):
        """tokens: what the decoder reads."""
        memory = self.embedded(source)
        for i in range(self.config.num_layers):
            layer = f"encoder.layers.{i}"
            of_all = partial(self.attention, name=f"{layer}.self_attn", causal=False)
            memory = self.part(memory, f"{layer}.norm1", lambda y, of_all=of_all: of_all(y, y))
            memory = self.part(memory, f"{layer}.norm2", partial(self.mlp, name=f"{layer}.mlp"))
        if not self.config.post_ln:
            memory = self.norm(memory, "encoder.norm")
        x = self.embedded(tokens)
        for i in range(self.config.num_layers):
            layer = f"decoder.layers.{i}"
            of_past = partial(self.attention, name=f"{layer}.self_attn", causal=True)
            of_source = partial(self.attention, tokens=memory, name=f"{layer}.multihead_attn", causal=False)
            x = self.part(x, f"{layer}.norm1", lambda y, of_past=of_past: of_past(y, y))
            x = self.part(x, f"{layer}.norm2", of_source)
            x = self.part(x, f"{layer}.norm3", partial(self.mlp, name=f"{layer}.mlp"))
        if not self.config.post_ln:
            x = self.norm(x, "decoder.norm")
        return x @ self.w["shared_embedding.weight"].T / math.sqrt(self.config.width)


def sentence(rng, length):
    return [*rng.integers(3, 11, length - 1), EOS]


def padded(rows):
    return np.array([[*row, *[0] * (LENGTH - len(row))] for row in rows], np.int64)


# Lengths of the sources and targets of every row's sentences; the last row is padding.
PACKED = [[(3, 4), (5, 3)], [(2, 6)], [(4, 2), (1, 3), (4, 5)], [(12, 12)], []]
PAIRS = [(3, 4), (12, 5), (5, 12), (1, 1), (0, 0)]


def packed_batch():
    """Rows of several sentences, and what each one is."""
    rng, sentences = np.random.default_rng(0), []
    keys = ("inputs", "targets", "inputs_position", "targets_position")
    columns = {key: [] for key in (*keys, "inputs_segmentation", "targets_segmentation")}
    for row, lengths in enumerate(PACKED):
        pairs = [(sentence(rng, source), sentence(rng, target)) for source, target in lengths]
        start, before = 0, 0
        for source, target in pairs:
            sentences.append((row, start, source, target, before))
            start, before = start + len(target), EOS
        for side, name in enumerate(("inputs", "targets")):
            columns[name].append([token for pair in pairs for token in pair[side]])
            columns[f"{name}_position"].append([i for pair in pairs for i in range(len(pair[side]))])
            columns[f"{name}_segmentation"].append([n + 1 for n, p in enumerate(pairs) for _ in p[side]])
    batch = {key: padded(rows) for key, rows in columns.items()}
    return batch | {"weights": (batch["targets"] > 0).astype(np.float64)}, sentences


def unpacked_batch():
    rng, sources, targets, sentences = np.random.default_rng(1), [], [], []
    for row, (source, target) in enumerate(PAIRS):
        sources.append(sentence(rng, source) if source else [])
        targets.append(sentence(rng, target) if target else [])
        if target:
            sentences.append((row, 0, sources[-1], targets[-1], 0))
    batch = {"inputs": padded(sources), "targets": padded(targets)}
    return batch | {"weights": (batch["targets"] > 0).astype(np.float64)}, sentences


BATCHES = {"packed": packed_batch, "unpacked": unpacked_batch}


@cache
def scrambled(name):
    """The torch module in float64 with weights that nothing initialises to 0 or 1."""
    torch.manual_seed(0)
    module = transformer_torch.program(TINY[name]).module().double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return module


jax_program = cache(transformer_jax.program)


def tensors(batch):
    return {key: torch.from_numpy(array) for key, array in batch.items()}


def torch_logits(name, module, batch):
    return transformer_torch.program(TINY[name]).logits(module, tensors(batch), dropout_rate=0.0)


def jax_logits(name, params, batch):
    logits, state = jax_program(TINY[name]).logits(
        params,
        None,
        batch,
        train=True,
        update_batch_norm=True,
        use_running_average_bn=False,
        rng=KEY,
        dropout_rate=0.0,
    )
    assert state is None
    return logits


@pytest.mark.parametrize(("name", "kind"), [("base", "unpacked"), *((name, "packed") for name in TINY)])
def test_every_sentence_of_a_batch_is_as_if_alone(name, kind):
    """But for its first input, which is what the row has before it; padding of any amount changes nothing."""
    module = scrambled(name)
    forward = Forward(TINY[name], {key: tensor.numpy() for key, tensor in module.state_dict().items()})
    batch, sentences = BATCHES[kind]()
    computed = {"torch": torch_logits(name, module, batch).detach().numpy()}
    with jax.enable_x64(True):
        params, _ = jax_program(TINY[name]).from_torch(module.state_dict())
        compute = jax.jit(partial(jax_logits, name))
        computed["jax"] = np.asarray(compute(params, batch))
    for row, start, source, target, before in sentences:
        wanted = forward(source, [before, *target[:-1]])
        for framework, logits in computed.items():
            assert logits.shape == (*batch["targets"].shape, 11) and np.isfinite(logits).all()
            alone = logits[row, start : start + len(target)]
            np.testing.assert_allclose(alone, wanted, rtol=1e-10, atol=1e-10, err_msg=framework)


@pytest.mark.parametrize(("name", "kind"), [("base", "packed"), ("glu_tanh", "unpacked")])
def test_gradients_are_equal_and_padding_has_none(name, kind):
    module, batch = scrambled(name), BATCHES[kind]()[0]
    program, others = transformer_torch.program(TINY[name]), {}
    for rows in (slice(None), slice(-1)):  # with and without the row of padding
        part = {key: array[rows] for key, array in batch.items()}
        module.zero_grad()
        loss = program.loss(
            torch.from_numpy(part["targets"]),
            torch_logits(name, module, part),
            torch.from_numpy(part["weights"]),
            0.1,
        )
        (loss["summed"] / loss["n_valid_examples"]).backward()
        assert loss["n_valid_examples"] == (batch["targets"] > 0).sum()
        others[rows.stop] = {path: p.grad.clone() for path, p in module.named_parameters()}
    for path, gradient in others[None].items():
        torch.testing.assert_close(others[-1][path], gradient, rtol=1e-10, atol=1e-12)

    with jax.enable_x64(True):
        params, _ = jax_program(TINY[name]).from_torch(module.state_dict())

        @jax.jit
        @jax.grad
        def gradient(params):
            logits = jax_logits(name, params, batch)
            loss = jax_program(TINY[name]).loss(batch["targets"], logits, batch["weights"], 0.1)
            return loss["summed"] / loss["n_valid_examples"]

        ours = flat(jax.tree.map(np.asarray, gradient(params)))
        wanted = flat(jax.tree.map(np.asarray, jax_program(TINY[name]).from_torch(others[None])[0]))
    scale = max(np.abs(leaf).max() for leaf in wanted.values())
    for path, leaf in wanted.items():
        np.testing.assert_allclose(ours[path], leaf, rtol=0, atol=1e-10 * scale, err_msg=path)


def test_a_zero_inside_a_sentence_is_not_looked_at():
    """Piece 0, which no text that the vocabulary knows has, is padding wherever it stands."""
    module, (batch, _) = scrambled("base"), packed_batch()
    batch["inputs"][0, 1] = 0
    logits = torch_logits("base", module, batch)
    with torch.no_grad():
        module.shared_embedding.weight[0, 0] += 1.0
        moved = torch_logits("base", module, batch)
        module.shared_embedding.weight[0, 0] -= 1.0
    # The second sentence of a row reads no start symbol, the first does.
    torch.testing.assert_close(moved[0, 4:7, 1:], logits[0, 4:7, 1:], rtol=1e-10, atol=1e-10)
    assert (moved[0, :4, 1:] != logits[0, :4, 1:]).all()


@pytest.mark.parametrize(("name", "kind"), [("post_ln", "packed"), ("glu_tanh", "unpacked")])
def test_torch_modules_compile_whole_and_once(name, kind):
    module, batch = scrambled(name), BATCHES[kind]()[0]
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    try:
        torch.testing.assert_close(torch_logits(name, compiled, batch), torch_logits(name, module, batch))
        shuffled = {key: array[::-1].copy() for key, array in batch.items()}
        with torch._dynamo.config.patch(error_on_recompile=True):
            again = torch_logits(name, compiled, shuffled)
        torch.testing.assert_close(again, torch_logits(name, module, shuffled))
    finally:
        torch._dynamo.reset()


@pytest.mark.parametrize("shape", [{"width": 12, "num_heads": 5}, {"width": 9}, {"width": 2, "num_heads": 1}])
def test_a_width_that_cannot_be_divided_is_refused(shape):
    with pytest.raises(ValueError, match="must be even"):
        tiny(**shape)
