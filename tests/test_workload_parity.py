"""Same weights, same batch, same numbers: torch and JAX, for every workload, in float32 and float64.

Models are made small for the default run: those of the variants, which have the code of all base workloads but for
what they change, in float64, and those of the pocket suite, which are small as they are, in float32. The others, and
all at full size (but for Criteo's table), are marked slow.
"""

import copy
from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from small_models import affordable, small
from workload_batches import random_batch
from workload_cases import sized_workloads, workloads

from timetrial.engine.device_torch import placed_batch
from timetrial.workloads import SUITES, WORKLOADS
from timetrial.workloads.models.decoder_lm import DecoderLM

BATCH_SIZE = 4
LEARNING_RATE = 0.1
SMOOTHING = 0.1
CPU = torch.device("cpu")
RNG = np.array([0, 7], np.uint32)
# Of the largest entry of what is compared. float64 leaves no room for another formula; float32 only for the
# order of sums, which the square of a batch norm's tiny variance can enlarge a hundredfold, and so can a kink of
# leaky ReLU that two roundings fall on either side of: at full size each framework is up to 3.5e-4 from float64.
TOLERANCE = {"float32": 1e-3, "float64": 1e-10}
# Where residual branches begin at full strength, 16 blocks of batch norm over four images enlarge rounding much more;
# and of 4,096 ReLUs a layer some are entered so near 0 that two roundings fall on either side of it: the same weights
# agree in float64.
ENLARGED = {
    ("imagenet_resnet_large_bn_init", "full"): 0.1,
    ("wmt", "full"): 0.01,
    ("wmt_attention_temp", "full"): 0.01,
}


def full(model):
    """At full size, but for the language model: a dozen of its parameters and logits in float64 would take 40 GB."""
    if isinstance(model, DecoderLM):
        return replace(model, num_layers=4, length=128)
    return affordable(model)


SIZES = {"small": small, "full": full}


def sized(name, size):
    """The facts of a workload with its model in that size."""
    facts = WORKLOADS[name]
    return replace(facts, model=SIZES[size](facts.model))


@cache
def shapes_of(name):
    """(parameters, model state) of the small model in JAX: shapes and dtypes alone, for which nothing is compiled."""
    facts = sized(name, "small")
    return jax.eval_shape(facts.programs["jax"](facts.model).init, RNG)


@cache
def side_of(name):
    """The small model in float32, for tests that look at its weights and compute nothing."""
    return Side(sized(name, "small"), "float32")


def tensors(tree):
    return jax.tree.map(torch.from_numpy, tree)


def assert_all_close(got, wanted, dtype, what):
    """Every array of two trees, such as logits with their padding."""
    for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert_close(ours, theirs, dtype, what)


def assert_close(got, wanted, dtype, what, scale=None):
    wanted = np.asarray(wanted, np.float64)
    scale = np.abs(wanted).max() if scale is None else scale
    difference = np.abs(np.asarray(got, np.float64) - wanted).max(initial=0)
    assert difference <= TOLERANCE[dtype] * scale, f"{what}: {difference} of {scale}"


class Side:
    """A workload's programs with one set of weights that nothing initialises to 0 or 1."""

    def __init__(self, facts, dtype):
        self.dtype = dtype
        self.torch_program = facts.programs["torch"](facts.model)
        self.jax_program = facts.programs["jax"](facts.model)
        self.from_torch = self.jax_program.from_torch
        torch.manual_seed(0)
        self.module = self.torch_program.module().to(getattr(torch, dtype))
        with torch.no_grad():
            for parameter in self.module.parameters():
                # Less in wide layers, or attention's logits grow until softmax enlarges rounding a millionfold.
                inputs = parameter[0].numel() if parameter.ndim > 1 else 1
                parameter += 0.1 * min(1.0, 8 / inputs**0.5) * torch.randn_like(parameter)
            for name, buffer in self.module.named_buffers():
                if name.endswith("running_var"):
                    buffer.uniform_(0.5, 2)
                elif name.endswith("running_mean"):
                    buffer.normal_()
        batch = random_batch(facts.model, BATCH_SIZE)
        batch = jax.tree.map(lambda v: v.astype(dtype) if v.dtype == np.float32 else v, batch)
        self.mask = batch.pop("weights", None)
        if self.mask is None:
            targets = jax.tree.leaves(batch["targets"])[0]
            per_token = (
                targets.dtype == np.int32 and isinstance(batch["targets"], np.ndarray) and targets.ndim > 1
            )
            self.mask = np.ones(targets.shape if per_token else len(targets), dtype)
            self.mask[-1] = 0
        self.batch = batch

    def jax_tree(self, module):
        """(parameters, model state) of a torch module, in JAX's naming."""
        return self.from_torch(module.state_dict())

    def jax_gradients(self, module):
        state = module.state_dict()
        return self.from_torch(state | {name: p.grad for name, p in module.named_parameters()})[0]

    def torch_logits(self, module):
        return self.torch_program.logits(module, placed_batch(self.batch, CPU), dropout_rate=0.0)

    def jax_logits(self, params, state, train):
        return self.jax_program.logits(
            params,
            state,
            self.batch,
            train=train,
            update_batch_norm=train,
            use_running_average_bn=not train,
            rng=RNG,
            dropout_rate=0.0,
        )

    def losses(self, program, logits, convert):
        """The loss with and without mask and smoothing."""
        targets, mask = convert(self.batch["targets"]), convert(self.mask)
        return [program.loss(targets, logits, m, s) for m in (None, mask) for s in (0.0, SMOOTHING)]


def compare(side):
    dtype = side.dtype
    params, state = side.jax_tree(side.module)

    with torch.no_grad():
        evaluated = side.torch_logits(copy.deepcopy(side.module).eval())
    batch = side.batch | {"weights": side.mask}
    scores = side.torch_program.score(placed_batch(batch, CPU), evaluated)

    @jax.jit
    def evaluate(params, state):
        logits = side.jax_logits(params, state, False)[0]
        return logits, side.jax_program.score(jax.tree.map(jnp.asarray, batch), logits)

    jax_logits, jax_scores = evaluate(params, state)
    assert_all_close(jax_logits, evaluated, dtype, "evaluation")
    assert scores.keys() == jax_scores.keys()
    for name, value in scores.items():
        assert_close(jax_scores[name], value, dtype, f"score {name}")

    module = copy.deepcopy(side.module).train()
    logits = side.torch_logits(module)
    losses = side.losses(side.torch_program, logits, tensors)
    (losses[3]["summed"] / losses[3]["n_valid_examples"]).backward()

    @jax.jit
    def step(params, state):
        def mean_loss(params):
            logits, new_state = side.jax_logits(params, state, True)
            losses = side.losses(side.jax_program, logits, partial(jax.tree.map, jnp.asarray))
            return losses[3]["summed"] / losses[3]["n_valid_examples"], (logits, new_state, losses)

        gradients, rest = jax.grad(mean_loss, has_aux=True)(params)
        updated = jax.tree.map(lambda p, g: p - LEARNING_RATE * g, params, gradients)
        return gradients, updated, *rest

    gradients, updated, jax_logits, new_state, jax_losses = step(params, state)
    logits = jax.tree.map(torch.Tensor.detach, logits)
    for ours, theirs in zip(jax.tree.leaves(jax_logits), jax.tree.leaves(logits), strict=True):
        assert ours.dtype == dtype and ours.shape == theirs.shape
    assert_all_close(jax_logits, logits, dtype, "training logits")
    for ours, theirs in zip(jax_losses, losses, strict=True):
        for key in ("summed", "n_valid_examples", "per_example"):
            assert_close(ours[key], theirs[key].detach(), dtype, key)

    wanted = side.jax_gradients(module)
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(wanted))
    for (path, leaf), ours in zip(
        jax.tree_util.tree_leaves_with_path(wanted), jax.tree.leaves(gradients), strict=True
    ):
        assert_close(ours, leaf, dtype, f"gradient of {jax.tree_util.keystr(path)}", scale)

    with torch.no_grad():
        for parameter in module.parameters():
            parameter -= LEARNING_RATE * parameter.grad
    wanted, wanted_state = side.jax_tree(module)
    assert jax.tree.structure(new_state) == jax.tree.structure(wanted_state)
    jax.tree.map(
        lambda ours, theirs: assert_close(ours, theirs, dtype, "updated", 1 + scale), updated, wanted
    )
    jax.tree.map(
        lambda ours, theirs: assert_close(ours, theirs, dtype, "statistics"), new_state, wanted_state
    )


@pytest.mark.parametrize(("name", "size"), sized_workloads(SUITES["pocket"] + SUITES["algoperf"]))
def test_both_frameworks_compute_the_same_in_float64(name, size):
    with jax.enable_x64(True):
        compare(Side(sized(name, size), "float64"))


@pytest.mark.parametrize(("name", "size"), sized_workloads(SUITES["variants"] + SUITES["algoperf"]))
def test_both_frameworks_compute_the_same_in_float32(name, size, monkeypatch):
    monkeypatch.setitem(TOLERANCE, "float32", ENLARGED.get((name, size), TOLERANCE["float32"]))
    compare(Side(sized(name, size), "float32"))


@pytest.mark.parametrize("name", WORKLOADS)
def test_parameters_correspond_and_are_float32(name):
    side = side_of(name)
    params, state = shapes_of(name)
    mapped_params, mapped_state = side.jax_tree(side.module)

    def shapes(tree):
        return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype.name), tree)

    assert shapes(params) == shapes(mapped_params) and shapes(state) == shapes(mapped_state)
    assert {
        dtype for _, dtype in jax.tree.leaves(shapes(params), is_leaf=lambda x: isinstance(x, tuple))
    } == {"float32"}
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == sum(
        p.numel() for p in side.module.parameters()
    )


@pytest.mark.parametrize("name", WORKLOADS)
def test_parameter_types_are_declared_for_every_parameter_and_alike(name):
    side = side_of(name)
    params, _ = shapes_of(name)
    types = side.torch_program.parameter_types
    assert set(types) == {parameter for parameter, _ in side.module.named_parameters()}
    assert jax.tree.structure(side.jax_program.parameter_types) == jax.tree.structure(params)
    # The map of the weights maps the types too, once each type is a tensor of its parameter's shape.
    as_weights = {name: torch.full_like(p, types[name].value) for name, p in side.module.named_parameters()}
    mapped, _ = side.from_torch(side.module.state_dict() | as_weights)
    expected = jax.tree.map(lambda leaf: float(leaf.reshape(-1)[0]), mapped)
    assert expected == jax.tree.map(lambda kind: float(kind.value), side.jax_program.parameter_types)


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_output_layer_is_named(name):
    side = side_of(name)
    params, _ = shapes_of(name)
    assert side.torch_program.output_parameters <= {
        parameter for parameter, _ in side.module.named_parameters()
    }
    assert side.jax_program.output_parameters <= set(params)
    outputs = sum(
        dict(side.module.named_parameters())[n].numel() for n in side.torch_program.output_parameters
    )
    assert outputs == sum(
        leaf.size for n in side.jax_program.output_parameters for leaf in jax.tree.leaves(params[n])
    )


@pytest.mark.parametrize("name", workloads(SUITES["algoperf"]))
def test_initial_weights_have_the_same_distribution(name):
    """Per tensor: the standard deviations agree as far as their sizes let one tell, and so do constants."""
    side = side_of(name)
    torch.manual_seed(1)
    ours, _ = side.jax_tree(side.torch_program.module())
    theirs, _ = jax.jit(side.jax_program.init)(RNG)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if a.size == 1 and a != b:
            continue  # one random number says nothing
        if a.std() == 0:
            np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))
        else:
            # The standard error of a standard deviation is s / sqrt(2 n); twice, for two of them, times 4.
            assert abs(np.log(a.std() / b.std())) < 4 / np.sqrt(a.size), jax.tree_util.keystr(path)
            assert abs(a.mean() - b.mean()) < 6 * a.std() / np.sqrt(a.size), jax.tree_util.keystr(path)
            assert abs(np.abs(a).max() / a.std() - np.abs(b).max() / b.std()) < 2.0, jax.tree_util.keystr(
                path
            )
