"""A perceptron with one hidden layer in Flax; see `perceptron.py`."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from timetrial.engine.spec import ParameterType
from timetrial.workloads.losses_jax import classification_score, softmax_cross_entropy
from timetrial.workloads.models.perceptron import Perceptron


class Network(nn.Module):
    """Images (batch, ...) to logits (batch, classes); weights LeCun-normal and biases zero, as Flax has them."""

    config: Perceptron

    @nn.compact
    def __call__(self, images: Array) -> Array:
        x = nn.Dense(self.config.hidden)(images.reshape(len(images), -1))
        return nn.Dense(self.config.num_classes)(nn.sigmoid(x))


def from_torch(state_dict: Mapping[str, Any]) -> tuple[Any, None]:
    """Parameters from the torch module's state dict, each weight mapped once; there is no model state."""
    source = {name: np.asarray(tensor) for name, tensor in state_dict.items()}
    params = {
        f"Dense_{i}": {"kernel": source[f"net.{name}.weight"].T, "bias": source[f"net.{name}.bias"]}
        for i, name in enumerate(("layer1", "layer2"))
    }
    return jax.tree.map(jnp.asarray, params), None


class Program:
    """The JaxProgram of a perceptron. There is no model state."""

    output_parameters = frozenset({"Dense_1"})
    parameter_types: Mapping[str, Any] = {
        name: {"kernel": ParameterType.WEIGHT, "bias": ParameterType.BIAS} for name in ("Dense_0", "Dense_1")
    }
    loss = staticmethod(softmax_cross_entropy)
    score = staticmethod(classification_score)
    from_torch = staticmethod(from_torch)

    def __init__(self, config: Perceptron) -> None:
        self.config = config
        self.module = Network(config)

    def init(self, rng: Array) -> tuple[Any, None]:
        images = jnp.zeros((1, self.config.num_features), jnp.float32)
        return dict(jax.jit(self.module.init)(rng, images))["params"], None

    def logits(
        self,
        params: Any,
        model_state: None,
        batch: Mapping[str, Array],
        *,
        train: bool,
        update_batch_norm: bool,
        use_running_average_bn: bool,
        rng: Array,
        dropout_rate: float | Array,
    ) -> tuple[Array, None]:
        """There is neither dropout nor batch normalisation in this model: their arguments are ignored."""
        logits = self.module.apply({"params": params}, batch["inputs"])
        return jnp.asarray(logits), None


def program(config: Perceptron) -> Program:
    """The program of this configuration."""
    return Program(config)
