"""criteo1tb_pocket: predict whether a flight arrives late, from schedule, plane and weather, with a small DLRM.

data    flights from New York in 2013; 13 counts, logarithmic, and 26 hashed categorical ids each; label: 15 minutes
        late or more. Whole hours are held out: 286,529 train, 10,240 validation, 5,120 test
model   bottom perceptron 256-16 of the counts; one table of 2,048 rows of 16 for all ids; dot products of all pairs
        of the 27 vectors, each with itself too; top perceptron 512-512-256-128-1; 669,713 parameters
loss    binary cross-entropy; label smoothing is ignored
metric  loss in nats, lower is better
target  losses below, by benchmarks/set_targets.py --jax 5: what five runs of the self-tuning NAdamW baseline in torch
        and five in JAX have all reached after 75 % of step_hint (benchmarks/results/targets_criteo1tb_pocket.json);
        of five more seeds in JAX, those of agreement.py, one gets to 0.4361 and misses it
budget  2,160 steps of the baseline at batch 512 (Criteo's 262,144 / 512), evaluated every 90; step_hint 1,800
cost    30 to 45 s of one CPU core to the target, 28 ms a step; 47 MB of arrays, 9 MB download
source  AlgoPerf's criteo1tb (arXiv 2306.07179): DLRM-small, with its initial distributions, its features and its
        hashing; the top perceptron is half as wide. Criteo's baseline sees its lines at most once; this one passes
        over its flights three times, and the table is small, its ids colliding freely, so that it does not learn
        them by heart.
"""

from fractions import Fraction

from timetrial.data_loading import flights
from timetrial.engine.facts import Metric, WorkloadFacts
from timetrial.engine.spec import LossType
from timetrial.workloads.criteo1tb import jax_program, torch_program
from timetrial.workloads.metrics import mean_loss
from timetrial.workloads.models.dlrm import DLRM

CRITEO1TB_POCKET = WorkloadFacts(
    name="criteo1tb_pocket",
    base="criteo1tb",
    suite="pocket",
    summary="flights of 2013, DLRM",
    num_parameters=669_713,
    dataset=flights.DATASET,
    loss_type=LossType.SIGMOID_CROSS_ENTROPY,
    metric=Metric(name="loss", better="lower"),
    validation_target=0.434689,
    test_target=0.451094,
    num_train_examples=flights.SIZES.train,
    num_eval_train_examples=flights.SIZES.eval_train,
    num_validation_examples=flights.SIZES.validation,
    num_test_examples=flights.SIZES.test,
    eval_batch_size=1024,
    step_hint=1800,
    batch_ratio=Fraction(1, 512),
    budget_steps=2160,
    eval_period_steps=90,
    model=DLRM(table_rows=2048, embedding_width=16, bottom_widths=(256, 16), top_widths=(512, 512, 256, 128)),
    programs={"torch": torch_program, "jax": jax_program},
    metrics=mean_loss,
)
