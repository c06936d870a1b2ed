"""A small multilayer perceptron in Flax; see `mlp.py`."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from timetrial.engine.spec import ParameterType
from timetrial.workloads.losses_jax import classification_score, softmax_cross_entropy
from timetrial.workloads.models.dropout_jax import Dropout
from timetrial.workloads.models.mlp import MLP


class Perceptron(nn.Module):
    """x: (batch, features) to logits (batch, classes)."""

    config: MLP

    @nn.compact
    def __call__(
        self, x: Array, *, train: bool, use_running_average_bn: bool, dropout_rate: float | Array
    ) -> Array:
        first, second = self.config.hidden
        x = nn.Dense(first)(x)
        x = nn.BatchNorm(use_running_average=use_running_average_bn, momentum=0.9, use_fast_variance=False)(x)
        x = Dropout()(nn.relu(x), dropout_rate, train=train)
        x = nn.relu(nn.Dense(second)(x))
        x = Dropout()(x, dropout_rate, train=train)
        return nn.Dense(self.config.num_classes)(x)


def from_torch(state_dict: Mapping[str, Any]) -> tuple[Any, Any]:
    """Parameters and model state from the torch module's state dict, each weight mapped once."""
    source = {name: np.asarray(tensor) for name, tensor in state_dict.items()}
    params: dict[str, Any] = {
        f"Dense_{i}": {"kernel": source[f"{name}.weight"].T, "bias": source[f"{name}.bias"]}
        for i, name in enumerate(("fc1", "fc2", "fc3"))
    }
    params["BatchNorm_0"] = {"scale": source["bn1.weight"], "bias": source["bn1.bias"]}
    statistics = {"mean": source["bn1.running_mean"], "var": source["bn1.running_var"]}
    state = {"batch_stats": {"BatchNorm_0": statistics}}
    return jax.tree.map(jnp.asarray, params), jax.tree.map(jnp.asarray, state)


class Program:
    """The JaxProgram of a perceptron."""

    output_parameters = frozenset({"Dense_2"})
    parameter_types: Mapping[str, Any] = {
        "Dense_0": {"kernel": ParameterType.WEIGHT, "bias": ParameterType.BIAS},
        "BatchNorm_0": {"scale": ParameterType.BATCH_NORM_SCALE, "bias": ParameterType.BATCH_NORM_BIAS},
        "Dense_1": {"kernel": ParameterType.WEIGHT, "bias": ParameterType.BIAS},
        "Dense_2": {"kernel": ParameterType.WEIGHT, "bias": ParameterType.BIAS},
    }
    loss = staticmethod(softmax_cross_entropy)
    score = staticmethod(classification_score)
    from_torch = staticmethod(from_torch)

    def __init__(self, config: MLP) -> None:
        self.config = config
        self.module = Perceptron(config)

    def init(self, rng: Array) -> tuple[Any, Any]:
        inputs = jnp.zeros((2, self.config.num_features), jnp.float32)
        initialise = jax.jit(
            partial(self.module.init, train=False, use_running_average_bn=True, dropout_rate=0.0)
        )
        state = dict(initialise(rng, inputs))
        return state.pop("params"), state

    def logits(
        self,
        params: Any,
        model_state: Any,
        batch: Mapping[str, Array],
        *,
        train: bool,
        update_batch_norm: bool,
        use_running_average_bn: bool,
        rng: Array,
        dropout_rate: float | Array,
    ) -> tuple[Array, Any]:
        logits, new_state = self.module.apply(
            {"params": params, **model_state},
            batch["inputs"],
            train=train,
            use_running_average_bn=use_running_average_bn,
            dropout_rate=dropout_rate,
            rngs={"dropout": rng},
            mutable=["batch_stats"],
        )
        return logits, dict(new_state) if update_batch_norm else model_state


def program(config: MLP) -> Program:
    """The program of this configuration."""
    return Program(config)
