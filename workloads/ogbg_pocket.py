"""ogbg_pocket: predict which of 30 receptors and enzymes a molecule acts on, from its graph, with a graph network.

data    molecules with measured potencies (ChEMBL, as MoleculeACE collects them); atoms with 9 and bonds with 3 integer
        features, used as numbers; active: 10 nM or less; 95 % of the labels are unknown
        28,903 train, 3,399 validation and 3,331 test molecules, split by scaffold
        a batch of b holds at most b molecules, 32 b atoms and 70 b directed edges
model   linear maps to 64 and three rounds of new edges, nodes and globals, each by one layer of 64 with layer
        normalisation, ReLU and dropout; logits from the globals; 133,214 parameters
loss    binary cross-entropy, mean over known labels; a label smoothing a moves labels towards a / 30
metric  mean over the targets of the average precision of their known labels, higher is better
target  mean average precisions below, by benchmarks/set_targets.py: what five runs of the self-tuning NAdamW baseline
        have all reached after 75 % of step_hint (benchmarks/results/targets_ogbg_pocket.json)
budget  2,160 steps of the baseline at batch 64 (ogbg's 512 / 8), evaluated every 90; step_hint 1,800
cost    40 to 70 s of one CPU core to the target, 46 ms a step; 29 MB of arrays, 1.1 MB download
source  AlgoPerf's ogbg (arXiv 2306.07179): the same network, narrower and with three rounds, sums, masked labels and
        batches of static size
"""

from fractions import Fraction

from timetrial.data_loading import molecules
from timetrial.engine.facts import Metric, WorkloadFacts
from timetrial.engine.spec import LossType
from timetrial.workloads.metrics_graph import mean_average_precision
from timetrial.workloads.models.graph_network import GraphNetwork
from timetrial.workloads.ogbg import jax_program, torch_program

OGBG_POCKET = WorkloadFacts(
    name="ogbg_pocket",
    base="ogbg",
    suite="pocket",
    summary="molecules and what they act on, graph network",
    num_parameters=133_214,
    dataset=molecules.DATASET,
    loss_type=LossType.SIGMOID_CROSS_ENTROPY,
    metric=Metric(name="mean_average_precision", better="higher"),
    validation_target=0.396046,
    test_target=0.377898,
    num_train_examples=molecules.SIZES.train,
    num_eval_train_examples=molecules.SIZES.eval_train,
    num_validation_examples=molecules.SIZES.validation,
    num_test_examples=molecules.SIZES.test,
    eval_batch_size=512,
    step_hint=1800,
    batch_ratio=Fraction(1, 8),
    budget_steps=2160,
    eval_period_steps=90,
    default_dropout_rate=0.1,
    model=GraphNetwork(num_tasks=molecules.NUM_TASKS, latent=64, hidden=(64,), rounds=3),
    programs={"torch": torch_program, "jax": jax_program},
    metrics=mean_average_precision,
)
