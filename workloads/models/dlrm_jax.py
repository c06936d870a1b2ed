"""Click prediction in Flax; see `dlrm.py`.

Shapes: B batch, C categorical feature, F vector (the bottom's output and C embeddings), E embedding, P pair of F.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from timetrial.engine.spec import ParameterType
from timetrial.workloads.losses_jax import click_score, sigmoid_cross_entropy
from timetrial.workloads.models.dlrm import DLRM, LAYER_NORM_EPSILON, DLRMResNet
from timetrial.workloads.models.dropout_jax import Dropout

BOTTOM_KERNEL = nn.initializers.glorot_uniform()
# Normal(0, sqrt(2 / (fan-in + fan-out))); Flax's own `glorot_normal` is truncated.
TOP_KERNEL = nn.initializers.variance_scaling(1.0, "fan_avg", "normal")


def dense(features: int, kernel_init: nn.initializers.Initializer) -> nn.Dense:
    """A layer whose biases are Normal(0, sqrt(1 / fan-out))."""
    return nn.Dense(features, kernel_init=kernel_init, bias_init=nn.initializers.normal(features**-0.5))


def layer_norm() -> nn.LayerNorm:
    """Layer normalisation over the last axis."""
    # E[x^2] - E[x]^2 loses digits that torch keeps.
    return nn.LayerNorm(LAYER_NORM_EPSILON, use_fast_variance=False)


def embedding_table(module: nn.Module, config: DLRM | DLRMResNet) -> Array:
    """The table (rows, E), a parameter of `module`."""
    shape = (config.table_rows, config.embedding_width)
    table: Array = module.param(
        "embedding_table", nn.initializers.uniform(config.embedding_bound), shape, jnp.float32
    )
    return table


def embeddings(ids_BC: Array, table: Array) -> Array:
    """Rows (B, C, E) of ids that arrive as floats; float32 has rounded those above 2**24, as AlgoPerf does."""
    rows_BC = ids_BC.astype(jnp.int32) % len(table)
    return table.at[rows_BC].get(mode="promise_in_bounds")


class Network(nn.Module):
    """Inputs (B, dense features, then C ids) to logits (B, 1)."""

    config: DLRM

    @nn.compact
    def __call__(self, inputs: Array, *, train: bool, dropout_rate: float | Array) -> Array:
        config = self.config

        def normalised(x: Array) -> Array:
            return layer_norm()(x) if config.layer_norm else x

        bottom_BE = inputs[:, : config.num_dense]
        for width in config.bottom_widths:
            bottom_BE = normalised(nn.relu(dense(width, BOTTOM_KERNEL)(bottom_BE)))
        table = embedding_table(self, config)
        embeddings_BCE = normalised(embeddings(inputs[:, config.num_dense :], table))
        vectors_BFE = jnp.concatenate((bottom_BE[:, None], embeddings_BCE), 1)
        products_BFF = jnp.einsum("BFE,BGE->BFG", vectors_BFE, vectors_BFE)
        first, second = np.triu_indices(1 + config.num_categorical)
        products_BP = products_BFF.at[:, first, second].get(
            mode="promise_in_bounds", indices_are_sorted=True, unique_indices=True
        )
        x = jnp.concatenate((bottom_BE, products_BP), 1)
        for width in config.top_widths:
            x = normalised(nn.relu(dense(width, TOP_KERNEL)(x)))
        x = Dropout()(x, dropout_rate, train=train)
        return dense(1, TOP_KERNEL)(x)


class ResidualNetwork(nn.Module):
    """Inputs (B, dense features, then C ids) to logits (B, 1)."""

    config: DLRMResNet

    @nn.compact
    def __call__(self, inputs: Array, *, train: bool, dropout_rate: float | Array) -> Array:
        config = self.config
        x = nn.relu(dense(config.width, BOTTOM_KERNEL)(inputs[:, : config.num_dense]))
        for _ in range(config.bottom_layers - 1):
            x = x + nn.relu(dense(config.width, BOTTOM_KERNEL)(x))
        embeddings_BCE = embeddings(inputs[:, config.num_dense :], embedding_table(self, config))
        x = jnp.concatenate((x, embeddings_BCE.reshape(len(x), -1)), 1)
        x = nn.relu(dense(config.width, TOP_KERNEL)(x))
        for _ in range(config.top_layers - 2):
            x = x + nn.relu(dense(config.width, TOP_KERNEL)(x))
        last = nn.relu(dense(config.width, TOP_KERNEL)(x))
        x = x + Dropout()(last, dropout_rate, train=train)
        return dense(1, TOP_KERNEL)(x)


def _type_of(path: tuple[Any, ...], leaf: Any) -> ParameterType:
    if path[0].key == "embedding_table":
        return ParameterType.EMBEDDING
    module, name = path[0].key, path[1].key
    if module.startswith("LayerNorm"):
        return ParameterType.LAYER_NORM_SCALE if name == "scale" else ParameterType.LAYER_NORM_BIAS
    return ParameterType.WEIGHT if name == "kernel" else ParameterType.BIAS


def from_torch(state_dict: Mapping[str, Any]) -> tuple[Any, None]:
    """Parameters (there is no model state) from the torch module's state dict, each weight mapped once.

    Both frameworks count layers in the order of the forward pass, which is that of the state dict.
    """
    source = {name: np.asarray(tensor) for name, tensor in state_dict.items()}
    params: dict[str, Any] = {"embedding_table": source["embedding_table"]}
    counts = {"Dense": 0, "LayerNorm": 0}
    for name in (name for name in source if name.endswith(".weight")):
        weight, bias = source[name], source[name.removesuffix("weight") + "bias"]
        kind, leaf = ("Dense", "kernel") if weight.ndim == 2 else ("LayerNorm", "scale")
        params[f"{kind}_{counts[kind]}"] = {leaf: weight.T, "bias": bias}
        counts[kind] += 1
    return jax.tree.map(jnp.asarray, params), None


class Program:
    """The JaxProgram of either network. There is no model state."""

    loss = staticmethod(sigmoid_cross_entropy)
    score = staticmethod(click_score)
    from_torch = staticmethod(from_torch)

    def __init__(self, config: DLRM | DLRMResNet) -> None:
        self.config = config
        self.module = Network(config) if isinstance(config, DLRM) else ResidualNetwork(config)
        params, _ = jax.eval_shape(self.init, np.zeros(2, np.uint32))
        self.parameter_types: Mapping[str, Any] = jax.tree_util.tree_map_with_path(_type_of, params)
        num_layers = sum(name.startswith("Dense") for name in params)
        self.output_parameters = frozenset({f"Dense_{num_layers - 1}"})

    def init(self, rng: Array) -> tuple[Any, None]:
        inputs = jnp.zeros((1, self.config.num_dense + self.config.num_categorical), jnp.float32)
        initialise = jax.jit(partial(self.module.init, train=False, dropout_rate=0.0))
        return initialise(rng, inputs)["params"], None

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
        """There is no batch normalisation in these models: its arguments are ignored."""
        logits = self.module.apply(
            {"params": params},
            batch["inputs"],
            train=train,
            dropout_rate=dropout_rate,
            rngs={"dropout": rng},
        )
        return jnp.asarray(logits), None


def program(config: DLRM | DLRMResNet) -> Program:
    """The program of this configuration."""
    return Program(config)
