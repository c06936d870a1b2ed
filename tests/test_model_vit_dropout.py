"""Where the vision transformer drops, at which rate, and when it draws random numbers."""

from functools import cache, partial

import flax.linen as nn
import jax
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from timetrial.workloads.models import vit_jax, vit_torch
from timetrial.workloads.models.dropout_jax import Dropout
from timetrial.workloads.models.vit import ViT

KEY = np.array([0, 5], np.uint32)

tiny = partial(ViT, image_size=8, patch=4, width=12, depth=2, num_heads=3, mlp_width=10, num_classes=5)
TINY = {
    "mean": tiny(),
    "glu": tiny(glu=True),
    "post_ln": tiny(post_ln=True),
    "map": tiny(pooling="map"),
}

jax_program = cache(vit_jax.program)


def jax_logits(name, params, images, rate, rng=KEY, train=True):
    logits, _ = jax_program(TINY[name]).logits(
        params,
        None,
        {"inputs": images},
        train=train,
        update_batch_norm=True,
        use_running_average_bn=False,
        rng=rng,
        dropout_rate=rate,
    )
    return logits


def torch_logits(name, module, images, rate):
    batch = {"inputs": torch.as_tensor(images)}
    return vit_torch.program(TINY[name]).logits(module, batch, dropout_rate=rate)


def normal_head(name):
    """The torch module as it begins, but for an output layer that is not 0."""
    module = vit_torch.program(TINY[name]).module()
    torch.nn.init.normal_(module.head.weight)
    return module


def sites(name, batch=2):
    """Shapes of what is dropped, in order, for images of 2 x 2 patches."""
    config = TINY[name]
    tokens = (batch, 4, config.width)
    shapes = [tokens]
    for _ in range(config.depth):
        shapes += [tokens, (batch, 4, config.mlp_width), tokens]
    if config.pooling == "map":
        shapes += [(batch, 1, config.mlp_width), (batch, 1, config.width)]
    return shapes


@pytest.mark.parametrize("name", TINY)
def test_dropout_is_where_the_page_says(name, monkeypatch):
    dropped = []

    def dropout(x, rate, training):
        dropped.append((tuple(x.shape), rate, training))
        return x

    monkeypatch.setattr(F, "dropout", dropout)
    images = np.zeros((2, 8, 8, 3), np.float32)
    torch_logits(name, vit_torch.program(TINY[name]).module().train(), images, rate=0.3)
    assert dropped == [(shape, 0.3, True) for shape in sites(name)]

    dropped.clear()

    def record(call, args, kwargs, context):
        if isinstance(context.module, Dropout):
            dropped.append((args[0].shape, args[1], kwargs["train"]))
        return call(*args, **kwargs)

    params, _ = jax_program(TINY[name]).from_torch(vit_torch.program(TINY[name]).module().state_dict())
    with nn.intercept_methods(record):
        jax.eval_shape(partial(jax_logits, name, params, images, 0.3))
    assert dropped == [(shape, 0.3, True) for shape in sites(name)]


def test_torch_dropout_takes_its_rate_per_call():
    module = normal_head("map").train()
    logits = partial(torch_logits, "map", module, np.ones((4, 8, 8, 3), np.float32))
    assert not torch.equal(logits(rate=0.3), logits(rate=0.3))
    torch.testing.assert_close(logits(rate=0.0), logits(rate=0.0), rtol=0, atol=0)
    module.eval()
    torch.testing.assert_close(logits(rate=0.9), logits(rate=0.0), rtol=0, atol=0)


def test_jax_dropout_takes_a_traced_rate():
    params, _ = jax_program(TINY["map"]).from_torch(normal_head("map").state_dict())
    images, traces = np.ones((4, 8, 8, 3), np.float32), []

    @jax.jit
    def logits(rate, rng):
        traces.append(rate)
        return jax_logits("map", params, images, rate, rng)

    other = np.array([0, 9], np.uint32)
    assert (logits(0.3, KEY) != logits(0.3, other)).any() and (logits(0.3, KEY) == logits(0.3, KEY)).all()
    assert (logits(0.0, KEY) == logits(0.0, other)).all()
    assert len(traces) == 1


def test_jax_draws_no_random_numbers_where_nothing_is_dropped():
    module = vit_torch.program(TINY["mean"]).module()
    params, _ = jax_program(TINY["mean"]).from_torch(module.state_dict())
    images = np.ones((1, 8, 8, 3), np.float32)

    def draws(rate, train):
        traced = jax.make_jaxpr(partial(jax_logits, "mean", params, images, rate, train=train))()
        return "random_bits" in str(traced)

    assert draws(0.3, True)
    assert not draws(0.0, True) and not draws(0, True) and not draws(0.3, False)
