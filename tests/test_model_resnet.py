"""Residual networks: blocks and activations against NumPy in both frameworks, names, types, initial weights."""

import copy
from collections import Counter
from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from workload_batches import random_batch

from timetrial.workloads.cifar import CIFAR
from timetrial.workloads.imagenet_resnet import (
    IMAGENET_RESNET,
    IMAGENET_RESNET_GELU,
    IMAGENET_RESNET_LARGE_BN_INIT,
    IMAGENET_RESNET_SILU,
)
from timetrial.workloads.models import resnet_jax, resnet_torch
from timetrial.workloads.models.resnet import ResNet

IMAGENET = (IMAGENET_RESNET, IMAGENET_RESNET_SILU, IMAGENET_RESNET_GELU, IMAGENET_RESNET_LARGE_BN_INIT)
KEY = np.array([0, 5], np.uint32)

BASIC = ResNet(
    stage_sizes=(1, 2),
    width=3,
    num_classes=4,
    stem_kernel=3,
    stem_stride=1,
    stem_pool=False,
    block="basic",
    last_batch_norm_scale=0.7,
)
TINY = {
    "basic, relu": BASIC,
    "basic, silu, pooled": replace(BASIC, activation="silu", stem_pool=True),
    "bottleneck, gelu": replace(BASIC, block="bottleneck", activation="gelu", stem_kernel=5, stem_stride=2),
}
NUM_CONVS = {"basic": 2, "bottleneck": 3}


def flat(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(entry.key for entry in path): leaf for path, leaf in leaves}


@cache
def shapes(model):
    """(parameters, model state) in Flax, without values."""
    return jax.eval_shape(resnet_jax.program(model).init, KEY)


def meta(model):
    with torch.device("meta"):
        return resnet_torch.program(model).module()


def expected(model, stages, flax_block, convs):
    """Flax's names and shapes; `convs` are (kernel side, width over the stage's) of a block's convolutions."""
    tree = {}

    def layer(prefix, name, side, channels_in, channels):
        tree[f"{prefix}Conv_{name}/kernel"] = (side, side, channels_in, channels)
        tree[f"{prefix}BatchNorm_{name}/scale"] = tree[f"{prefix}BatchNorm_{name}/bias"] = (channels,)

    layer("", "init", model.stem_kernel, 3, 64)
    channels, number = 64, 0
    for width, num_blocks in stages:
        for block in range(num_blocks):
            prefix, channels_in = f"{flax_block}_{number}/", channels
            for i, (side, times) in enumerate(convs):
                layer(prefix, i, side, channels, times * width)
                channels = times * width
            if block == 0 and channels_in != channels:
                layer(prefix, "proj", 1, channels_in, channels)
            number += 1
    return tree | {"Dense_0/kernel": (channels, model.num_classes), "Dense_0/bias": (model.num_classes,)}


@pytest.mark.parametrize("facts", IMAGENET, ids=lambda facts: facts.name)
def test_resnet_50_has_algoperfs_parameters(facts):
    params, state = shapes(facts.model)
    stages = ((64, 3), (128, 4), (256, 6), (512, 3))
    convs = ((1, 1), (3, 1), (1, 4))
    wanted = expected(facts.model, stages, "BottleneckResNetBlock", convs)
    assert {name: leaf.shape for name, leaf in flat(params).items()} == wanted
    assert len(wanted) == 161
    averages = [leaf.size for leaf in jax.tree.leaves(state)]
    assert (len(averages), sum(averages)) == (106, 53_120)
    module = meta(facts.model)
    assert len(list(module.parameters())) == 161
    for sizes in ([p.numel() for p in module.parameters()], [np.prod(shape) for shape in wanted.values()]):
        assert sum(sizes) == facts.num_parameters == 25_557_032


def test_resnet_18_has_algoperfs_parameters():
    params, state = shapes(CIFAR.model)
    stages = ((64, 2), (128, 2), (256, 2), (512, 2))
    wanted = expected(CIFAR.model, stages, "ResNetBlock", ((3, 1), (3, 1)))
    assert {name: leaf.shape for name, leaf in flat(params).items()} == wanted
    assert len(wanted) == 62
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == 9_600
    assert sum(int(np.prod(shape)) for shape in wanted.values()) == CIFAR.num_parameters == 11_173_962
    names = {name: tuple(parameter.shape) for name, parameter in meta(CIFAR.model).named_parameters()}
    assert len(names) == 62
    of_block = {name.removeprefix("layer3.0."): shape for name, shape in names.items() if "layer3.0." in name}
    assert of_block == {
        "conv1.weight": (256, 128, 3, 3),
        "bn1.weight": (256,),
        "bn1.bias": (256,),
        "conv2.weight": (256, 256, 3, 3),
        "bn2.weight": (256,),
        "bn2.bias": (256,),
        "downsample.conv.weight": (256, 128, 1, 1),
        "downsample.bn.weight": (256,),
        "downsample.bn.bias": (256,),
    }
    assert {name: names[name] for name in names if not name.startswith("layer")} == {
        "conv1.weight": (64, 3, 3, 3),
        "bn1.weight": (64,),
        "bn1.bias": (64,),
        "fc.weight": (10, 512),
        "fc.bias": (10,),
    }


@pytest.mark.parametrize(("model", "convs"), [(IMAGENET_RESNET.model, 53), (CIFAR.model, 20)])
def test_types_are_algoperfs(model, convs):
    wanted = {
        "CONV_WEIGHT": convs,
        "BATCH_NORM_SCALE": convs,
        "BATCH_NORM_BIAS": convs,
        "WEIGHT": 1,
        "BIAS": 1,
    }
    for types in (
        resnet_torch.program(model).parameter_types,
        flat(resnet_jax.program(model).parameter_types),
    ):
        assert Counter(kind.name for kind in types.values()) == wanted


def windows(x, kernel, stride, fill):
    """Symmetrically padded windows of (N, H, W, C): (N, H', W', C, kernel, kernel)."""
    padding = (kernel - 1) // 2
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)), constant_values=fill)
    return np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(1, 2))[:, ::stride, ::stride]


ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
}


def network(x, w, config, training):
    """The logits, from the torch module's state dict `w` as arrays."""
    activated = ACTIVATIONS[config.activation]

    def layer(x, conv, bn, stride=1):
        weight = w[f"{conv}.weight"]
        y = np.einsum("nhwcij,ocij->nhwo", windows(x, weight.shape[-1], stride, 0.0), weight)
        mean, var = w[f"{bn}.running_mean"], w[f"{bn}.running_var"]
        if training:
            mean, var = y.mean((0, 1, 2)), y.var((0, 1, 2))
        return (y - mean) / np.sqrt(var + 1e-5) * w[f"{bn}.weight"] + w[f"{bn}.bias"]

    x = activated(layer(x, "conv1", "bn1", config.stem_stride))
    if config.stem_pool:
        x = windows(x, 3, 2, -np.inf).max((-1, -2))
    # The strides of a block's convolutions: the first 3x3 halves height and width.
    strided = {"basic": 0, "bottleneck": 1}[config.block]
    for stage, num_blocks in enumerate(config.stage_sizes):
        for number in range(num_blocks):
            stride, block, y = 2 if stage and not number else 1, f"layer{stage + 1}.{number}", x
            for i in range(NUM_CONVS[config.block]):
                y = activated(y) if i else y
                y = layer(y, f"{block}.conv{i + 1}", f"{block}.bn{i + 1}", stride if i == strided else 1)
            if f"{block}.downsample.conv.weight" in w:
                x = layer(x, f"{block}.downsample.conv", f"{block}.downsample.bn", stride)
            x = activated(x + y)
    return x.mean((1, 2)) @ w["fc.weight"].T + w["fc.bias"]


def scrambled(config):
    """The torch module in float64 with weights that nothing initialises to 0 or 1."""
    torch.manual_seed(0)
    module = resnet_torch.program(config).module().double()
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif tensor.is_floating_point():
                tensor += 0.3 * torch.randn_like(tensor)
    return module


@pytest.mark.parametrize("name", TINY)
def test_both_agree_with_numpy(name):
    config = TINY[name]
    module = scrambled(config)
    images = random_batch(config, 2)["inputs"].astype(np.float64)[:, :13, :10]
    weights = {key: tensor.numpy().copy() for key, tensor in module.state_dict().items()}
    program = resnet_torch.program(config)
    with jax.enable_x64(True):
        jax_program = resnet_jax.program(config)
        params, state = resnet_jax.from_torch(module.state_dict())

        @partial(jax.jit, static_argnums=0)
        def jax_logits(training):
            logits, _ = jax_program.logits(
                params,
                state,
                {"inputs": jnp.asarray(images)},
                train=training,
                update_batch_norm=training,
                use_running_average_bn=not training,
                rng=KEY,
                dropout_rate=0.0,
            )
            return logits

        for training in (False, True):
            wanted = network(images, weights, config, training)
            batch = {"inputs": torch.from_numpy(images)}
            logits = program.logits(module.train(training), batch, dropout_rate=0.0)
            np.testing.assert_allclose(logits.detach(), wanted, rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(jax_logits(training), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [1, 3])
def test_jax_convolutions_promote_what_they_are_given(size):
    """As Flax's do: a submission may keep parameters in bfloat16."""
    conv = resnet_jax.Conv(2, size)
    images, kernel = np.ones((1, 4, 4, 3), np.float32), jnp.ones((size, size, 3, 2), jnp.bfloat16)
    assert conv.apply({"params": {"kernel": kernel}}, images).dtype == np.float32
    assert conv.apply({"params": {"kernel": kernel}}, jnp.bfloat16(images)).dtype == jnp.bfloat16


@pytest.mark.parametrize("side", [7, 8])
def test_jax_max_pooling_is_torchs(side):
    images = np.random.default_rng(0).normal(size=(2, side, side + 1, 3)).astype(np.float32)
    ours, pull = jax.vjp(resnet_jax.max_pool, images)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).requires_grad_()
    theirs = torch.nn.functional.max_pool2d(x, 3, 2, padding=1)
    cotangent = np.arange(ours.size, dtype=np.float32).reshape(ours.shape)
    theirs.permute(0, 2, 3, 1).backward(torch.from_numpy(cotangent))
    np.testing.assert_array_equal(ours, theirs.permute(0, 2, 3, 1).detach())
    np.testing.assert_array_equal(pull(cotangent)[0], x.grad.permute(0, 2, 3, 1))


def test_jax_max_pooling_keeps_what_is_no_number():
    images = np.zeros((1, 8, 8, 1), np.float32)
    images[0, 3, 3] = np.nan
    pooled = np.asarray(resnet_jax.max_pool(images))[0, :, :, 0]
    assert np.argwhere(np.isnan(pooled)).tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]


@cache
def initial(model):
    """Initial parameters by framework, flattened in Flax's naming."""
    torch.manual_seed(0)
    ours, _ = resnet_jax.from_torch(resnet_torch.program(model).module().state_dict())
    theirs, _ = resnet_jax.program(model).init(KEY)
    return {"torch": flat(ours), "jax": flat(theirs)}


@pytest.mark.parametrize("framework", ["torch", "jax"])
@pytest.mark.parametrize(("block", "scale"), [("basic", 0.0), ("bottleneck", 8.0)])
def test_initial_weights(framework, block, scale):
    model = replace(BASIC, block=block, stage_sizes=(1, 1), width=24, last_batch_norm_scale=scale)
    last = f"BatchNorm_{NUM_CONVS[block] - 1}/scale"
    scales = set()
    for name, leaf in initial(model)[framework].items():
        leaf = np.asarray(leaf)
        # The standard error of a standard deviation is s / sqrt(2 n); times 4.
        slack = 4 / np.sqrt(2 * leaf.size)
        if name.endswith("bias"):
            assert not leaf.any(), name
        elif name.endswith("scale"):
            wanted = scale if name.endswith(last) else 1.0
            scales.add(wanted)
            assert (leaf == wanted).all(), name
        elif name == "Dense_0/kernel":
            assert leaf.std() / 0.01 == pytest.approx(1, abs=slack)
        else:
            std = 1 / np.sqrt(np.prod(leaf.shape[:3]))
            assert leaf.std() / std == pytest.approx(1, abs=slack), name
            assert np.abs(leaf).max() <= 2 * std / 0.8796, name
    assert scales == {scale, 1.0}


def test_the_variants_differ_from_resnet_50_in_one_thing():
    changed = [
        {key for key, value in vars(facts.model).items() if value != vars(IMAGENET_RESNET.model)[key]}
        for facts in IMAGENET
    ]
    assert changed == [set(), {"activation"}, {"activation"}, {"last_batch_norm_scale"}]
    assert IMAGENET_RESNET_LARGE_BN_INIT.model.last_batch_norm_scale == 8.0
    assert [facts.model.activation for facts in IMAGENET] == ["relu", "silu", "gelu", "relu"]


@pytest.mark.parametrize("name", ["basic, silu, pooled", "bottleneck, gelu"])
def test_torch_modules_compile_whole(name):
    program = resnet_torch.program(TINY[name])
    eager = program.module().train()
    module = copy.deepcopy(eager)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    batch = {"inputs": torch.from_numpy(random_batch(TINY[name], 2)["inputs"])}
    ours, theirs = (program.logits(network, batch, dropout_rate=0.0) for network in (compiled, eager))
    torch.testing.assert_close(ours, theirs)
    for ours, theirs in zip(module.buffers(), eager.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)
    torch._dynamo.reset()
