"""The click models against a forward pass written out in NumPy float64, AlgoPerf's parameters and distributions."""

import copy
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from scipy import stats
from workload_batches import random_batch

from timetrial.engine.spec import ParameterType
from timetrial.workloads.models import dlrm_jax, dlrm_torch
from timetrial.workloads.models.dlrm import DLRM, DLRMResNet

FULL = {
    "criteo1tb": DLRM(),
    "criteo1tb_layernorm": DLRM(layer_norm=True),
    "criteo1tb_embed_init": DLRM(embedding_scale=1.0),
    "criteo1tb_resnet": DLRMResNet(),
}
# AlgoPerf v0.6, criteo1tb in JAX.
NUM_PARAMETERS = {
    "criteo1tb": 539_267_457,
    "criteo1tb_layernorm": 539_275_137,
    "criteo1tb_embed_init": 539_267_457,
    "criteo1tb_resnet": 538_121_473,
}
BASE_TREE = {
    "Dense_0/bias": (512,),
    "Dense_0/kernel": (13, 512),
    "Dense_1/bias": (256,),
    "Dense_1/kernel": (512, 256),
    "Dense_2/bias": (128,),
    "Dense_2/kernel": (256, 128),
    "Dense_3/bias": (1024,),
    "Dense_3/kernel": (506, 1024),
    "Dense_4/bias": (1024,),
    "Dense_4/kernel": (1024, 1024),
    "Dense_5/bias": (512,),
    "Dense_5/kernel": (1024, 512),
    "Dense_6/bias": (256,),
    "Dense_6/kernel": (512, 256),
    "Dense_7/bias": (1,),
    "Dense_7/kernel": (256, 1),
    "embedding_table": (4_194_304, 128),
}
LAYER_NORM_WIDTHS = (512, 256, 128, 128, 1024, 1024, 512, 256)

TINY = DLRM(
    num_dense=4,
    num_categorical=3,
    table_rows=50,
    embedding_width=6,
    bottom_widths=(7, 6),
    top_widths=(9, 8, 5),
)
VARIANTS = {
    "base": TINY,
    "layernorm": replace(TINY, layer_norm=True),
    "embed_init": replace(TINY, embedding_scale=1.0),
    "resnet": DLRMResNet(num_dense=4, num_categorical=3, table_rows=50, embedding_width=6, width=5),
}
# Layers large enough for statistics, and no two of one shape.
WIDE = DLRM(
    num_dense=40,
    num_categorical=20,
    table_rows=2500,
    embedding_width=64,
    bottom_widths=(300, 64),
    top_widths=(500, 200),
)
KEY = np.array([0, 1], np.uint32)


def flat(tree):
    """Shapes (or whatever the leaves are) by their path, as AlgoPerf's names are written here."""
    return {
        "/".join(entry.key for entry in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def jax_shapes(config):
    params, state = jax.eval_shape(dlrm_jax.program(config).init, KEY)
    assert state is None
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}
    return {name: leaf.shape for name, leaf in flat(params).items()}


def torch_shapes(config):
    with torch.device("meta"):
        module = dlrm_torch.program(config).module()
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}


def torch_logits(program, module, batch, dropout_rate=0.0):
    tensors = {key: torch.from_numpy(array) for key, array in batch.items()}
    return program.logits(module, tensors, dropout_rate=dropout_rate)


def jax_logits(program, params, batch, *, train=False, rng=KEY, dropout_rate=0.0):
    logits, state = program.logits(
        params,
        None,
        batch,
        train=train,
        update_batch_norm=train,
        use_running_average_bn=not train,
        rng=rng,
        dropout_rate=dropout_rate,
    )
    assert state is None
    return logits


def scrambled(config):
    """The torch module in float64 with weights all of which matter; its state as NumPy arrays."""
    torch.manual_seed(0)
    module = dlrm_torch.program(config).module().double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return module, {name: tensor.numpy() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("name", FULL)
def test_the_number_of_parameters_is_algoperfs(name):
    for shapes in (torch_shapes(FULL[name]), jax_shapes(FULL[name])):
        assert sum(int(np.prod(shape)) for shape in shapes.values()) == NUM_PARAMETERS[name]


def test_the_parameters_are_algoperfs():
    assert jax_shapes(FULL["criteo1tb"]) == BASE_TREE == jax_shapes(FULL["criteo1tb_embed_init"])
    norms = {
        f"LayerNorm_{i}/{leaf}": (width,)
        for i, width in enumerate(LAYER_NORM_WIDTHS)
        for leaf in ("scale", "bias")
    }
    assert jax_shapes(FULL["criteo1tb_layernorm"]) == BASE_TREE | norms
    resnet = jax_shapes(FULL["criteo1tb_resnet"])
    assert resnet.keys() == BASE_TREE.keys()
    kernels = [resnet[f"Dense_{i}/kernel"] for i in range(8)]
    assert kernels == [(13, 256), *[(256, 256)] * 2, (3584, 256), *[(256, 256)] * 3, (256, 1)]


def test_torch_names_are_algoperfs_but_for_one_table():
    names = {name.rpartition(".")[0] for name in torch_shapes(FULL["criteo1tb"])}
    linear = {f"bot_mlp.{i}" for i in (0, 2, 4)} | {f"top_mlp.{i}" for i in (0, 2, 4, 6, 9)}
    assert names - {""} == linear
    names = {name.rpartition(".")[0] for name in torch_shapes(FULL["criteo1tb_layernorm"])}
    assert names - {""} == {
        "embed_ln",
        *(f"bot_mlp.{i}" for i in (0, 2, 3, 5, 6, 8)),
        *(f"top_mlp.{i}" for i in (0, 2, 3, 5, 6, 8, 9, 11, 13)),
    }
    assert torch_shapes(FULL["criteo1tb"])["embedding_table"] == BASE_TREE["embedding_table"]


@pytest.mark.parametrize("name", FULL)
def test_every_kind_of_parameter_is_declared(name):
    layer_norms = 8 if name == "criteo1tb_layernorm" else 0
    for program in (dlrm_torch.program(FULL[name]), dlrm_jax.program(FULL[name])):
        kinds = jax.tree.leaves(program.parameter_types)
        assert {kind: kinds.count(kind) for kind in set(kinds)} == {
            kind: count
            for kind, count in (
                (ParameterType.EMBEDDING, 1),
                (ParameterType.WEIGHT, 8),
                (ParameterType.BIAS, 8),
                (ParameterType.LAYER_NORM_SCALE, layer_norms),
                (ParameterType.LAYER_NORM_BIAS, layer_norms),
            )
            if count
        }


@pytest.mark.parametrize("name", FULL)
def test_the_output_layer_is_the_last_one(name):
    output = {"criteo1tb_layernorm": "top_mlp.13", "criteo1tb_resnet": "top_mlp.4"}.get(name, "top_mlp.9")
    program = dlrm_torch.program(FULL[name])
    assert program.output_parameters == {f"{output}.weight", f"{output}.bias"}
    assert torch_shapes(FULL[name])[f"{output}.weight"] == (1, 256)
    assert dlrm_jax.program(FULL[name]).output_parameters == {"Dense_7"}


def linear(x, w, name):
    return w[f"{name}.weight"] @ x + w[f"{name}.bias"]


def layer_norm(x, w, name):
    return (x - x.mean()) / np.sqrt(x.var() + 1e-6) * w[f"{name}.weight"] + w[f"{name}.bias"]


def relu(x):
    return np.maximum(x, 0)


def dlrm(row, w, config):
    """One example's logit; a layer's name says where it stands among linear, ReLU and, if any, norm."""
    step = 3 if config.layer_norm else 2

    def perceptron(x, name, depth):
        for i in range(0, step * depth, step):
            x = relu(linear(x, w, f"{name}.{i}"))
            x = layer_norm(x, w, f"{name}.{i + 2}") if config.layer_norm else x
        return x

    bottom = perceptron(row[: config.num_dense], "bot_mlp", len(config.bottom_widths))
    vectors = [bottom]
    for number in row[config.num_dense :]:
        vector = w["embedding_table"][int(number) % config.table_rows]
        vectors.append(layer_norm(vector, w, "embed_ln") if config.layer_norm else vector)
    products = []
    for i in range(len(vectors)):
        for j in range(i, len(vectors)):
            products.append(sum(a * b for a, b in zip(vectors[i], vectors[j], strict=True)))
    top = perceptron(np.array([*bottom, *products]), "top_mlp", len(config.top_widths))
    return linear(top, w, f"top_mlp.{step * len(config.top_widths) + 1}")


def residual(row, w, config):
    x = relu(linear(row[: config.num_dense], w, "bot_mlp.0"))
    for i in range(1, config.bottom_layers):
        x = x + relu(linear(x, w, f"bot_mlp.{i}"))
    rows = [w["embedding_table"][int(number) % config.table_rows] for number in row[config.num_dense :]]
    x = relu(linear(np.concatenate([x, *rows]), w, "top_mlp.0"))
    for i in range(1, config.top_layers):
        x = x + relu(linear(x, w, f"top_mlp.{i}"))
    return linear(x, w, f"top_mlp.{config.top_layers}")


@pytest.mark.parametrize("name", VARIANTS)
def test_both_frameworks_agree_with_numpy(name):
    config = VARIANTS[name]
    module, weights = scrambled(config)
    batch = {key: array.astype(np.float64) for key, array in random_batch(config, 6).items()}
    forward = residual if isinstance(config, DLRMResNet) else dlrm
    wanted = np.stack([forward(row, weights, config) for row in batch["inputs"]])
    assert wanted.shape == (6, 1) and wanted.std() > 0.1
    ours = torch_logits(dlrm_torch.program(config), module, batch).detach()
    np.testing.assert_allclose(ours, wanted, rtol=1e-10, atol=1e-10)
    with jax.enable_x64(True):
        params, _ = dlrm_jax.from_torch(module.state_dict())
        ours = jax_logits(dlrm_jax.program(config), params, batch)
        np.testing.assert_allclose(ours, wanted, rtol=1e-10, atol=1e-10)


def test_float32_rounds_an_id_before_the_modulo():
    """What column 0 hashes `05db9164` to lies between two float32 numbers; AlgoPerf looks up the lower one."""
    ids, rows = np.array([[23_230_533, 16_777_215, 4_194_304, 7]], np.float32), 4_194_304
    wanted = [23_230_532 % rows, 16_777_215 % rows, 0, 7]
    assert wanted[0] == 2_259_012
    looked_up = dlrm_torch.embeddings(torch.from_numpy(ids), torch.arange(rows, dtype=torch.float32)[:, None])
    assert looked_up.flatten().tolist() == wanted
    looked_up = dlrm_jax.embeddings(jnp.asarray(ids), jnp.arange(rows, dtype=jnp.float32)[:, None])
    assert looked_up.reshape(-1).tolist() == wanted


def test_gradients_of_repeated_ids_add_up():
    """Rows that no id names have none; a row's is the sum over all that name it, in both frameworks."""
    ids = np.array([[3, 3, 53], [9, 0, 3]], np.float32)  # 53 is row 3 of 50
    factors = np.arange(6, dtype=np.float32).reshape(2, 3, 1) + 1
    wanted = np.zeros((50, 4), np.float32)
    wanted[3], wanted[9], wanted[0] = 1 + 2 + 3 + 6, 4, 5
    table = torch.zeros(50, 4, requires_grad=True)
    (dlrm_torch.embeddings(torch.from_numpy(ids), table) * torch.from_numpy(factors)).sum().backward()
    np.testing.assert_array_equal(table.grad, wanted)

    def weighted_sum(table):
        return (dlrm_jax.embeddings(jnp.asarray(ids), table) * factors).sum()

    np.testing.assert_array_equal(jax.grad(weighted_sum)(jnp.zeros((50, 4))), wanted)


def initial_parameters(config, framework):
    """One initialisation, in JAX's naming."""
    if framework == "jax":
        return flat(dlrm_jax.program(config).init(KEY)[0])
    torch.manual_seed(0)
    return flat(dlrm_jax.from_torch(dlrm_torch.program(config).module().state_dict())[0])


def assert_distributed(values, distribution, name):
    """Kolmogorov-Smirnov; with fixed seeds, a p-value this small means another distribution."""
    p = stats.kstest(np.asarray(values, np.float64).ravel(), distribution.cdf).pvalue
    assert p > 1e-6, f"{name}: {p}"


@pytest.mark.parametrize("framework", ["torch", "jax"])
@pytest.mark.parametrize("config", [WIDE, replace(WIDE, embedding_scale=1.0), DLRMResNet(table_rows=2500)])
def test_initial_distributions_are_algoperfs(config, framework):
    values = initial_parameters(config, framework)
    table = values.pop("embedding_table")
    bound = 1.0 if getattr(config, "embedding_scale", None) else 1 / 50
    assert table.min() >= 0 and table.max() <= bound
    assert_distributed(table, stats.uniform(0, bound), "embedding_table")
    bottom_layers = 2 if isinstance(config, DLRM) else config.bottom_layers
    for name, value in values.items():
        layer, leaf = name.split("/")
        if leaf == "bias":
            assert_distributed(value, stats.norm(0, len(value) ** -0.5), name)
        elif int(layer.removeprefix("Dense_")) < bottom_layers:
            bound = np.sqrt(6 / sum(value.shape))
            assert np.abs(value).max() <= bound
            assert_distributed(value, stats.uniform(-bound, 2 * bound), name)
        else:
            assert_distributed(value, stats.norm(0, np.sqrt(2 / sum(value.shape))), name)


def test_layer_norms_begin_as_the_identity():
    for framework in ("torch", "jax"):
        values = initial_parameters(VARIANTS["layernorm"], framework)
        norms = {name: value for name, value in values.items() if name.startswith("LayerNorm")}
        assert len(norms) == 12
        assert all((value == (1 if name.endswith("scale") else 0)).all() for name, value in norms.items())


@pytest.mark.parametrize("name", ["base", "layernorm", "resnet"])
def test_torch_drops_when_asked(name):
    program, module = dlrm_torch.program(VARIANTS[name]), scrambled(VARIANTS[name])[0].float().train()
    batch = random_batch(VARIANTS[name], 64)
    kept = torch_logits(program, module, batch)
    torch.testing.assert_close(kept, torch_logits(program, module, batch))
    assert (torch_logits(program, module, batch, 0.5) - kept).abs().max() > 1e-2
    torch.testing.assert_close(torch_logits(program, module.eval(), batch, 0.5), kept)


@pytest.mark.parametrize("name", ["base", "layernorm", "resnet"])
def test_jax_drops_when_asked_and_at_a_traced_rate(name):
    program = dlrm_jax.program(VARIANTS[name])
    params, _ = dlrm_jax.from_torch(scrambled(VARIANTS[name])[0].float().state_dict())
    batch = random_batch(VARIANTS[name], 64)
    traces = []

    @partial(jax.jit, static_argnums=0)
    def logits(train, rate, rng):
        traces.append(train)
        return jax_logits(program, params, batch, train=train, rng=rng, dropout_rate=rate)

    kept = logits(True, 0.0, KEY)
    assert jnp.abs(logits(True, 0.5, KEY) - kept).max() > 1e-2
    assert (logits(True, 0.5, KEY) != logits(True, 0.5, KEY + 1)).any()
    assert traces == [True]
    np.testing.assert_allclose(logits(False, 0.5, KEY), kept, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["base", "layernorm", "resnet"])
def test_everything_dropped_leaves_what_dropout_does_not_reach(name):
    """At rate 1 the last hidden layer counts for nothing: logits are the bias, or what the shortcuts carry."""
    config = VARIANTS[name]
    program, (module, weights) = dlrm_torch.program(config), scrambled(config)
    batch = {key: array.astype(np.float64) for key, array in random_batch(config, 6).items()}
    dropped = torch_logits(program, module.train(), batch, 1.0).detach()
    if name == "resnet":
        without_last = dict(weights)
        last = f"top_mlp.{config.top_layers - 1}"
        without_last |= {
            f"{last}.{leaf}": np.zeros_like(weights[f"{last}.{leaf}"]) for leaf in ("weight", "bias")
        }
        wanted = np.stack([residual(row, without_last, config) for row in batch["inputs"]])
    else:
        (bias,) = (weights[name] for name in program.output_parameters if name.endswith("bias"))
        wanted = np.broadcast_to(bias, (6, 1))
    np.testing.assert_allclose(dropped, wanted, rtol=1e-10, atol=1e-10)
    with jax.enable_x64(True):
        params, _ = dlrm_jax.from_torch(module.state_dict())
        dropped = jax_logits(dlrm_jax.program(config), params, batch, train=True, dropout_rate=1.0)
        np.testing.assert_allclose(dropped, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", VARIANTS)
def test_torch_compiles_whole(name):
    program = dlrm_torch.program(VARIANTS[name])
    batch = {key: torch.from_numpy(array) for key, array in random_batch(VARIANTS[name], 8).items()}
    eager = program.module().train()
    module = copy.deepcopy(eager)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for network in (eager, compiled):
        logits = program.logits(network, batch, dropout_rate=0.0)
        program.loss(batch["targets"], logits, None, 0.0)["summed"].backward()
    for (path, ours), theirs in zip(eager.named_parameters(), module.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5, msg=path)
    torch._dynamo.reset()


def test_bottom_and_embeddings_must_be_equally_wide():
    with pytest.raises(ValueError, match=r"\(512, 256, 128\).* 64"):
        DLRM(embedding_width=64)
