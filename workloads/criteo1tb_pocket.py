"""criteo1tb_pocket: predict whether a flight arrives late, from schedule, plane and weather, with a small DLRM.

data    flights from New York in 2013; 13 counts, logarithmic, and 26 hashed categorical ids each; label: 15 minutes
        late or more. Whole hours are held out: 261,854 train, 16,384 validation, 16,384 test
model   bottom perceptron 16-8 of the counts; one table of 1,024 rows of 8 for all ids; dot products of all pairs of
        the 27 vectors, each with itself too; top perceptron 32-16-1; 21,481 parameters
loss    binary cross-entropy; label smoothing is ignored
metric  loss in nats, lower is better
target  losses below, by benchmarks/set_targets.py: what the self-tuning NAdamW baseline reaches after 70 %
        of step_hint, median of five seeds (benchmarks/results/targets_criteo1tb_pocket.json)
budget  3,600 steps of the baseline at batch 2,048 (Criteo's 262,144 / 128), evaluated every 150; step_hint 3,000
cost    35 to 50 s of one CPU core to the target, 16 ms a step; 49 MB of arrays, 9 MB download
source  AlgoPerf's criteo1tb (arXiv 2306.07179): DLRM-small, with its initial distributions, its features and its
        hashing. The table is as small as it is because the flights are few: the baseline passes over them 23 times,
        and wider rows remember them.
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
    num_parameters=21_481,
    dataset=flights.DATASET,
    loss_type=LossType.SIGMOID_CROSS_ENTROPY,
    metric=Metric(name="loss", better="lower"),
    validation_target=0.451669,
    test_target=0.438156,
    num_train_examples=flights.SIZES.train,
    num_eval_train_examples=flights.SIZES.eval_train,
    num_validation_examples=flights.SIZES.validation,
    num_test_examples=flights.SIZES.test,
    eval_batch_size=2048,
    step_hint=3000,
    batch_ratio=Fraction(1, 128),
    budget_steps=3600,
    eval_period_steps=150,
    model=DLRM(table_rows=1024, embedding_width=8, bottom_widths=(16, 8), top_widths=(32, 16)),
    programs={"torch": torch_program, "jax": jax_program},
    metrics=mean_loss,
)
