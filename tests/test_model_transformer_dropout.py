"""What a transformer's weights are at first, and where both frameworks drop."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from timetrial.workloads.models import transformer_jax, transformer_torch
from timetrial.workloads.models.transformer import Transformer
from timetrial.workloads.models.transformer_layers_jax import (
    KeysValues,
    MultiHeadDotProductAttention,
)
from timetrial.workloads.models.transformer_layers_torch import Attention

KEY = np.array([0, 5], np.uint32)

tiny = partial(Transformer, num_tokens=11, max_length=6, width=12, num_layers=1, num_heads=3, mlp_width=10)


def flat(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(entry.key for entry in path): leaf for path, leaf in leaves}


def tokens(rows=3):
    rng = np.random.default_rng(0)
    return {key: rng.integers(1, 11, (rows, 6)) for key in ("inputs", "targets")}


@cache
def initial():
    """Initial parameters by framework, flattened in Flax's naming."""
    config = tiny(num_tokens=200, width=48, mlp_width=96, num_layers=1, glu_tanh=True)
    program = transformer_jax.program(config)
    torch.manual_seed(0)
    ours, _ = program.from_torch(transformer_torch.program(config).module().state_dict())
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
        elif name.endswith("bias"):
            assert not leaf.any(), name
        elif name.endswith("embedding"):
            assert leaf.std() == close(1) and np.abs(leaf).max() > 3, name
        else:
            fan_in, fan_out = leaf.shape if module.startswith("Dense") else (48, 48)
            bound = np.sqrt(6 / (fan_in + fan_out))  # Xavier-uniform
            assert np.abs(leaf).max() <= bound * (1 + 1e-6), name
            assert leaf.std() / (bound / np.sqrt(3)) == close(1), name


@pytest.mark.parametrize("train", [False, True])
def test_both_frameworks_drop_attention_weights_and_results(train):
    """Values are all 1, so without dropout of the weights every result is 0 or 1 / (1 - rate)."""
    config, rate = tiny(width=64, num_heads=4), 0.2
    x = np.random.default_rng(0).normal(size=(1, 64, 64)).astype(np.float32)
    values = np.ones((1, 4, 64, 16), np.float32)
    mask = np.ones((1, 1, 64, 64), bool)
    module = Attention(config).train(train)
    torch.manual_seed(0)
    with torch.no_grad():
        module.out_proj.weight.copy_(torch.eye(64))
        keys = module.keys_values(torch.from_numpy(x)).keys
        seen = keys, torch.from_numpy(values)
        out = module(torch.from_numpy(x), transformer_torch.KeysValues(*seen), torch.from_numpy(mask), rate)
    layer = MultiHeadDotProductAttention(config)
    params = {
        f"{path.removesuffix('_proj.weight')}": {"kernel": jnp.asarray(tensor.numpy().T)}
        for path, tensor in module.state_dict().items()
    }
    params = {
        jax_name: {"kernel": params[torch_name]["kernel"].reshape(shape)}
        for jax_name, torch_name, shape in (
            ("query", "q", (64, 4, 16)),
            ("key", "k", (64, 4, 16)),
            ("value", "v", (64, 4, 16)),
            ("out", "out", (4, 16, 64)),
        )
    }
    theirs = layer.apply(
        {"params": params},
        x,
        KeysValues(jnp.asarray(keys.numpy()), jnp.asarray(values)),
        mask,
        rate,
        train,
        rngs={"dropout": KEY},
    )
    for result in (out.numpy(), np.asarray(theirs)):
        if not train:
            np.testing.assert_allclose(result, 1, rtol=1e-5)
            continue
        dropped = result == 0
        assert dropped.mean() == pytest.approx(rate, abs=0.03)
        kept = result[~dropped] * (1 - rate)
        assert kept.mean() == pytest.approx(1, abs=0.03) and kept.std() > 0.02


def test_jax_dropout_takes_a_traced_rate_and_other_draws_everywhere():
    program = transformer_jax.program(tiny())
    params, _ = program.init(KEY)
    fixed = {"update_batch_norm": False, "use_running_average_bn": True}
    logits = partial(program.logits, params, None, tokens(), **fixed)
    evaluated, _ = jax.jit(partial(logits, train=False, rng=KEY, dropout_rate=0.9))()
    training = jax.jit(partial(logits, train=True))
    kept, first, second, other = (
        training(rng=rng, dropout_rate=rate)[0]
        for rng, rate in ((KEY, 0.0), (KEY, 0.1), (KEY, 0.1), (KEY + 1, 0.1))
    )
    np.testing.assert_allclose(kept, evaluated, rtol=1e-4, atol=1e-4)
    assert np.isfinite(first).all() and (first == second).all() and (first != other).any()
    assert training._cache_size() == 1


def test_jax_draws_nothing_where_nothing_can_be_dropped():
    program = transformer_jax.program(tiny())
    params, _ = jax.eval_shape(program.init, KEY)

    def drawing(**arguments):
        def logits(params):
            return program.logits(
                params,
                None,
                tokens(),
                update_batch_norm=False,
                use_running_average_bn=True,
                rng=KEY,
                **arguments,
            )[0]

        return "random_bits" in str(jax.make_jaxpr(logits)(params))

    assert drawing(train=True, dropout_rate=0.1)
    assert not drawing(train=True, dropout_rate=0.0) and not drawing(train=False, dropout_rate=0.1)


def test_torch_dropout_is_of_training_only():
    program = transformer_torch.program(tiny())
    torch.manual_seed(0)
    module = program.module()
    batch = {key: torch.from_numpy(array) for key, array in tokens().items()}
    with torch.no_grad():
        plain, dropped = (program.logits(module, batch, dropout_rate=rate) for rate in (0.0, 0.3))
        evaluated = program.logits(module.eval(), batch, dropout_rate=0.3)
    assert torch.isfinite(dropped).all() and not torch.allclose(plain, dropped)
    torch.testing.assert_close(evaluated, plain)
