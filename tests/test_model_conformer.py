"""The Conformer against float64 NumPy in both frameworks; padding, gradients, names, initial weights."""

import math
from collections import Counter
from dataclasses import replace
from functools import cache, partial

import jax
import numpy as np
import pytest
import torch
from tiny_speech import TINY, batch

from timetrial.workloads.librispeech_conformer import (
    LIBRISPEECH_CONFORMER,
    LIBRISPEECH_CONFORMER_ATTENTION_TEMPERATURE,
    LIBRISPEECH_CONFORMER_GELU,
    LIBRISPEECH_CONFORMER_LAYERNORM,
)
from timetrial.workloads.models import conformer_jax, conformer_torch
from timetrial.workloads.models.conformer import position_code

KEY = np.array([0, 5], np.uint32)

FULL = [
    LIBRISPEECH_CONFORMER,
    LIBRISPEECH_CONFORMER_ATTENTION_TEMPERATURE,
    LIBRISPEECH_CONFORMER_LAYERNORM,
    LIBRISPEECH_CONFORMER_GELU,
]
VARIANTS = {
    "base": TINY,
    "temperature": replace(TINY, attention_scale=1.6),
    "layernorm": replace(TINY, block_layer_norm=False),
    "gelu": replace(TINY, activation="gelu"),
}


def flat(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(entry.key for entry in path): leaf for path, leaf in leaves}


def jax_shapes(model):
    """Flax's names and shapes as AlgoPerf has them."""
    width, heads, hidden, channels = model.width, model.num_heads, model.mlp_width, model.subsampling_channels
    tree = {}

    def layer(name, *shape, bias=None):
        tree[f"{name}/kernel"], tree[f"{name}/bias"] = shape, bias or shape[-1:]

    def norm(name):
        tree[f"{name}/scale"] = tree[f"{name}/bias"] = (width,)

    layer("Subsample_0/Conv2dSubsampling_0", 3, 3, 1, channels)
    layer("Subsample_0/Conv2dSubsampling_1", 3, 3, channels, channels)
    layer("Subsample_0/Dense_0", channels * model.features.mel_bins // 4, width)
    for block in (f"ConformerBlock_{i}" for i in range(model.depth)):
        for perceptron in (f"{block}/FeedForwardModule_{i}" for i in range(2)):
            norm(f"{perceptron}/LayerNorm_0")
            layer(f"{perceptron}/Dense_0", width, hidden)
            layer(f"{perceptron}/Dense_1", hidden, width)
        norm(f"{block}/MultiHeadedSelfAttention_0/LayerNorm_0")
        attention = f"{block}/MultiHeadedSelfAttention_0/MultiHeadDotProductAttention_0"
        for projection in ("query", "key", "value"):
            layer(f"{attention}/{projection}", width, heads, width // heads, bias=(heads, width // heads))
        layer(f"{attention}/out", heads, width // heads, width)
        tree[f"{attention}/QueryScaler_0/scale"] = (width // heads,)
        for i in range(3):
            layer(f"{block}/ConvolutionBlock_0/Dense_{i}", width, width)
        tree[f"{block}/ConvolutionBlock_0/Conv_0/kernel"] = (model.kernel, 1, width)
        norm(f"{block}/ConvolutionBlock_0/LayerNorm_0")
        norm(f"{block}/ConvolutionBlock_0/BatchNorm_0")
        if model.block_layer_norm:
            norm(f"{block}/LayerNorm_0")
    norm("LayerNorm_0")
    layer("Dense_0", width, model.vocabulary)
    return tree


TYPES = {"WEIGHT": 34, "BIAS": 32, "CONV_WEIGHT": 6, "LAYER_NORM_SCALE": 21, "LAYER_NORM_BIAS": 21}
TYPES |= {f"ATTENTION_{name}": 4 for name in ("Q", "K", "V", "OUT")} | {"ATTENTION_BIAS": 16}
TYPES |= {"BATCH_NORM_SCALE": 4, "BATCH_NORM_BIAS": 4}


@pytest.mark.parametrize("facts", FULL, ids=lambda facts: facts.name)
def test_full_size_parameters_are_algoperfs(facts):
    layernorm = facts is LIBRISPEECH_CONFORMER_LAYERNORM
    size, tensors = (32_317_696, 146) if layernorm else (32_321_792, 154)
    program = conformer_jax.program(facts.model)
    params, state = jax.eval_shape(program.init, KEY)
    wanted = jax_shapes(facts.model)
    assert {name: leaf.shape for name, leaf in flat(params).items()} == wanted and len(wanted) == tensors
    assert sum(math.prod(shape) for shape in wanted.values()) == size == facts.num_parameters
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == 4096
    with torch.device("meta"):
        module = conformer_torch.program(facts.model).module()
    assert sum(p.numel() for p in module.parameters()) == size
    fewer = {"LAYER_NORM_SCALE": 17, "LAYER_NORM_BIAS": 17} if layernorm else {}
    for types in (conformer_torch.program(facts.model).parameter_types, program.parameter_types):
        assert Counter(kind.name for kind in flat(dict(types)).values()) == TYPES | fewer


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softplus(x):
    return np.log1p(np.exp(x))


class Forward:
    """The forward pass of a batch in NumPy, from the torch module's state dict and features."""

    def __init__(self, config, weights, training):
        self.config, self.w, self.training, self.statistics = config, weights, training, {}

    def linear(self, x, name):
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def norm(self, x, name):
        deviation = np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        gain = 1 + self.w[f"{name}.scale"]
        return (x - x.mean(-1, keepdims=True)) / deviation * gain + self.w[f"{name}.bias"]

    def activation(self, x):
        if self.config.activation == "gelu":
            return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        return x * sigmoid(x)

    def halved(self, x, padding, name):
        """(B, T, F, C) by TensorFlow's SAME: as many outputs as there are every other input."""
        kernel, bias = self.w[f"{name}.weight"], self.w[f"{name}.bias"]
        frames, bins = (-(-length // 2) for length in x.shape[1:3])
        before = [
            max(0, 2 * (n - 1) + 3 - length) // 2
            for n, length in zip((frames, bins), x.shape[1:3], strict=True)
        ]
        x = np.pad(x, ((0, 0), (before[0], 3), (before[1], 3), (0, 0)))
        out = np.zeros((len(x), frames, bins, len(kernel)))
        for t in range(frames):
            for f in range(bins):
                window = x[:, 2 * t : 2 * t + 3, 2 * f : 2 * f + 3]
                out[:, t, f] = np.einsum("bijc,ocij->bo", window, kernel) + bias
        padding = padding[:, ::2]
        return np.where(padding[:, :, None, None] == 1, 0, np.maximum(out, 0)), padding

    def perceptron(self, x, mask, name):
        hidden = self.activation(self.linear(self.norm(x, f"{name}.ln"), f"{name}.linear1")) * mask
        return self.linear(hidden, f"{name}.linear2") * mask

    def attention(self, x, padding, name):
        x, name = self.norm(x, f"{name}.ln"), f"{name}.self_attention"
        q, k, v = (self.linear(x, f"{name}.{projection}") for projection in ("query", "key", "value"))
        size = self.config.width // self.config.num_heads
        scale = 1.442695041 * softplus(self.w[f"{name}.qs.scale"]) / math.sqrt(size)
        out = np.zeros_like(q)
        for row in range(len(x)):
            keys = np.flatnonzero(padding[row] == 0) if not padding[row].all() else np.arange(x.shape[1])
            for head in range(self.config.num_heads):
                part = slice(head * size, (head + 1) * size)
                for t in range(x.shape[1]):
                    scores = np.array([q[row, t, part] * scale @ k[row, s, part] for s in keys])
                    weights = np.exp(scores - scores.max())
                    out[row, t, part] = weights / weights.sum() @ v[row, keys, part]
        return self.linear(self.config.attention_scale * out, f"{name}.out")

    def batch_norm(self, x, mask, name):
        valid = x[mask[..., 0] == 1]
        mean, var = self.w[f"{name}.running_mean"], self.w[f"{name}.running_var"]
        if self.training:
            self.statistics[f"{name}.running_mean"] = 0.999 * mean + 0.001 * valid.mean(0)
            self.statistics[f"{name}.running_var"] = 0.999 * var + 0.001 * valid.var(0)
            mean, var = valid.mean(0), valid.var(0)
        gain = 1 + self.w[f"{name}.weight"]
        return ((x - mean) / np.sqrt(var + 1e-3) * gain + self.w[f"{name}.bias"]) * mask

    def convolution(self, x, mask, name):
        x = self.norm(x, f"{name}.ln")
        x = self.linear(x, f"{name}.lin1") * sigmoid(self.linear(x, f"{name}.lin2")) * mask
        kernel, reach = self.w[f"{name}.conv1.weight"][:, 0], self.config.kernel // 2
        padded = np.pad(x, ((0, 0), (reach, reach), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.config.kernel, axis=1)
        x = (windows * kernel).sum(-1)
        return self.linear(self.activation(self.batch_norm(x, mask, f"{name}.bn")), f"{name}.lin3")

    def __call__(self, features, padding):
        x, padding = self.halved(features[..., None], padding, "subsample.conv1")
        x, padding = self.halved(x, padding, "subsample.conv2")
        x = self.linear(x.reshape(*x.shape[:2], -1), "subsample.linear")
        steps = np.arange(self.config.width // 2)
        for t in range(x.shape[1]):
            angles = t * 10_000.0 ** (-steps / (len(steps) - 1))
            x[:, t] += np.concatenate([np.sin(angles), np.cos(angles)])
        mask = 1 - padding[..., None]
        for block in (f"conformers.{i}" for i in range(self.config.depth)):
            x = x + self.perceptron(x, mask, f"{block}.ff1") / 2
            x = x + self.attention(x, padding, f"{block}.mhsa")
            x = x + self.convolution(x, mask, f"{block}.conv")
            x = x + self.perceptron(x, mask, f"{block}.ff2") / 2
            if self.config.block_layer_norm:
                x = self.norm(x, f"{block}.ln")
        return self.linear(self.norm(x, "ln"), "lin"), padding


def scrambled(config):
    """The torch module in float64 with weights that nothing initialises to 0 or 1."""
    torch.manual_seed(0)
    module = conformer_torch.program(config).module().double()
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif tensor.is_floating_point():
                tensor += 0.3 * torch.randn_like(tensor)
    return module


def torch_logits(config, module, batch, rate=0.0):
    inputs = {"inputs": tuple(torch.as_tensor(array) for array in batch["inputs"])}
    return conformer_torch.program(config).logits(module, inputs, dropout_rate=rate)


jax_program = cache(conformer_jax.program)


def jax_logits(config, params, state, batch, *, train=True, update=True, running=False, rate=0.0, rng=KEY):
    return jax_program(config).logits(
        params,
        state,
        batch,
        train=train,
        update_batch_norm=update,
        use_running_average_bn=running,
        rng=rng,
        dropout_rate=rate,
    )


@pytest.mark.parametrize(("name", "training"), [("base", False), *((name, True) for name in VARIANTS)])
def test_both_agree_with_numpy(name, training):
    config, module = VARIANTS[name], scrambled(VARIANTS[name]).train(training)
    before = {key: tensor.numpy().copy() for key, tensor in module.state_dict().items()}
    speech = batch(27, [27, 14, 0])
    features, padding = module.features(*map(torch.from_numpy, speech["inputs"]))
    forward = Forward(config, before, training)
    wanted, wanted_padding = forward(features.numpy(), padding.numpy())
    assert wanted_padding.tolist() == [[0] * 7, [0] * 4 + [1] * 3, [1] * 7]
    with jax.enable_x64(True):
        params, state = jax_program(config).from_torch(module.state_dict())
        compute = jax.jit(
            partial(jax_logits, config, train=training, update=training, running=not training),
        )
        in_jax, new_state = compute(params, state, speech)
        in_torch = torch_logits(config, module, speech)
        _, state_of_torch = jax_program(config).from_torch(module.state_dict())
    for logits, frame_padding in (in_jax, in_torch):
        np.testing.assert_array_equal(frame_padding, wanted_padding)
        logits = logits.detach() if isinstance(logits, torch.Tensor) else logits
        np.testing.assert_allclose(logits, wanted, rtol=1e-10, atol=1e-10)  # padded frames too
    after = {key: tensor.numpy() for key, tensor in module.state_dict().items()}
    for key, value in forward.statistics.items():
        np.testing.assert_allclose(after[key], value, rtol=1e-12)
    assert len(forward.statistics) == (2 * config.depth if training else 0)
    assert jax.tree.structure(new_state) == jax.tree.structure(state_of_torch)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-12), new_state, state_of_torch)


def test_gradients_of_the_loss_agree():
    config = replace(TINY, depth=1)
    module = scrambled(config).train()
    speech, rng = batch(60, [60, 41]), np.random.default_rng(1)
    tokens = rng.integers(1, config.vocabulary, (2, 5)).astype(np.int32)
    labels = tokens, np.array([[0, 0, 0, 0, 0], [0, 0, 0, 1, 1.0]])
    program = conformer_torch.program(config)
    found = program.loss(
        (torch.from_numpy(tokens).long(), torch.from_numpy(labels[1])),
        torch_logits(config, module, speech),
        None,
        0.0,
    )
    assert found["n_valid_examples"] == 8
    found["summed"].backward()

    def loss(params, state):
        logits, _ = jax_logits(config, params, state, speech)
        return jax_program(config).loss(labels, logits, None, 0.0)["summed"]

    with jax.enable_x64(True):
        params, state = jax_program(config).from_torch(module.state_dict())
        value, gradients = jax.jit(jax.value_and_grad(loss))(params, state)
        gradients_of_torch = {name: p.grad for name, p in module.named_parameters()}
        wanted, _ = jax_program(config).from_torch(module.state_dict() | gradients_of_torch)
    assert float(value) == pytest.approx(found["summed"].item(), rel=1e-10)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(wanted))
    for name, leaf in flat(wanted).items():
        np.testing.assert_allclose(flat(gradients)[name], leaf, rtol=0, atol=1e-10 * largest, err_msg=name)


def test_more_padding_changes_no_frame_that_counts():
    """Four frames more are one more of the encoder's; a fourth of that would shift what convolutions see."""
    module = scrambled(TINY).eval()
    lengths, frames, more = [22, 13], 28, 44
    short, _ = torch_logits(TINY, module, batch(frames, lengths))
    padded = batch(more, lengths, garbage=9999.0)
    for kept, wanted in zip(padded["inputs"], batch(frames, lengths)["inputs"], strict=True):
        kept[:, : wanted.shape[1]] = wanted
    padded["inputs"][0][padded["inputs"][1] == 1] = 9999.0  # what is said in padding is not heard
    long, padding = torch_logits(TINY, module, padded)
    for row, length in enumerate(lengths):
        valid = -(-length // 4)
        assert (padding[row] == 0).sum() == valid
        torch.testing.assert_close(long[row, :valid], short[row, :valid], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_initial_weights(framework):
    config = replace(TINY, width=48, mlp_width=64, depth=1, subsampling_channels=16)
    program = jax_program(config)
    torch.manual_seed(0)
    module = conformer_torch.program(config).module()
    params, state = (
        program.from_torch(module.state_dict()) if framework == "torch" else jax.jit(program.init)(KEY)
    )
    fans = {"query": (48, 48), "key": (48, 48), "value": (48, 48), "out": (48, 48)}
    for name, leaf in flat(params).items():
        leaf, layer = np.asarray(leaf, np.float64), name.split("/")[-2]
        if not name.endswith("kernel"):
            assert not leaf.any(), name
            continue
        fan_in, fan_out = fans.get(layer, leaf.shape[-2:])
        if layer not in fans:
            fan_in, fan_out = (math.prod(leaf.shape[:-2]) * fan for fan in (fan_in, fan_out))
        bound = math.sqrt(6 / (fan_in + fan_out))  # Xavier-uniform
        assert np.abs(leaf).max() <= bound * (1 + 1e-6), name
        assert leaf.std() / (bound / math.sqrt(3)) == pytest.approx(1, abs=4 / math.sqrt(2 * leaf.size)), name
    for name, leaf in flat(state).items():
        assert (leaf == (1 if name.endswith("var") else 0)).all(), name


def test_the_position_code_is_the_same_in_torch():
    x = torch.zeros(1, 9, 12, dtype=torch.float64)
    np.testing.assert_allclose(conformer_torch.position_code(x), position_code(9, 12), rtol=0, atol=1e-14)
    assert conformer_torch.position_code(x.float()).dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"), [({"width": 10}, "multiple of the 3"), ({"kernel": 4}, "4 frames must be odd")]
)
def test_shapes_that_cannot_be_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **change)
