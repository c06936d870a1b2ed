"""The perceptron of `mnist`: names, initial weights, and its forward pass against NumPy."""

import jax
import numpy as np
import pytest
import torch
from workload_batches import random_batch

from timetrial.engine.spec import ParameterType
from timetrial.workloads.mnist import MNIST
from timetrial.workloads.models import perceptron_jax, perceptron_torch
from timetrial.workloads.models.perceptron import Perceptron

TINY = Perceptron(num_features=784, hidden=3, num_classes=4)
KEY = np.array([0, 5], np.uint32)


@pytest.fixture(scope="module")
def initial():
    """The workload's initial parameters by framework, in JAX's naming, as NumPy arrays."""
    torch.manual_seed(0)
    ours, _ = perceptron_jax.from_torch(perceptron_torch.program(MNIST.model).module().state_dict())
    theirs, state = perceptron_jax.program(MNIST.model).init(KEY)
    assert state is None
    return {"torch": jax.tree.map(np.asarray, ours), "jax": jax.tree.map(np.asarray, theirs)}


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_jax_names_and_shapes(initial, framework):
    assert jax.tree.map(lambda leaf: leaf.shape, initial[framework]) == {
        "Dense_0": {"kernel": (784, 128), "bias": (128,)},
        "Dense_1": {"kernel": (128, 10), "bias": (10,)},
    }
    assert sum(leaf.size for leaf in jax.tree.leaves(initial[framework])) == MNIST.num_parameters == 101_770


def test_torch_names_and_shapes():
    module = perceptron_torch.program(MNIST.model).module()
    assert {name: tuple(parameter.shape) for name, parameter in module.named_parameters()} == {
        "net.layer1.weight": (128, 784),
        "net.layer1.bias": (128,),
        "net.layer2.weight": (10, 128),
        "net.layer2.bias": (10,),
    }


def test_types():
    types = perceptron_torch.program(TINY).parameter_types
    assert list(types.values()) == [ParameterType.WEIGHT, ParameterType.BIAS] * 2
    assert (
        jax.tree.leaves(perceptron_jax.program(TINY).parameter_types)
        == [
            ParameterType.BIAS,
            ParameterType.WEIGHT,
        ]
        * 2
    )


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_weights_begin_lecun_normal_and_biases_at_0(initial, framework):
    for name, fan_in in (("Dense_0", 784), ("Dense_1", 128)):
        kernel, bias = initial[framework][name]["kernel"], initial[framework][name]["bias"]
        assert not bias.any()
        # The standard error of a standard deviation is s / sqrt(2 n); times 4.
        assert kernel.std() * np.sqrt(fan_in) == pytest.approx(1, abs=4 / np.sqrt(2 * kernel.size))
        assert np.abs(kernel).max() <= 2 / np.sqrt(fan_in) / 0.8796


def test_both_agree_with_numpy():
    module = perceptron_torch.program(TINY).module().double()
    batch = random_batch(TINY, 3)
    images = batch["inputs"].astype(np.float64)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    w = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    wanted = np.empty((3, 4))
    for image, out in zip(images, wanted, strict=True):
        pixels = [image[row, column, 0] for row in range(28) for column in range(28)]
        hidden = 1 / (1 + np.exp(-(w["net.layer1.weight"] @ pixels + w["net.layer1.bias"])))
        out[:] = w["net.layer2.weight"] @ hidden + w["net.layer2.bias"]
    program = perceptron_torch.program(TINY)
    logits = program.logits(module, {"inputs": torch.from_numpy(images)}, dropout_rate=0.0)
    np.testing.assert_allclose(logits.detach(), wanted, rtol=1e-12)
    with jax.enable_x64(True):
        params, _ = perceptron_jax.from_torch(module.state_dict())
        logits, state = perceptron_jax.program(TINY).logits(
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
    np.testing.assert_allclose(logits, wanted, rtol=1e-12)


def test_the_torch_module_compiles_whole():
    program = perceptron_torch.program(TINY)
    module = program.module()
    batch = {"inputs": torch.from_numpy(random_batch(TINY, 2)["inputs"])}
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        program.logits(compiled, batch, dropout_rate=0.0), program.logits(module, batch, dropout_rate=0.0)
    )
    torch._dynamo.reset()
