"""ogbg: predict in which of 128 biological assays a molecule is active, from its graph, with a graph network.

data    ogbg-molpcba; atoms with 9 and bonds with 3 integer features, used as numbers; most labels are unknown
        350,343 train, 43,793 validation and 43,793 test molecules, split by scaffold
        a batch of b holds at most b molecules, 26 b atoms and 56 b directed edges, which 0.98 to 0.99 of b fill
model   ogbg: linear maps to 256 and five rounds of new edges, nodes and globals, each by one layer of 256 with layer
        normalisation, ReLU and dropout; logits from the globals; 3,554,176 parameters
        ogbg_gelu: GELU (tanh) instead of ReLU; 3,554,176 parameters
        ogbg_silu: SiLU instead of ReLU; 3,554,176 parameters
        ogbg_model_size: maps to 128, three rounds, two layers of 256 each; 2,571,648 parameters
loss    binary cross-entropy, mean over known labels; a label smoothing a moves labels towards a / 128
metric  mean over the assays of the average precision of their known labels, higher is better
target  mean average precisions below, AlgoPerf's
budget  12,011 s, evaluated every 240 s; step_hint 52,000 (at AlgoPerf's batch of 512, 76 epochs)
cost    0.38 GFLOP an average molecule with the gradient (in AlgoPerf's order of operations 0.65). The edges of an
        evaluation batch are 1.9 GB a layer. Untested at full size.
source  AlgoPerf v0.6, ogbg (arXiv 2306.07179). Departures:
        every molecule of a split is evaluated once (on several devices, AlgoPerf leaves out a quarter and more, and
        takes the others twice); every epoch is a permutation (there: a buffer of 32,768)
        on several JAX devices a batch has one budget, and its graphs may lie on any device (there: a budget each)
        the loss is declared as sigmoid's (there: softmax's), the last layer as output (JAX there: Dense_17, which is
        none, or in model_size the last but one), both embeddings' kernels as EMBEDDING, as in its JAX
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from timetrial.data_loading import ogbg
from timetrial.engine.facts import Metric, WorkloadFacts
from timetrial.engine.spec import LossType
from timetrial.workloads.metrics_graph import mean_average_precision
from timetrial.workloads.models.graph_network import GraphNetwork

if TYPE_CHECKING:
    from timetrial.engine.facts import JaxProgram, TorchProgram


def torch_program(model: GraphNetwork) -> "TorchProgram":
    from timetrial.workloads.models import graph_network_torch

    return graph_network_torch.program(model)


def jax_program(model: GraphNetwork) -> "JaxProgram":
    from timetrial.workloads.models import graph_network_jax

    return graph_network_jax.program(model)


OGBG = WorkloadFacts(
    name="ogbg",
    base="ogbg",
    suite="algoperf",
    summary="ogbg-molpcba molecules, graph network",
    num_parameters=3_554_176,
    dataset=ogbg.DATASET,
    loss_type=LossType.SIGMOID_CROSS_ENTROPY,
    metric=Metric(name="mean_average_precision", better="higher"),
    validation_target=0.28098,
    test_target=0.268729,
    num_train_examples=350_343,
    num_eval_train_examples=43_793,
    num_validation_examples=43_793,
    num_test_examples=43_793,
    eval_batch_size=32_768,
    step_hint=52_000,
    max_allowed_runtime_sec=12_011,
    eval_period_time_sec=240,
    default_dropout_rate=0.1,
    model=GraphNetwork(),
    programs={"torch": torch_program, "jax": jax_program},
    metrics=mean_average_precision,
)

OGBG_GELU = replace(
    OGBG,
    name="ogbg_gelu",
    summary="ogbg-molpcba molecules, graph network with GELU",
    validation_target=0.27771,
    test_target=0.262926,
    model=GraphNetwork(activation="gelu"),
)

OGBG_SILU = replace(
    OGBG,
    name="ogbg_silu",
    summary="ogbg-molpcba molecules, graph network with SiLU",
    validation_target=0.282178,
    test_target=0.272144,
    model=GraphNetwork(activation="silu"),
)

OGBG_MODEL_SIZE = replace(
    OGBG,
    name="ogbg_model_size",
    summary="ogbg-molpcba molecules, narrower graph network of two-layer perceptrons",
    num_parameters=2_571_648,
    validation_target=0.269446,
    test_target=0.253051,
    model=GraphNetwork(latent=128, hidden=(256, 256), rounds=3),
)
