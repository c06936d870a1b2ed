"""The graph network against one that goes through graphs, nodes and edges one at a time, in float64."""

import copy
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from graph_maker import AVERAGES, made_graphs

from timetrial.data_loading.graph_batches import Budget, collated
from timetrial.data_loading.graphs import Graphs
from timetrial.workloads.graph_losses_jax import masked_sigmoid_cross_entropy as jax_loss
from timetrial.workloads.graph_losses_torch import graph_score, masked_sigmoid_cross_entropy
from timetrial.workloads.models import graph_network_jax, graph_network_torch
from timetrial.workloads.models.graph_network import GraphNetwork

TASKS = 3
SMALL = GraphNetwork(num_tasks=TASKS, latent=6, hidden=(8,), rounds=2)
VARIANTS = {
    "base": SMALL,
    "gelu": replace(SMALL, activation="gelu"),
    "silu": replace(SMALL, activation="silu"),
    "model_size": replace(SMALL, latent=5, hidden=(8, 7)),
}
GRAPHS = made_graphs(12, 2)
KEY = np.array([0, 7], np.uint32)
ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


def batch_of(count=7, budget=8, dtype=np.float32):
    """The first graphs in a batch for `budget` of them."""
    batch = collated(GRAPHS, np.arange(count), Budget.of(budget, AVERAGES))
    return {
        "inputs": Graphs(*(a.astype(dtype) if a.dtype == np.float32 else a for a in batch["inputs"])),
        "targets": batch["targets"].astype(dtype),
        "weights": batch["weights"].astype(dtype),
    }


def as_torch(batch):
    def placed(array):
        tensor = torch.from_numpy(array)
        return tensor.long() if tensor.dtype is torch.int32 else tensor

    inputs = Graphs(*map(placed, batch["inputs"]))
    return {"inputs": inputs, "targets": placed(batch["targets"]), "weights": placed(batch["weights"])}


def scrambled(config):
    """A torch module in float64 whose weights nothing initialises to 0 or 1."""
    torch.manual_seed(0)
    module = graph_network_torch.program(config).module().double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return module


def torch_logits(config, module, batch, rate=0.0):
    return graph_network_torch.program(config).logits(module, as_torch(batch), dropout_rate=rate)


def jax_logits(config, params, batch, *, train=False, rng=KEY, rate=0.0):
    logits, state = graph_network_jax.program(config).logits(
        params,
        None,
        batch,
        train=train,
        update_batch_norm=train,
        use_running_average_bn=not train,
        rng=rng,
        dropout_rate=rate,
    )
    assert state is None
    return logits


def plain_network(graph, params, config):
    """The logits of one graph (node codes, edge codes, senders, receivers), written as the rules are."""
    layers = iter(range(100))

    def dense(x, name):
        return x @ np.asarray(params[name]["kernel"]) + np.asarray(params[name]["bias"])

    def perceptron(x, numbers):
        for number in numbers:
            x = dense(x, f"Dense_{number}")
            norm = params[f"LayerNorm_{number}"]
            x = (x - x.mean()) / np.sqrt(x.var() + 1e-6) * np.asarray(norm["scale"]) + np.asarray(
                norm["bias"]
            )
            x = ACTIVATIONS[config.activation](x)
        return x

    node_codes, edge_codes, senders, receivers = graph
    nodes = [dense(codes.astype(float), "node_embedding") for codes in node_codes]
    edges = [dense(codes.astype(float), "edge_embedding") for codes in edge_codes]
    whole = np.zeros(config.num_tasks)
    width = config.hidden[-1]
    for _ in range(config.rounds):
        of_edge, of_node, of_globals = ([next(layers) for _ in config.hidden] for _ in range(3))
        edges = [
            perceptron(np.concatenate([edge, nodes[s], nodes[r], whole]), of_edge)
            for edge, s, r in zip(edges, senders, receivers, strict=True)
        ]
        new_nodes = []
        for number, node in enumerate(nodes):
            sent = sum((e for e, s in zip(edges, senders, strict=True) if s == number), np.zeros(width))
            received = sum((e for e, r in zip(edges, receivers, strict=True) if r == number), np.zeros(width))
            new_nodes.append(perceptron(np.concatenate([node, sent, received, whole]), of_node))
        nodes = new_nodes
        whole = perceptron(
            np.concatenate([sum(nodes), sum(edges, np.zeros(width)), whole]),
            of_globals,
        )
    return dense(whole, f"Dense_{next(layers)}")


def alone(number):
    graph = GRAPHS.take(np.array([number]))
    return graph.nodes, graph.edges, graph.senders.tolist(), graph.receivers.tolist()


@pytest.mark.parametrize("name", VARIANTS)
def test_both_frameworks_agree_with_a_loop_over_graphs(name):
    config = VARIANTS[name]
    module, batch = scrambled(config), batch_of(dtype=np.float64)
    with jax.enable_x64(True):
        params, _ = graph_network_jax.program(config).from_torch(module.state_dict())
        wanted = np.stack([plain_network(alone(number), params, config) for number in range(7)])
        assert wanted.std(axis=0).min() > 0.04
        found = jax_logits(config, params, batch)
        np.testing.assert_allclose(found[:7], wanted, rtol=1e-10, atol=1e-10)
    found = torch_logits(config, module, batch).detach()
    np.testing.assert_allclose(found[:7], wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_are_equal(name):
    config = VARIANTS[name]
    module, batch = scrambled(config), batch_of(dtype=np.float64)
    with jax.enable_x64(True):
        from_torch = graph_network_jax.program(config).from_torch
        params, _ = from_torch(module.state_dict())

        def mean_loss(params, batch):
            loss = jax_loss(batch["targets"], jax_logits(config, params, batch), batch["weights"], 0.1)
            return loss["summed"] / loss["n_valid_examples"]

        gradient = jax.jit(jax.grad(mean_loss))
        gradients = gradient(params, batch)
        placed = as_torch(batch)
        loss = masked_sigmoid_cross_entropy(
            placed["targets"], torch_logits(config, module, batch), placed["weights"], 0.1
        )
        (loss["summed"] / loss["n_valid_examples"]).backward()
        wanted, _ = from_torch({path: parameter.grad for path, parameter in module.named_parameters()})
        assert jax.tree.structure(wanted) == jax.tree.structure(gradients)
        for ours, theirs in zip(jax.tree.leaves(gradients), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-11)
        first = gradients["Dense_0"]["kernel"]
        assert (first[-TASKS:] == 0).all() and (first[:-TASKS] != 0).any()  # the first globals are zeros


def test_padding_has_no_gradient():
    """Neither the sizes that a batch is padded to nor what the padding holds change a gradient."""
    gradients = []
    for budget, value in ((8, 0.0), (40, 0.0), (8, 5.0)):
        module, batch = scrambled(SMALL), batch_of(budget=budget, dtype=np.float64)
        batch["inputs"].nodes[batch["inputs"].n_node[:7].sum() :] = value
        batch = as_torch(batch)
        logits = graph_network_torch.program(SMALL).logits(module, batch, dropout_rate=0.0)
        masked_sigmoid_cross_entropy(batch["targets"], logits, batch["weights"], 0.0)["summed"].backward()
        gradients.append([parameter.grad for parameter in module.parameters()])
    for other in gradients[1:]:
        torch.testing.assert_close(gradients[0], other, rtol=1e-10, atol=1e-12)


def test_a_graphs_logits_do_not_depend_on_its_company():
    module = scrambled(SMALL)
    together = torch_logits(SMALL, module, batch_of(dtype=np.float64)).detach()
    for count in (1, 4):
        found = torch_logits(SMALL, module, batch_of(count, dtype=np.float64)).detach()
        np.testing.assert_allclose(found[:count], together[:count], rtol=1e-12)
    for field, value in (("nodes", 7.0), ("edges", -3.0)):
        batch = batch_of(dtype=np.float64)
        real = int(getattr(batch["inputs"], f"n_{field[:-1]}")[:7].sum())
        getattr(batch["inputs"], field)[real:] = value  # of the padding
        found = torch_logits(SMALL, module, batch).detach()
        np.testing.assert_array_equal(found[:7], together[:7])


def test_globals_of_the_batch_are_used():
    module, batch = scrambled(SMALL), batch_of(dtype=np.float64)
    before = torch_logits(SMALL, module, batch).detach().numpy()
    batch["inputs"].globals[2] = 1.0
    after = torch_logits(SMALL, module, batch).detach().numpy()
    assert np.flatnonzero(np.abs(after - before).max(axis=1)).tolist() == [2]


@pytest.mark.parametrize(
    ("config", "number", "leaves"),
    [
        (GraphNetwork(), 3_554_176, 66),
        (GraphNetwork(latent=128, hidden=(256, 256), rounds=3), 2_571_648, 78),
    ],
)
def test_full_size_trees_are_algoperfs(config, number, leaves):
    params, _ = jax.eval_shape(graph_network_jax.program(config).init, KEY)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == number
    assert len(jax.tree.leaves(params)) == leaves
    with torch.device("meta"):
        module = graph_network_torch.program(config).module()
    assert sum(parameter.numel() for parameter in module.parameters()) == number
    assert len(list(module.parameters())) == leaves
    layers = 3 * config.rounds * len(config.hidden)
    names = {f"Dense_{i}" for i in range(layers + 1)} | {f"LayerNorm_{i}" for i in range(layers)}
    assert params.keys() == names | {"node_embedding", "edge_embedding"}
    rows = [params[f"Dense_{i}"]["kernel"].shape[0] for i in range(0, layers, len(config.hidden))]
    first = [896, 896, 640] if config.latent == 256 else [512, 768, 640]
    assert rows == first + [1024, 1024, 768] * (config.rounds - 1)
    assert params[f"Dense_{layers}"]["kernel"].shape == (256, 128)


def test_all_inputs_of_a_first_layer_are_initialised_as_one():
    """LeCun-normal by the fan-in of all parts together, in both frameworks."""
    config = replace(SMALL, latent=64, hidden=(128,), rounds=1)
    torch.manual_seed(0)
    module = graph_network_torch.program(config).module()
    params, _ = graph_network_jax.program(config).init(KEY)
    for kernel in (
        module.graph_network[0].update_edge_fn.first.weight.detach().T,
        params["Dense_0"]["kernel"],
    ):
        kernel = np.asarray(kernel)
        for part in np.split(kernel, [64, 128, 192]):
            assert part.std() == pytest.approx(
                (3 * 64 + TASKS) ** -0.5, rel=0.2 if len(part) == TASKS else 0.05
            )
        assert np.abs(kernel).max() <= 2 / 0.8796 * (3 * 64 + TASKS) ** -0.5
    assert not module.decoder.bias.any() and not params["Dense_0"]["bias"].any()


@pytest.mark.parametrize("name", ["base", "model_size"])
def test_torch_drops_when_asked(name):
    config, batch = VARIANTS[name], batch_of(dtype=np.float64)
    module = scrambled(config)
    kept = torch_logits(config, module, batch)
    assert torch.equal(torch_logits(config, module.train(), batch), kept)
    assert (torch_logits(config, module, batch, 0.5) - kept).abs().max() > 1e-2
    # Everything dropped: after the last layer too, so that only the output's bias is left.
    bias = module.decoder.bias.expand(len(kept), -1)
    torch.testing.assert_close(torch_logits(config, module, batch, 1.0), bias)
    assert torch.equal(torch_logits(config, module.eval(), batch, 0.5), kept)


def test_jax_drops_when_asked_and_at_a_traced_rate():
    params, _ = graph_network_jax.program(SMALL).from_torch(scrambled(SMALL).float().state_dict())
    batch = batch_of()
    traces = []

    @partial(jax.jit, static_argnums=0)
    def logits(train, rate, rng):
        traces.append(train)
        return jax_logits(SMALL, params, batch, train=train, rng=rng, rate=rate)

    kept = logits(True, 0.0, KEY)
    assert jnp.abs(logits(True, 0.5, KEY) - kept).max() > 1e-2
    assert (logits(True, 0.5, KEY) != logits(True, 0.5, KEY + 1)).any()
    assert traces == [True]
    np.testing.assert_allclose(logits(False, 0.5, KEY), kept, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["base", "model_size"])
def test_torch_compiles_whole_and_once_for_all_batches(name):
    config = VARIANTS[name]
    program = graph_network_torch.program(config)
    eager = program.module().train()
    module = copy.deepcopy(eager)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    try:
        for count in (7, 3, 0):  # of real graphs
            batch = as_torch(batch_of(count))
            results = []
            for network in (eager, compiled):
                logits = program.logits(network, batch, dropout_rate=0.0)
                results.append(logits)
                program.loss(batch["targets"], logits, batch["weights"], 0.0)["summed"].backward()
            torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
            for (path, ours), theirs in zip(eager.named_parameters(), module.parameters(), strict=True):
                torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4, msg=path)
            torch._dynamo.config.error_on_recompile = True
    finally:
        torch._dynamo.config.error_on_recompile = False
        torch._dynamo.reset()


def losses(labels, logits, mask, smoothing):
    """Both frameworks', which must agree."""
    ours = masked_sigmoid_cross_entropy(*map(torch.from_numpy, (labels, logits, mask)), smoothing)
    with jax.enable_x64(True):
        theirs = jax_loss(*map(jnp.asarray, (labels, logits, mask)), smoothing)
        for key, value in ours.items():
            np.testing.assert_allclose(theirs[key], value, rtol=1e-12)
    return {key: value.numpy() for key, value in ours.items()}


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_is_cross_entropy_over_known_labels(smoothing):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (5, 4))
    labels, mask = rng.integers(0, 2, (2, 5, 4)).astype(float)
    found = losses(labels, logits, mask, smoothing)
    probability = 1 / (1 + np.exp(-logits))
    y = (1 - smoothing) * labels + smoothing / 4
    wanted = -(y * np.log(probability) + (1 - y) * np.log(1 - probability)) * mask
    np.testing.assert_allclose(found["per_example"], wanted.ravel(), rtol=1e-9)
    assert found["summed"] == pytest.approx(wanted.sum()) and found["n_valid_examples"] == mask.sum()


def test_huge_logits_have_a_finite_loss_and_unknown_ones_none():
    logits = np.array([[1e4, -1e4], [1e4, -1e4]])
    found = losses(np.array([[0.0, 1.0], [1.0, 0.0]]), logits, np.ones((2, 2)), 0.0)
    assert found["per_example"].tolist() == [1e4, 1e4, 0, 0]
    unknown = losses(np.zeros((2, 2)), np.full((2, 2), np.inf), np.zeros((2, 2)), 0.0)
    assert unknown["per_example"].tolist() == [0, 0, 0, 0]
    assert unknown["summed"] == unknown["n_valid_examples"] == 0
    everything = masked_sigmoid_cross_entropy(torch.zeros(2, 3), torch.zeros(2, 3), None, 0.0)
    assert everything["n_valid_examples"] == 6 and everything["summed"] == pytest.approx(6 * np.log(2))


def test_the_score_counts_known_labels():
    logits = torch.tensor([[1.0, -1.0, 2.0], [0.5, 3.0, -4.0]])
    batch = {
        "targets": torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
        "weights": torch.tensor([[1.0, 1.0, 1.0], [0.0, 1.0, 0.0]]),
    }
    score = graph_score(batch, logits)
    assert score["correct"] == 3 and score["count"] == 4
    assert torch.equal(score["logits"], logits) and score["targets"] is batch["targets"]
