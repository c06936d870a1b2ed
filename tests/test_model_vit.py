"""The vision transformer against float64 NumPy in both frameworks; its names, types and initial weights."""

import math
from collections import Counter
from functools import cache, partial
from itertools import pairwise

import jax
import numpy as np
import pytest
import torch

from timetrial.workloads.imagenet_vit import (
    IMAGENET_VIT,
    IMAGENET_VIT_GLU,
    IMAGENET_VIT_MAP,
    IMAGENET_VIT_POST_LN,
)
from timetrial.workloads.models import vit_jax, vit_torch
from timetrial.workloads.models.vit import ViT, position_code

KEY = np.array([0, 5], np.uint32)

# Parameters, tensors, and AlgoPerf's types where they are not those of the first (its JAX; post_ln: its torch).
FULL = [
    (IMAGENET_VIT, 22_122_472, 200, {}),
    (IMAGENET_VIT_GLU, 50_452_456, 224, {"WEIGHT": 38, "BIAS": 39}),
    (IMAGENET_VIT_POST_LN, 22_121_704, 198, {"LAYER_NORM_SCALE": 24, "LAYER_NORM_BIAS": 24}),
    (
        IMAGENET_VIT_MAP,
        23_896_552,
        215,
        {"WEIGHT": 29, "BIAS": 29, "LAYER_NORM_SCALE": 26, "LAYER_NORM_BIAS": 26, "ATTENTION_BIAS": 52}
        | {f"ATTENTION_{name}": 13 for name in ("Q", "K", "V", "OUT")},
    ),
]
TYPES = {"WEIGHT": 26, "BIAS": 27, "CONV_WEIGHT": 1, "LAYER_NORM_SCALE": 25, "LAYER_NORM_BIAS": 25}
TYPES |= {f"ATTENTION_{name}": 12 for name in ("Q", "K", "V", "OUT")} | {"ATTENTION_BIAS": 48}
full_size = pytest.mark.parametrize(
    ("facts", "size", "tensors", "types"), FULL, ids=[facts.name for facts, *_ in FULL]
)

tiny = partial(ViT, image_size=8, patch=4, width=12, depth=2, num_heads=3, mlp_width=10, num_classes=5)
TINY = {
    "mean": tiny(),
    "glu": tiny(glu=True),
    "post_ln": tiny(post_ln=True),
    "map": tiny(pooling="map"),
}


def flat(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(entry.key for entry in path): leaf for path, leaf in leaves}


@cache
def shapes(model):
    """Flax's parameters without values."""
    params, state = jax.eval_shape(vit_jax.program(model).init, KEY)
    assert state is None
    return {name: leaf.shape for name, leaf in flat(params).items()}


@cache
def meta(model):
    with torch.device("meta"):
        return vit_torch.program(model).module()


def jax_shapes(model):
    """Flax's names and shapes as AlgoPerf has them."""
    width, heads, hidden = model.width, model.num_heads, model.mlp_width
    tree = {}

    def layer(name, *shape, bias=None):
        tree[f"{name}/kernel"], tree[f"{name}/bias"] = shape, bias or shape[-1:]

    def norm(name):
        tree[f"{name}/scale"] = tree[f"{name}/bias"] = (width,)

    def attention(name):
        for projection in ("query", "key", "value"):
            layer(f"{name}/{projection}", width, heads, width // heads, bias=(heads, width // heads))
        layer(f"{name}/out", heads, width // heads, width)

    def mlp(name, glu):
        widths = [width, hidden, *([hidden] if glu else []), width]
        for i, features in enumerate(pairwise(widths)):
            layer(f"{name}/Dense_{i}", *features)

    layer("conv_patch_extract", model.patch, model.patch, 3, width)
    for i in range(model.depth):
        block = f"Transformer/encoderblock_{i}"
        norm(f"{block}/LayerNorm_0")
        attention(f"{block}/MultiHeadDotProductAttention_1")
        norm(f"{block}/LayerNorm_2")
        mlp(f"{block}/MlpBlock_3", model.glu)
    if not model.post_ln:
        norm("Transformer/encoder_layernorm")
    if model.pooling == "map":
        tree["MAPHead_0/probe"] = (1, 1, width)
        attention("MAPHead_0/MultiHeadDotProductAttention_0")
        norm("MAPHead_0/LayerNorm_0")
        mlp("MAPHead_0/MlpBlock_0", False)
    layer("pre_logits", width, width)
    layer("head", width, model.num_classes)
    return tree


@full_size
def test_full_size_parameters_are_algoperfs(facts, size, tensors, types):
    wanted = jax_shapes(facts.model)
    assert shapes(facts.model) == wanted and len(wanted) == tensors
    module = list(meta(facts.model).parameters())
    assert len(module) == tensors
    assert sum(p.numel() for p in module) == facts.num_parameters == size
    assert sum(math.prod(shape) for shape in wanted.values()) == size
    for program in (vit_torch.program(facts.model), vit_jax.program(facts.model)):
        assert Counter(kind.name for kind in flat(dict(program.parameter_types)).values()) == TYPES | types


def test_torch_names_are_algoperfs():
    named = {name: tuple(p.shape) for name, p in meta(IMAGENET_VIT_GLU.model).named_parameters()}
    first = {name.removeprefix("encoder.net.0."): shape for name, shape in named.items() if ".net.0." in name}
    projections = [f"self_attention1.{name}" for name in ("query", "key", "value", "out")]
    linear = {name: (384, 384) for name in projections}
    linear |= {"mlp3.linear1": (1536, 384), "mlp3.glu_linear": (1536, 1536), "mlp3.linear2": (384, 1536)}
    wanted = {f"{name}.weight": shape for name, shape in linear.items()}
    wanted |= {f"{name}.bias": shape[:1] for name, shape in linear.items()}
    wanted |= {f"layer_norm{i}.{leaf}": (384,) for i in (0, 2) for leaf in ("weight", "bias")}
    assert first == wanted
    assert {name.rsplit(".", 1)[0] for name in named if ".net." not in name} == {
        "conv_patch_extract",
        "encoder.encoder_norm",
        "pre_logits",
        "head",
    }
    assert named["conv_patch_extract.weight"] == (384, 3, 16, 16) and named["head.weight"] == (1000, 384)
    added = {name for name, _ in meta(IMAGENET_VIT_MAP.model).named_parameters() if name.startswith("map.")}
    layers = [f"mha.{name}" for name in ("query", "key", "value", "out")]
    layers += ["layer_norm", "mlp.linear1", "mlp.linear2"]
    assert added == {"map.probe"} | {f"map.{name}.{leaf}" for name in layers for leaf in ("weight", "bias")}
    assert not list(meta(IMAGENET_VIT.model).buffers())


def code(row, column, width):
    """One token's code, number by number."""
    count = width // 4
    frequencies = [10_000 ** (-i / (count - 1)) for i in range(count)]
    return [
        function(place * frequency)
        for place in (column, row)
        for function in (math.sin, math.cos)
        for frequency in frequencies
    ]


def test_the_position_code_is_the_formulas():
    wanted = [code(row, column, 384) for row in range(3) for column in range(5)]
    np.testing.assert_allclose(position_code(3, 5, 384), wanted, rtol=0, atol=1e-14)
    tokens = torch.zeros(1, 1, 384, dtype=torch.float64)
    np.testing.assert_allclose(vit_torch.position_code(3, 5, tokens), wanted, rtol=0, atol=1e-14)
    assert vit_torch.position_code(2, 2, tokens.float()).dtype == torch.float32


class Forward:
    """The forward pass of one image, in loops over tokens and heads, from the torch module's state dict."""

    def __init__(self, config, weights):
        self.config, self.w = config, weights

    def linear(self, x, name):
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def norm(self, x, name):
        centred = x - x.mean(-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        return centred / deviation * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def attention(self, queries, tokens, name):
        q, k, v = (
            self.linear(x, f"{name}.{projection}")
            for x, projection in ((queries, "query"), (tokens, "key"), (tokens, "value"))
        )
        size = self.config.width // self.config.num_heads
        out = np.zeros_like(q)
        for head in range(self.config.num_heads):
            part = slice(head * size, (head + 1) * size)
            for i in range(len(q)):
                scores = np.array([q[i, part] @ k[j, part] for j in range(len(k))]) / math.sqrt(size)
                weights = np.exp(scores - scores.max())
                out[i, part] = weights / weights.sum() @ v[:, part]
        return self.linear(out, f"{name}.out")

    def mlp(self, x, name):
        h = self.linear(x, f"{name}.linear1")
        h = h / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
        if f"{name}.glu_linear.weight" in self.w:
            h = h * self.linear(h, f"{name}.glu_linear")
        return self.linear(h, f"{name}.linear2")

    def block(self, x, name):
        attention, mlp = f"{name}.self_attention1", f"{name}.mlp3"
        if self.config.post_ln:
            x = self.norm(x + self.attention(x, x, attention), f"{name}.layer_norm0")
            return self.norm(x + self.mlp(x, mlp), f"{name}.layer_norm2")
        y = self.norm(x, f"{name}.layer_norm0")
        x = x + self.attention(y, y, attention)
        return x + self.mlp(self.norm(x, f"{name}.layer_norm2"), mlp)

    def __call__(self, image):
        p, tokens = self.config.patch, []
        kernel = self.w["conv_patch_extract.weight"].transpose(0, 2, 3, 1)
        for row in range(image.shape[0] // p):
            for column in range(image.shape[1] // p):
                patch = image[row * p : (row + 1) * p, column * p : (column + 1) * p]
                token = (kernel * patch).sum((1, 2, 3)) + self.w["conv_patch_extract.bias"]
                tokens.append(token + code(row, column, self.config.width))
        x = np.array(tokens)
        for i in range(self.config.depth):
            x = self.block(x, f"encoder.net.{i}")
        if not self.config.post_ln:
            x = self.norm(x, "encoder.encoder_norm")
        if self.config.pooling == "map":
            y = self.attention(self.w["map.probe"][0], x, "map.mha")
            x = y + self.mlp(self.norm(y, "map.layer_norm"), "map.mlp")
        return self.linear(np.tanh(self.linear(x.mean(0), "pre_logits")), "head")


@cache
def scrambled(name):
    """The torch module in float64 with weights that nothing initialises to 0 or 1."""
    torch.manual_seed(0)
    module = vit_torch.program(TINY[name]).module().double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return module


jax_program = cache(vit_jax.program)


def jax_logits(name, params, images):
    logits, state = jax_program(TINY[name]).logits(
        params,
        None,
        {"inputs": images},
        train=True,
        update_batch_norm=True,
        use_running_average_bn=False,
        rng=KEY,
        dropout_rate=0.0,
    )
    assert state is None
    return logits


def torch_logits(name, module, images):
    batch = {"inputs": torch.as_tensor(images)}
    return vit_torch.program(TINY[name]).logits(module, batch, dropout_rate=0.0)


@pytest.mark.parametrize("name", TINY)
def test_both_agree_with_numpy(name):
    module = scrambled(name)
    forward = Forward(TINY[name], {key: tensor.numpy() for key, tensor in module.state_dict().items()})
    # Neither square nor of the configured size; the last column of pixels makes no patch.
    images = np.random.default_rng(0).normal(size=(2, 8, 13, 3))
    wanted = [forward(image) for image in images]
    np.testing.assert_allclose(torch_logits(name, module, images).detach(), wanted, rtol=1e-10, atol=1e-10)
    with jax.enable_x64(True):
        params, _ = jax_program(TINY[name]).from_torch(module.state_dict())
        compute = jax.jit(partial(jax_logits, name))
        np.testing.assert_allclose(compute(params, images), wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["glu", "map"])
def test_jax_attention_survives_large_scores(name):
    """As torch's does: the largest score is subtracted before exponentials are taken."""
    torch.manual_seed(0)
    module = vit_torch.program(TINY[name]).module()
    with torch.no_grad():
        for path, parameter in module.named_parameters():
            if "query" in path or "head" in path:
                parameter.normal_(std=300.0)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    params, _ = jax_program(TINY[name]).from_torch(module.state_dict())
    ours = jax.jit(partial(jax_logits, name))(params, images)
    theirs = torch_logits(name, module, images).detach()
    assert np.isfinite(ours).all()
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))


@cache
def initial():
    """Initial parameters by framework, flattened in Flax's naming."""
    config = tiny(width=48, mlp_width=96, depth=1, glu=True, pooling="map")
    program = vit_jax.program(config)
    torch.manual_seed(0)
    ours, _ = program.from_torch(vit_torch.program(config).module().state_dict())
    theirs, _ = program.init(KEY)
    return {"torch": flat(ours), "jax": flat(theirs)}


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_initial_weights(framework):
    for name, leaf in initial()[framework].items():
        leaf, module = np.asarray(leaf, np.float64), name.split("/")[-2]
        # The standard error of a standard deviation is less than s / sqrt(2 n); times 4.
        close = partial(pytest.approx, abs=4 / np.sqrt(2 * leaf.size))
        if name.endswith("scale"):
            assert (leaf == 1).all(), name
        elif name.endswith("bias") and module.startswith("Dense"):
            assert leaf.std() / 1e-6 == close(1), name
        elif name.endswith("bias") or module == "head":
            assert not leaf.any(), name
        elif module in ("conv_patch_extract", "pre_logits"):
            std = 1 / np.sqrt(leaf.size / 48)  # LeCun-normal
            assert leaf.std() / std == close(1) and np.abs(leaf).max() <= 2 * std / 0.8796, name
        else:
            fans = {"query": (48, 48), "key": (48, 48), "value": (48, 48), "out": (48, 48)}
            fan_in, fan_out = (1, 48) if name.endswith("probe") else fans.get(module, leaf.shape)
            bound = np.sqrt(6 / (fan_in + fan_out))  # Xavier-uniform
            assert np.abs(leaf).max() <= bound * (1 + 1e-6), name
            assert leaf.std() / (bound / np.sqrt(3)) == close(1), name


@pytest.mark.parametrize("name", TINY)
def test_torch_modules_compile_whole(name):
    module = vit_torch.program(TINY[name]).module()
    torch.nn.init.normal_(module.head.weight)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    torch.testing.assert_close(torch_logits(name, compiled, images), torch_logits(name, module, images))
    torch._dynamo.reset()


@pytest.mark.parametrize("shape", [{"width": 12, "num_heads": 5}, {"width": 6, "num_heads": 3}])
def test_a_width_that_cannot_be_divided_is_refused(shape):
    with pytest.raises(ValueError, match="multiple of 4"):
        tiny(**shape)
