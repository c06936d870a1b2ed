"""The U-Net against float64 NumPy in both frameworks; its names, initial weights and dropout."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from workload_batches import random_batch

from timetrial.engine.spec import ParameterType
from timetrial.workloads.models import unet_jax, unet_torch
from timetrial.workloads.models.unet import UNet

FULL = {
    "fastmri": (UNet(), 7_756_097),
    "fastmri_model_size": (UNet(channels=64, pools=3), 7_692_929),
    "fastmri_tanh": (UNet(activation="tanh"), 7_756_097),
    "fastmri_layernorm": (UNet(norm="layer"), 7_761_985),
}
TINY = {
    "fastmri": UNet(channels=4, pools=2),
    "fastmri_model_size": UNet(channels=6, pools=1),
    "fastmri_tanh": UNet(channels=4, pools=2, activation="tanh"),
    "fastmri_layernorm": UNet(channels=4, pools=2, norm="layer"),
}
KEY = np.array([0, 7], np.uint32)

JAX_SHAPES = {
    "ConvBlock_0/Conv_0/kernel": (3, 3, 1, 32),
    "ConvBlock_0/Conv_1/kernel": (3, 3, 32, 32),
    "ConvBlock_1/Conv_0/kernel": (3, 3, 32, 64),
    "ConvBlock_1/Conv_1/kernel": (3, 3, 64, 64),
    "ConvBlock_2/Conv_0/kernel": (3, 3, 64, 128),
    "ConvBlock_2/Conv_1/kernel": (3, 3, 128, 128),
    "ConvBlock_3/Conv_0/kernel": (3, 3, 128, 256),
    "ConvBlock_3/Conv_1/kernel": (3, 3, 256, 256),
    "ConvBlock_4/Conv_0/kernel": (3, 3, 256, 512),
    "ConvBlock_4/Conv_1/kernel": (3, 3, 512, 512),
    "ConvBlock_5/Conv_0/kernel": (3, 3, 512, 256),
    "ConvBlock_5/Conv_1/kernel": (3, 3, 256, 256),
    "ConvBlock_6/Conv_0/kernel": (3, 3, 256, 128),
    "ConvBlock_6/Conv_1/kernel": (3, 3, 128, 128),
    "ConvBlock_7/Conv_0/kernel": (3, 3, 128, 64),
    "ConvBlock_7/Conv_1/kernel": (3, 3, 64, 64),
    "ConvBlock_8/Conv_0/kernel": (3, 3, 64, 32),
    "ConvBlock_8/Conv_1/kernel": (3, 3, 32, 32),
    "Conv_0/bias": (1,),
    "Conv_0/kernel": (1, 1, 32, 1),
    "TransposeConvBlock_0/ConvTranspose_0/kernel": (2, 2, 512, 256),
    "TransposeConvBlock_1/ConvTranspose_0/kernel": (2, 2, 256, 128),
    "TransposeConvBlock_2/ConvTranspose_0/kernel": (2, 2, 128, 64),
    "TransposeConvBlock_3/ConvTranspose_0/kernel": (2, 2, 64, 32),
}
TORCH_SHAPES = {
    "down_sample_layers.0.conv_layers.0.weight": (32, 1, 3, 3),
    "down_sample_layers.0.conv_layers.4.weight": (32, 32, 3, 3),
    "down_sample_layers.1.conv_layers.0.weight": (64, 32, 3, 3),
    "down_sample_layers.1.conv_layers.4.weight": (64, 64, 3, 3),
    "down_sample_layers.2.conv_layers.0.weight": (128, 64, 3, 3),
    "down_sample_layers.2.conv_layers.4.weight": (128, 128, 3, 3),
    "down_sample_layers.3.conv_layers.0.weight": (256, 128, 3, 3),
    "down_sample_layers.3.conv_layers.4.weight": (256, 256, 3, 3),
    "conv.conv_layers.0.weight": (512, 256, 3, 3),
    "conv.conv_layers.4.weight": (512, 512, 3, 3),
    "up_conv.0.conv_layers.0.weight": (256, 512, 3, 3),
    "up_conv.0.conv_layers.4.weight": (256, 256, 3, 3),
    "up_conv.1.conv_layers.0.weight": (128, 256, 3, 3),
    "up_conv.1.conv_layers.4.weight": (128, 128, 3, 3),
    "up_conv.2.conv_layers.0.weight": (64, 128, 3, 3),
    "up_conv.2.conv_layers.4.weight": (64, 64, 3, 3),
    "up_conv.3.0.conv_layers.0.weight": (32, 64, 3, 3),
    "up_conv.3.0.conv_layers.4.weight": (32, 32, 3, 3),
    "up_conv.3.1.weight": (1, 32, 1, 1),
    "up_conv.3.1.bias": (1,),
    "up_transpose_conv.0.layers.0.weight": (512, 256, 2, 2),
    "up_transpose_conv.1.layers.0.weight": (256, 128, 2, 2),
    "up_transpose_conv.2.layers.0.weight": (128, 64, 2, 2),
    "up_transpose_conv.3.layers.0.weight": (64, 32, 2, 2),
}


def torch_shapes(config):
    with torch.device("meta"):
        module = unet_torch.program(config).module()
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}


def jax_shapes(config):
    params, state = jax.eval_shape(unet_jax.program(config).init, KEY)
    assert state is None
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {"/".join(entry.key for entry in path): leaf.shape for path, leaf in leaves}


def test_names_and_shapes_are_algoperfs():
    assert jax_shapes(UNet()) == JAX_SHAPES
    assert torch_shapes(UNet()) == TORCH_SHAPES


@pytest.mark.parametrize("name", FULL)
def test_the_number_of_parameters_is_algoperfs(name):
    config, number = FULL[name]
    for shapes in (torch_shapes(config), jax_shapes(config)):
        assert sum(int(np.prod(shape)) for shape in shapes.values()) == number


def test_layer_norms_follow_3x3_convolutions_only():
    added = torch_shapes(UNet(norm="layer")).keys() - TORCH_SHAPES.keys()
    blocks = [f"down_sample_layers.{i}" for i in range(4)] + [
        "conv",
        "up_conv.0",
        "up_conv.1",
        "up_conv.2",
        "up_conv.3.0",
    ]
    assert added == {
        f"{b}.conv_layers.{i}.{leaf}" for b in blocks for i in (1, 5) for leaf in ("weight", "bias")
    }
    added = jax_shapes(UNet(norm="layer")).keys() - JAX_SHAPES.keys()
    leaves = [f"LayerNorm_{i}/{leaf}" for i in (0, 1) for leaf in ("scale", "bias")]
    assert added == {f"ConvBlock_{number}/{leaf}" for number in range(9) for leaf in leaves}


@pytest.mark.parametrize("name", FULL)
def test_the_last_convolution_is_the_output_layer(name):
    config, _ = FULL[name]
    last = f"up_conv.{config.pools - 1}.1"
    ours, theirs = unet_torch.program(config), unet_jax.program(config)
    assert ours.output_parameters == {f"{last}.weight", f"{last}.bias"} and theirs.output_parameters == {
        "Conv_0"
    }
    assert ours.parameter_types[f"{last}.bias"] is ParameterType.BIAS
    assert list(ours.parameter_types.values()).count(ParameterType.BIAS) == 1
    assert torch_shapes(config)[f"{last}.weight"] == (1, config.channels, 1, 1)


def convolution(x, weight):
    """3x3, padded with zeros. x: (N, H, W, in), weight: (out, in, 3, 3)."""
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
    return np.einsum("nhwcij,ocij->nhwo", windows, weight)


def transposed_convolution(x, weight):
    """Every pixel makes 2x2. weight: (in, out, 2, 2)."""
    n, h, w, _ = x.shape
    y = np.zeros((n, 2 * h, 2 * w, weight.shape[1]))
    for i in range(2):
        for j in range(2):
            y[:, i::2, j::2] = x @ weight[:, :, i, j]
    return y


def norm(x, axes, epsilon):
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon)


def activation(x, config):
    return np.tanh(x) if config.activation == "tanh" else np.where(x > 0, x, 0.2 * x)


def conv_block(x, w, prefix, config):
    for position in (0, 4):
        x = convolution(x, w[f"{prefix}.conv_layers.{position}.weight"])
        if config.norm == "layer":
            affine = f"{prefix}.conv_layers.{position + 1}"
            x = norm(x, (1, 2, 3), 1e-6) * w[f"{affine}.weight"] + w[f"{affine}.bias"]
        else:
            x = norm(x, (1, 2), 1e-5)
        x = activation(x, config)
    return x


def unet(images, w, config):
    x, skipped = images[..., None], []
    for level in range(config.pools):
        x = conv_block(x, w, f"down_sample_layers.{level}", config)
        skipped.append(x)
        n, h, width, c = x.shape
        x = x[:, : h // 2 * 2, : width // 2 * 2].reshape(n, h // 2, 2, width // 2, 2, c).mean((2, 4))
    x = conv_block(x, w, "conv", config)
    last = config.pools - 1
    for level in range(config.pools):
        x = transposed_convolution(x, w[f"up_transpose_conv.{level}.layers.0.weight"])
        x = activation(norm(x, (1, 2), 1e-5), config)
        skip = skipped.pop()
        missing = [(0, skip.shape[axis] - x.shape[axis]) for axis in (1, 2)]
        x = np.pad(x, ((0, 0), *missing, (0, 0)), mode="reflect")
        block = f"up_conv.{last}.0" if level == last else f"up_conv.{level}"
        x = conv_block(np.concatenate((x, skip), -1), w, block, config)
    return (x @ w[f"up_conv.{last}.1.weight"][0, :, 0, 0]) + w[f"up_conv.{last}.1.bias"][0]


@pytest.mark.parametrize("size", [(16, 12), (13, 11), (14, 9)])
@pytest.mark.parametrize("name", TINY)
def test_both_frameworks_agree_with_numpy(name, size):
    config = TINY[name]
    torch.manual_seed(0)
    ours, theirs = unet_torch.program(config), unet_jax.program(config)
    module = ours.module().double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    images = np.random.default_rng(0).normal(size=(3, *size))
    wanted = unet(images, {key: tensor.numpy() for key, tensor in module.state_dict().items()}, config)
    got = ours.logits(module, {"inputs": torch.from_numpy(images)}, dropout_rate=0.0).detach()
    assert got.shape == images.shape
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-11 * np.abs(wanted).max())
    with jax.enable_x64(True):
        params, _ = unet_jax.from_torch(module.state_dict())
        evaluated = partial(jax_logits, theirs, rate=0.0, key=KEY, train=False)
        got = jax.jit(evaluated)(params, jnp.asarray(images))
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-11 * np.abs(wanted).max())


def jax_logits(program, params, images, rate, key, train=True):
    logits, state = program.logits(
        params,
        None,
        {"inputs": images},
        train=train,
        update_batch_norm=train,
        use_running_average_bn=not train,
        rng=key,
        dropout_rate=rate,
    )
    assert state is None
    return logits


def test_norms_keep_their_digits_far_from_zero():
    """E[x^2] - E[x]^2 of numbers around 1,000 has no digit left in float32; two passes have three."""
    x = np.random.default_rng(0).normal(1000, 0.1, (2, 3, 8, 8)).astype(np.float32)
    wanted = norm(x.astype(np.float64), (2, 3), 1e-5)
    got = unet_torch.InstanceNorm()(torch.from_numpy(x))
    np.testing.assert_allclose(got, wanted, atol=3e-3)
    got = unet_jax.instance_norm(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(got, wanted, atol=3e-3)


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_weights_start_lecun_normal(framework):
    """Also those of transposed convolutions: their fan-in are their inputs, 2 * 2 * channels."""
    config = UNet(channels=16, pools=1, norm="layer")
    if framework == "torch":
        torch.manual_seed(0)
        params, _ = unet_jax.from_torch(unet_torch.program(config).module().state_dict())
    else:
        params, _ = unet_jax.program(config).init(KEY)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name, values = jax.tree_util.keystr(path), np.asarray(leaf, np.float64)
        if "kernel" not in name:
            assert (values == ("scale" in name)).all(), name
            continue
        std = 1 / np.sqrt(np.prod(values.shape[:3]))
        # The standard error of a standard deviation is s / sqrt(2 n).
        assert abs(values.std() / std - 1) < 4 / np.sqrt(2 * values.size), name
        assert np.abs(values).max() <= 2 * std / 0.8796, name


def dropped_blocks(framework, rate, train):
    """One ConvBlock's output (N, H, W, C) of the same input."""
    config = UNet(channels=32, activation="tanh")
    x = np.random.default_rng(0).normal(size=(8, 9, 9, 4)).astype(np.float32)
    if framework == "torch":
        torch.manual_seed(0)
        block = unet_torch.ConvBlock(config, 4, 32).train(train)
        return block(torch.from_numpy(x).permute(0, 3, 1, 2), rate).permute(0, 2, 3, 1).detach().numpy()
    block = unet_jax.ConvBlock(config, 32)
    keys = {"params": KEY, "dropout": KEY + 1}
    return np.asarray(block.init_with_output(keys, x, rate, train)[0])


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_dropout_is_of_whole_channels(framework):
    y = dropped_blocks(framework, 0.25, True)
    share_of_zeros = (y == 0).mean((1, 2))
    assert set(share_of_zeros.ravel()) == {0.0, 1.0}
    assert share_of_zeros.mean() == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / 256))
    assert 1.2 < np.abs(y).max() <= 1 / 0.75  # what is left of the tanh is scaled up
    evaluated = dropped_blocks(framework, 0.25, False)
    assert (evaluated != 0).all()
    np.testing.assert_array_equal(evaluated, dropped_blocks(framework, 0.0, True))


def test_dropout_takes_its_rate_per_call_in_torch():
    program = unet_torch.program(TINY["fastmri"])
    module = program.module().train()
    batch = {"inputs": torch.randn(4, 16, 16)}
    assert not torch.equal(*(program.logits(module, batch, dropout_rate=0.3) for _ in range(2)))
    assert torch.equal(*(program.logits(module, batch, dropout_rate=0.0) for _ in range(2)))
    module.eval()
    assert torch.equal(*(program.logits(module, batch, dropout_rate=rate) for rate in (0.0, 0.9)))


def test_dropout_takes_a_traced_rate_in_jax():
    config = TINY["fastmri_model_size"]
    program = unet_jax.program(config)
    params, _ = unet_jax.from_torch(unet_torch.program(config).module().state_dict())
    images = np.random.default_rng(0).normal(size=(4, 16, 16)).astype(np.float32)
    traces = []

    @jax.jit
    def logits(rate, key):
        traces.append(rate)
        return jax_logits(program, params, images, rate, key)

    evaluated = jax_logits(program, params, images, 0.3, KEY, train=False)
    np.testing.assert_allclose(logits(0.0, KEY), evaluated, atol=1e-4)
    assert (logits(0.0, KEY) == logits(0.0, KEY + 1)).all()
    assert (logits(0.3, KEY) != logits(0.3, KEY + 1)).mean() > 0.9
    assert (logits(0.3, KEY) == logits(0.3, KEY)).all()
    assert len(traces) == 1


@pytest.mark.parametrize(("name", "size"), [("fastmri_tanh", 16), ("fastmri_layernorm", 13)])
def test_the_torch_module_compiles_whole(name, size):
    """`fullgraph` refuses graph breaks; odd sizes and dropout are no exception."""
    program = unet_torch.program(TINY[name])
    batch = {key: torch.from_numpy(array) for key, array in random_batch(TINY[name], 2).items()}
    batch |= {key: batch[key][:, :size, :size].contiguous() for key in ("inputs", "targets")}
    module = program.module().train()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    gradients = []
    for network in (module, compiled):
        module.zero_grad()
        logits = program.logits(network, batch, dropout_rate=0.0)
        program.loss(batch["targets"], logits, None, 0.0)["summed"].backward()
        gradients.append({key: parameter.grad.clone() for key, parameter in module.named_parameters()})
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)
    assert program.logits(compiled, batch, dropout_rate=0.5).isfinite().all()
    torch._dynamo.reset()
