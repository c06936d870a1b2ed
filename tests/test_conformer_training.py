"""What a Conformer does in training: where it drops and hides, what its batch norm remembers, and how it compiles."""

from dataclasses import replace
from functools import cache, partial

import flax.linen as nn
import jax
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_speech import TINY, batch

from timetrial.engine.spec import ForwardPassMode
from timetrial.engine.workload_torch import TorchWorkload
from timetrial.workloads.librispeech_conformer import LIBRISPEECH_CONFORMER
from timetrial.workloads.models import conformer_jax, conformer_torch
from timetrial.workloads.models.dropout_jax import Dropout
from timetrial.workloads.models.speech_features import SpecAugment

KEY = np.array([0, 5], np.uint32)


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


def test_batch_norm_may_forget_the_batch_in_torch():
    facts = replace(LIBRISPEECH_CONFORMER, model=TINY)
    workload = TorchWorkload(facts, device=torch.device("cpu"))
    module, _ = workload.init_model_fn([0, 0])
    speech = {"inputs": tuple(torch.tensor(x, dtype=torch.float32) for x in batch(20, [20, 11])["inputs"])}

    def statistics():
        return [b.clone() for n, b in module.named_buffers() if "running" in n]

    def forward(update):
        (logits, _), _ = workload.model_fn(
            module, speech, None, ForwardPassMode.TRAIN, None, update, dropout_rate=0.0
        )
        return logits

    before = statistics()
    assert len(before) == 2 * TINY.depth
    forgetting = forward(False)
    assert all(map(torch.equal, statistics(), before))
    torch.testing.assert_close(forward(True), forgetting, rtol=0, atol=0)
    assert not any(map(torch.equal, statistics(), before))
    module.eval()
    assert not torch.allclose(torch_logits(TINY, module, speech)[0], forgetting)


def test_batch_norm_follows_its_two_arguments_in_jax():
    config = replace(TINY, depth=1)
    module = conformer_torch.program(config).module()
    params, state = jax_program(config).from_torch(module.state_dict())
    speech = jax.tree.map(np.float32, batch(20, [20, 11]))

    @jax.jit
    def results():
        return {
            f"{update} {running}": jax_logits(config, params, state, speech, update=update, running=running)
            for update in (False, True)
            for running in (False, True)
        }

    def same(a, b):
        return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), a, b)))

    found = results()
    assert same(found["True False"][0], found["False False"][0])
    assert same(found["True True"][0], found["False True"][0])
    assert not same(found["True False"][0], found["True True"][0])
    assert [same(new_state, state) for _, new_state in found.values()] == [True, True, False, True]


def sites(config, rows, frames):
    """Shapes of what is dropped, in order."""
    x, hidden = (rows, frames, config.width), (rows, frames, config.mlp_width)
    return [x, *[hidden, x, x, x, hidden, x] * config.depth]


def test_dropout_is_where_the_page_says(monkeypatch):
    dropped = []

    def dropout(x, rate, training):
        dropped.append((tuple(x.shape), rate, training))
        return x

    module, speech = conformer_torch.program(TINY).module(), jax.tree.map(np.float32, batch(16, [16, 9]))
    monkeypatch.setattr(F, "dropout", dropout)
    torch_logits(TINY, module.train(), speech, rate=0.3)
    assert dropped == [(shape, 0.3, True) for shape in sites(TINY, 2, 4)]

    dropped.clear()

    def record(call, args, kwargs, context):
        if isinstance(context.module, Dropout):
            dropped.append((args[0].shape, args[1], kwargs["train"]))
        return call(*args, **kwargs)

    params, state = jax_program(TINY).from_torch(module.state_dict())
    with nn.intercept_methods(record):
        jax.eval_shape(partial(jax_logits, TINY, params, state, speech, rate=0.3))
    assert dropped == [(shape, 0.3, True) for shape in sites(TINY, 2, 4)]


MASKED = replace(TINY, spec_augment=SpecAugment(time_masks=3, time_fraction=0.5, frequency_bins=3))


def test_torch_hides_in_training_alone():
    module, speech = conformer_torch.program(MASKED).module(), jax.tree.map(np.float32, batch(40, [40, 33]))
    logits = partial(torch_logits, MASKED, module, speech)
    assert not torch.equal(logits()[0], logits()[0])
    assert not torch.equal(logits(rate=0.3)[0], logits(rate=0.3)[0])
    module.eval()
    torch.testing.assert_close(logits(rate=0.9)[0], logits()[0], rtol=0, atol=0)


def test_jax_hides_in_training_alone_and_takes_a_traced_rate():
    module, speech = conformer_torch.program(MASKED).module(), jax.tree.map(np.float32, batch(40, [40, 33]))
    params, state = jax_program(MASKED).from_torch(module.state_dict())
    traces = []

    @partial(jax.jit, static_argnames="train")
    def logits(rate, rng, train):
        traces.append(rate)
        return jax_logits(MASKED, params, state, speech, rate=rate, rng=rng, train=train)[0][0]

    other = np.array([0, 9], np.uint32)
    for rate in (0.0, 0.3):
        assert (logits(rate, KEY, True) == logits(rate, KEY, True)).all()
        assert (logits(rate, KEY, True) != logits(rate, other, True)).any()
    assert (logits(0.3, KEY, True) != logits(0.0, KEY, True)).any()
    assert len(traces) == 1
    assert (logits(0.3, KEY, False) == logits(0.3, other, False)).all()
    evaluated = jax.make_jaxpr(partial(jax_logits, MASKED, params, state, speech, rate=0.3, train=False))()
    assert "random_bits" not in str(evaluated)


@pytest.mark.slow  # test_workload_compile.py has one in the default run
def test_torch_compiles_whole():
    module = conformer_torch.program(TINY).module().train()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    speech = jax.tree.map(np.float32, batch(20, [20, 11]))
    try:
        logits, _ = torch_logits(TINY, compiled, speech)
        torch.testing.assert_close(logits, torch_logits(TINY, module, speech)[0])
        with torch._dynamo.config.patch(error_on_recompile=True):
            torch_logits(TINY, compiled, speech)[0].sum().backward()
    finally:
        torch._dynamo.reset()
