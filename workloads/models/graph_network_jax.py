"""The graph network in Flax; see `graph_network.py`.

Shapes: N node, E edge, G graph, D width of anything.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from timetrial.data_loading.graphs import Graphs
from timetrial.engine.spec import ParameterType
from timetrial.workloads.graph_losses_jax import graph_score, masked_sigmoid_cross_entropy
from timetrial.workloads.models.dropout_jax import Dropout
from timetrial.workloads.models.graph_network import LAYER_NORM_EPSILON, GraphNetwork

ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "relu": nn.relu,
    "gelu": partial(nn.gelu, approximate=True),
    "silu": nn.silu,
}
EMBEDDINGS = {
    "node_embedding": "node_embedder",
    "edge_embedding": "edge_embedder",
}  # and their names in torch


class SplitDense(nn.Module):
    """A Dense layer of inputs in several parts, whose products the caller adds up when they have equal rows."""

    input_widths: tuple[int, ...]
    features: int

    @nn.compact
    def __call__(self, parts: Sequence[Array]) -> tuple[list[Array], Array]:
        """The product of each part, and the bias that is to be added to their sum."""
        shape = (sum(self.input_widths), self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias: Array = self.param("bias", nn.initializers.zeros, (self.features,))
        kernels = jnp.split(kernel, np.cumsum(self.input_widths)[:-1])
        return [part @ kernel for part, kernel in zip(parts, kernels, strict=True)], bias


def rows(array: Array, indices: Array, *, are_sorted: bool = False) -> Array:
    """The rows of these numbers, which are all below the length."""
    return array.at[indices].get(mode="promise_in_bounds", indices_are_sorted=are_sorted)


class Network(nn.Module):
    """A batch of graphs to logits (G, tasks)."""

    config: GraphNetwork

    @nn.compact
    def __call__(self, graphs: Graphs, *, train: bool, dropout_rate: float | Array) -> Array:
        config = self.config
        count = iter(range(3 * config.rounds * len(config.hidden)))

        def updated(parts: Sequence[Array], widths: tuple[int, ...], added: Callable[..., Array]) -> Array:
            """A perceptron; `added` brings the products of its parts together."""
            for layer, width in enumerate(config.hidden):
                number = next(count)
                if layer == 0:
                    products, bias = SplitDense(widths, width, name=f"Dense_{number}")(parts)
                    x = added(*products) + bias
                else:
                    x = nn.Dense(width, name=f"Dense_{number}")(x)
                # E[x^2] - E[x]^2 loses digits that torch keeps.
                norm = nn.LayerNorm(LAYER_NORM_EPSILON, use_fast_variance=False, name=f"LayerNorm_{number}")
                x = Dropout()(ACTIVATIONS[config.activation](norm(x)), dropout_rate, train=train)
            return x

        nodes_ND = nn.Dense(config.latent, name="node_embedding")(graphs.nodes)
        edges_ED = nn.Dense(config.latent, name="edge_embedding")(graphs.edges)
        globals_GD = graphs.globals
        num_nodes, num_graphs = len(nodes_ND), len(globals_GD)
        graph_N = jnp.repeat(jnp.arange(num_graphs), graphs.n_node, total_repeat_length=num_nodes)
        of_edges = partial(jax.ops.segment_sum, num_segments=num_nodes, mode="promise_in_bounds")
        of_nodes = partial(
            jax.ops.segment_sum,
            segment_ids=graph_N,
            num_segments=num_graphs,
            indices_are_sorted=True,
            mode="promise_in_bounds",
        )
        of_graph = partial(rows, indices=graph_N, are_sorted=True)

        def at_ends(edge: Array, sender: Array, receiver: Array, graph: Array) -> Array:
            sender = sender + of_graph(graph)  # an edge is in its sender's graph
            return edge + rows(sender, graphs.senders) + rows(receiver, graphs.receivers)

        def at_nodes(node: Array, sent: Array, received: Array, graph: Array) -> Array:
            return node + sent + received + of_graph(graph)

        def at_graphs(node: Array, sent: Array, graph: Array) -> Array:
            return node + sent + graph

        for edge_widths, node_widths, global_widths in config.input_widths():
            edges_ED = updated((edges_ED, nodes_ND, nodes_ND, globals_GD), edge_widths, at_ends)
            sent_ND, received_ND = (of_edges(edges_ED, ids) for ids in (graphs.senders, graphs.receivers))
            nodes_ND = updated((nodes_ND, sent_ND, received_ND, globals_GD), node_widths, at_nodes)
            sums = (of_nodes(nodes_ND), of_nodes(sent_ND), globals_GD)
            globals_GD = updated(sums, global_widths, at_graphs)
        return nn.Dense(config.num_tasks, name=output_layer(config))(globals_GD)


def output_layer(config: GraphNetwork) -> str:
    """The name of the last layer, which follows all those of the perceptrons."""
    return f"Dense_{3 * config.rounds * len(config.hidden)}"


def _type_of(path: tuple[Any, ...], leaf: Any) -> ParameterType:
    del leaf
    module, name = path[0].key, path[1].key
    if module.startswith("LayerNorm"):
        return ParameterType.LAYER_NORM_SCALE if name == "scale" else ParameterType.LAYER_NORM_BIAS
    if name == "bias":
        return ParameterType.BIAS
    return ParameterType.EMBEDDING if module in EMBEDDINGS else ParameterType.WEIGHT


class Program:
    """The JaxProgram of a graph network. There is no model state."""

    loss = staticmethod(masked_sigmoid_cross_entropy)
    score = staticmethod(graph_score)

    def __init__(self, config: GraphNetwork) -> None:
        self.config = config
        self.network = Network(config)
        params, _ = jax.eval_shape(self.init, np.zeros(2, np.uint32))
        self.parameter_types: Mapping[str, Any] = jax.tree_util.tree_map_with_path(_type_of, params)
        self.output_parameters = frozenset({output_layer(config)})

    def init(self, rng: Array) -> tuple[Any, None]:
        graphs = Graphs(
            nodes=jnp.zeros((1, self.config.node_features), jnp.float32),
            edges=jnp.zeros((1, self.config.edge_features), jnp.float32),
            receivers=jnp.zeros(1, jnp.int32),
            senders=jnp.zeros(1, jnp.int32),
            globals=jnp.zeros((1, self.config.num_tasks), jnp.float32),
            n_node=jnp.ones(1, jnp.int32),
            n_edge=jnp.ones(1, jnp.int32),
        )
        initialise = jax.jit(partial(self.network.init, train=False, dropout_rate=0.0))
        return initialise(rng, graphs)["params"], None

    def logits(
        self,
        params: Any,
        model_state: None,
        batch: Mapping[str, Any],
        *,
        train: bool,
        update_batch_norm: bool,
        use_running_average_bn: bool,
        rng: Array,
        dropout_rate: float | Array,
    ) -> tuple[Array, None]:
        """There is no batch normalisation in this model: its arguments are ignored."""
        logits = self.network.apply(
            {"params": params},
            batch["inputs"],
            train=train,
            dropout_rate=dropout_rate,
            rngs={"dropout": rng},
        )
        return jnp.asarray(logits), None

    def from_torch(self, state_dict: Mapping[str, Any]) -> tuple[Any, None]:
        """Parameters (there is no model state) from the torch module's state dict, each weight mapped once."""
        source = {name: np.asarray(tensor) for name, tensor in state_dict.items()}

        def dense(path: str) -> dict[str, np.ndarray]:
            return {"kernel": source[f"{path}.weight"].T, "bias": source[f"{path}.bias"]}

        params = {name: dense(path) for name, path in EMBEDDINGS.items()}
        number = 0
        for layer in range(self.config.rounds):
            for what in ("edge", "node", "global"):
                for i in range(len(self.config.hidden)):
                    path = f"graph_network.{layer}.update_{what}_fn"
                    norm = f"{path}.norm.{i}"
                    params[f"Dense_{number}"] = dense(f"{path}.dense.{i - 1}" if i else f"{path}.first")
                    params[f"LayerNorm_{number}"] = {
                        "scale": source[f"{norm}.weight"],
                        "bias": source[f"{norm}.bias"],
                    }
                    number += 1
        params[output_layer(self.config)] = dense("decoder")
        return jax.tree.map(jnp.asarray, params), None


def program(config: GraphNetwork) -> Program:
    """The program of this configuration."""
    return Program(config)
