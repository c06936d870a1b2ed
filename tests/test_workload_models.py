"""Models against forward passes written out in NumPy float64, and what neither parity nor shapes can show."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from workload_batches import random_batch

from timetrial.workloads import WORKLOADS
from timetrial.workloads.models import decoder_lm_torch, mlp_jax, mlp_torch, resnet_torch
from timetrial.workloads.models.batch_norm_torch import BatchNorm1d, BatchNorm2d
from timetrial.workloads.models.decoder_lm import DecoderLM
from timetrial.workloads.models.initializers_torch import lecun_normal_
from timetrial.workloads.models.mlp import MLP
from timetrial.workloads.models.resnet import ResNet

TINY_LM = DecoderLM(num_tokens=11, length=7, width=12, num_layers=2, num_heads=3, mlp_width=10)
TINY_RESNET = ResNet(
    stage_sizes=(2, 1),
    width=2,
    num_classes=3,
    stem_kernel=5,
    stem_stride=2,
    stem_pool=True,
    last_batch_norm_scale=0.7,
)
TOY = WORKLOADS["toy"].model


def scrambled(module):
    """The module in float64 with weights that nothing initialises to 0 or 1; its state as NumPy arrays."""
    torch.manual_seed(0)
    module = module.double().eval()
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif tensor.is_floating_point():
                tensor += 0.3 * torch.randn_like(tensor)
    return module, {name: tensor.numpy() for name, tensor in module.state_dict().items()}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def rms_norm(x, gain):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * gain


def rotated_unit(x, position):
    """One head's vector turned as complex numbers, then divided by its norm."""
    pairs = (x[0::2] + 1j * x[1::2]) * np.exp(
        1j * position * 500_000.0 ** (-np.arange(0, len(x), 2) / len(x))
    )
    turned = np.stack([pairs.real, pairs.imag], -1).ravel()
    return turned / (np.linalg.norm(turned) + 1e-6)


def attention(x, w, prefix, num_heads):
    """One sequence (T, D), one position and one head at a time."""
    q, k, v = (
        (x @ w[f"{prefix}.{name}_proj.weight"].T).reshape(len(x), num_heads, -1) for name in ("q", "k", "v")
    )
    out = np.zeros_like(v)
    for t in range(len(x)):
        for head in range(num_heads):
            query = rotated_unit(q[t, head], t) * w[f"{prefix}.scale"]
            scores = np.array([query @ rotated_unit(k[s, head], s) for s in range(t + 1)])
            weights = np.exp(scores - scores.max())
            out[t, head] = weights / weights.sum() @ v[: t + 1, head]
    return out.reshape(len(x), -1) @ w[f"{prefix}.out_proj.weight"].T


def language_model(tokens, w, config):
    x = w["embedding.weight"][tokens]
    for i in range(config.num_layers):
        block = f"blocks.{i}"
        normed = rms_norm(x, w[f"{block}.attention_norm.weight"])
        x = x + attention(normed, w, f"{block}.attention", config.num_heads)
        normed = rms_norm(x, w[f"{block}.mlp_norm.weight"])
        a, b = np.split(normed @ w[f"{block}.mlp.up.weight"].T, 2, axis=-1)
        x = x + (a * sigmoid(b)) @ w[f"{block}.mlp.down.weight"].T
    return rms_norm(x, w["final_norm.weight"]) @ w["embedding.weight"].T


def test_the_language_model_agrees_with_numpy():
    module, weights = scrambled(decoder_lm_torch.program(TINY_LM).module())
    tokens = random_batch(TINY_LM, 3)["inputs"]
    wanted = np.stack([language_model(row, weights, TINY_LM) for row in tokens])
    np.testing.assert_allclose(module(torch.from_numpy(tokens)).detach(), wanted, rtol=1e-9, atol=1e-9)


def test_the_language_model_does_not_see_the_future():
    module, _ = scrambled(decoder_lm_torch.program(TINY_LM).module())
    tokens = torch.from_numpy(random_batch(TINY_LM, 2)["inputs"])
    changed = tokens.clone()
    changed[:, 4] = (changed[:, 4] + 1) % TINY_LM.num_tokens
    difference = (module(tokens) - module(changed)).abs().amax((0, 2))
    assert (difference[:4] == 0).all() and (difference[4:] > 0).all()


def windows(x, kernel, stride, fill):
    """Symmetrically padded windows of (N, H, W, C): (N, H', W', C, kernel, kernel)."""
    padding = (kernel - 1) // 2
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)), constant_values=fill)
    return np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(1, 2))[:, ::stride, ::stride]


def convolution(x, weight, stride=1):
    """weight: (out, in, kernel, kernel)."""
    return np.einsum("nhwcij,ocij->nhwo", windows(x, weight.shape[-1], stride, 0.0), weight)


def batch_norm(x, w, prefix, training):
    mean, var = w[f"{prefix}.running_mean"], w[f"{prefix}.running_var"]
    if training:
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) / np.sqrt(var + 1e-5) * w[f"{prefix}.weight"] + w[f"{prefix}.bias"]


def residual_network(x, w, config, training):
    def layer(x, conv, bn, stride=1):
        return batch_norm(convolution(x, w[f"{conv}.weight"], stride), w, bn, training)

    x = np.maximum(layer(x, "conv1", "bn1", config.stem_stride), 0)
    x = windows(x, 3, 2, -np.inf).max((-1, -2))
    for stage, num_blocks in enumerate(config.stage_sizes):
        for number in range(num_blocks):
            stride, block = 2 if stage and not number else 1, f"layer{stage + 1}.{number}"
            y = np.maximum(layer(x, f"{block}.conv1", f"{block}.bn1"), 0)
            y = np.maximum(layer(y, f"{block}.conv2", f"{block}.bn2", stride), 0)
            y = layer(y, f"{block}.conv3", f"{block}.bn3")
            if number == 0:
                x = layer(x, f"{block}.downsample.conv", f"{block}.downsample.bn", stride)
            x = np.maximum(x + y, 0)
    return x.mean((1, 2)) @ w["fc.weight"].T + w["fc.bias"]


@pytest.mark.parametrize("training", [False, True])
def test_the_residual_network_agrees_with_numpy(training):
    program = resnet_torch.program(TINY_RESNET)
    module, weights = scrambled(program.module())
    images = random_batch(TINY_RESNET, 3)["inputs"].astype(np.float64)
    wanted = residual_network(images, copy.deepcopy(weights), TINY_RESNET, training)
    module.train(training)
    logits = program.logits(module, {"inputs": torch.from_numpy(images)}, dropout_rate=0.0)
    np.testing.assert_allclose(logits.detach(), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("layer", "shape"), [(BatchNorm1d, (6, 3)), (BatchNorm2d, (6, 3, 4, 5))])
def test_batch_norm_keeps_the_biased_variance(layer, shape):
    norm = layer(3).double().train()
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = norm(x)
    axes = (0, *range(2, x.ndim))
    torch.testing.assert_close(norm.running_mean, 0.1 * x.mean(axes))
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * x.var(axes, correction=0))
    torch.testing.assert_close(y.mean(axes), torch.zeros(3, dtype=torch.float64))
    # Everything but the running variance is torch's own layer.
    theirs = (torch.nn.BatchNorm1d if len(shape) == 2 else torch.nn.BatchNorm2d)(3).double().train()
    torch.testing.assert_close(y, theirs(x))
    assert norm.state_dict().keys() == theirs.state_dict().keys()
    n = x.numel() / 3
    torch.testing.assert_close(theirs.running_var - 0.9, (norm.running_var - 0.9) * n / (n - 1))


def test_momentum_0_freezes_the_running_statistics():
    norm = BatchNorm1d(3).train()
    norm.momentum = 0.0
    norm(torch.randn(5, 3))
    assert norm.running_mean.tolist() == [0, 0, 0] and norm.running_var.tolist() == [1, 1, 1]


def test_jax_batch_norm_follows_its_two_arguments():
    program = mlp_jax.program(TOY)
    params, state = program.init(np.array([0, 1], np.uint32))
    batch = random_batch(TOY, 4)

    @jax.jit
    def results():
        return {
            (update, running): program.logits(
                params,
                state,
                batch,
                train=True,
                update_batch_norm=update,
                use_running_average_bn=running,
                rng=jnp.array([0, 2], jnp.uint32),
                dropout_rate=0.0,
            )
            for update in (False, True)
            for running in (False, True)
        }

    def same(a, b):
        return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), a, b)))

    (frozen, frozen_state), (_, running_state) = results()[False, False], results()[False, True]
    (updated, updated_state), (running, kept_state) = results()[True, False], results()[True, True]
    assert same(frozen, updated) and not same(frozen, running)
    assert same(frozen_state, state) and same(running_state, state) and same(kept_state, state)
    assert not same(updated_state, state)


def test_initial_values_are_those_of_the_source():
    resnet = resnet_torch.program(WORKLOADS["imagenet_resnet_pocket"].model).module().state_dict()
    last = [weight for name, weight in resnet.items() if name.endswith("bn3.weight")]
    assert len(last) == 3 and all((weight == 0).all() for weight in last)
    assert (resnet["layer2.0.downsample.bn.weight"] == 1).all()
    assert abs(resnet["fc.weight"].std() - 0.01) < 0.001
    model = WORKLOADS["finewebedu_lm_pocket"].model
    lm = decoder_lm_torch.program(model).module().state_dict()
    assert lm["blocks.0.attention.scale"].item() == pytest.approx(np.log2(128**2 - 128))
    assert abs(lm["blocks.0.mlp.up.weight"].std() - 0.02) < 0.001
    assert abs(lm["blocks.1.mlp.down.weight"].std() - 0.02 / np.sqrt(2 * model.num_layers)) < 0.0005


def test_lecun_normal_is_truncated_and_has_variance_one_over_fan_in():
    weight = lecun_normal_(torch.empty(400, 10, 5, 5))
    assert float(weight.std()) == pytest.approx(1 / np.sqrt(250), rel=0.01)
    assert float(weight.abs().max()) <= 2 / np.sqrt(250) / 0.8796


def test_torch_dropout_takes_its_rate_per_call():
    program = mlp_torch.program(TOY)
    module = program.module().train()
    batch = {"inputs": torch.randn(512, TOY.num_features)}
    assert not torch.equal(*(program.logits(module, batch, dropout_rate=0.3) for _ in range(2)))
    torch.testing.assert_close(*(program.logits(module, batch, dropout_rate=0.0) for _ in range(2)))
    module.eval()
    torch.testing.assert_close(*(program.logits(module, batch, dropout_rate=rate) for rate in (0.0, 0.9)))


def test_jax_dropout_takes_a_traced_rate():
    program = mlp_jax.program(MLP(num_features=5, hidden=(40, 30), num_classes=3))
    params, state = program.init(np.array([0, 1], np.uint32))
    batch = random_batch(program.config, 64)
    traces = []

    @jax.jit
    def logits(rate, rng):
        traces.append(rate)
        return program.logits(
            params,
            state,
            batch,
            train=True,
            update_batch_norm=False,
            use_running_average_bn=True,
            rng=rng,
            dropout_rate=rate,
        )[0]

    a, b = np.array([0, 1], np.uint32), np.array([0, 2], np.uint32)
    assert (logits(0.0, a) == logits(0.0, b)).all()
    assert (logits(0.3, a) != logits(0.3, b)).any()
    assert (logits(0.3, a) == logits(0.3, a)).all()
    assert len(traces) == 1


def test_jax_dropout_keeps_the_mean_and_drops_the_rate():
    dropout = mlp_jax.Dropout()
    x = jnp.ones(100_000)
    y = dropout.apply({}, x, 0.2, train=True, rngs={"dropout": np.array([0, 1], np.uint32)})
    assert float((y == 0).mean()) == pytest.approx(0.2, abs=0.006)
    assert float(y.mean()) == pytest.approx(1.0, abs=0.01)
    assert (dropout.apply({}, x, 0.2, train=False) == x).all()
