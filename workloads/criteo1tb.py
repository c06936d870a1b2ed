"""criteo1tb: predict whether an advertisement is clicked, from a line of logs, with a small DLRM.

data    the Criteo 1TB click logs, 24 days; 13 counts, logarithmic, and 26 hashed categorical ids a line
        4,195,197,692 train (days 0 to 22); of day 23, 95,000,000 test and the later 83,274,637 validation
model   criteo1tb: bottom perceptron 512-256-128 of the counts; one table of 4,194,304 rows of 128 for all ids; dot
        products of all pairs of the 27 vectors, each with itself too; top perceptron 1024-1024-512-256-1;
        539,267,457 parameters
        criteo1tb_layernorm: layer normalisation after every ReLU and of every embedding; 539,275,137 parameters
        criteo1tb_embed_init: embeddings from Uniform[0, 1) instead of Uniform[0, 1/2048); 539,267,457 parameters
        criteo1tb_resnet: no dot products, perceptrons 256 wide with residual layers; 538,121,473 parameters
loss    binary cross-entropy; label smoothing is ignored
metric  loss in nats, lower is better
target  losses below, AlgoPerf's; its source marks the test target of criteo1tb_embed_init as unsettled
budget  7,703 s, evaluated every 120 s; step_hint 10,666 (at AlgoPerf's batch of 262,144, 0.67 epochs)
cost    2.2 GB of parameters, as much for their gradient, twice as much for an optimizer with two moments; every
        step of a dense optimizer passes over all of it. Untested at full size.
source  AlgoPerf v0.6, criteo1tb (arXiv 2306.07179). Where its frameworks disagree, both are here as its JAX:
        one table (its torch: four, joined in every forward pass), 131,072 examples an evaluation batch (8,192) and
        83,361,792 of eval_train (83,279,872), the table an EMBEDDING and every layer norm declared as one (WEIGHT
        and BIAS), the last layer named as output (a middle one). Ids pass through float32 before the modulo, as in
        both of its frameworks: above 2**24 they are rounded.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from timetrial.data_loading import criteo1tb
from timetrial.engine.facts import Metric, WorkloadFacts
from timetrial.engine.spec import LossType
from timetrial.workloads.metrics import mean_loss
from timetrial.workloads.models.dlrm import DLRM, DLRMResNet

if TYPE_CHECKING:
    from timetrial.engine.facts import JaxProgram, TorchProgram


def torch_program(model: DLRM | DLRMResNet) -> "TorchProgram":
    from timetrial.workloads.models import dlrm_torch

    return dlrm_torch.program(model)


def jax_program(model: DLRM | DLRMResNet) -> "JaxProgram":
    from timetrial.workloads.models import dlrm_jax

    return dlrm_jax.program(model)


CRITEO1TB = WorkloadFacts(
    name="criteo1tb",
    base="criteo1tb",
    suite="algoperf",
    summary="Criteo 1TB click logs, DLRM",
    num_parameters=539_267_457,
    dataset=criteo1tb.DATASET,
    loss_type=LossType.SIGMOID_CROSS_ENTROPY,
    metric=Metric(name="loss", better="lower"),
    validation_target=0.123735,
    test_target=0.126041,
    num_train_examples=4_195_197_692,
    num_eval_train_examples=83_361_792,
    num_validation_examples=83_274_637,
    num_test_examples=95_000_000,
    eval_batch_size=131_072,
    step_hint=10_666,
    max_allowed_runtime_sec=7703,
    eval_period_time_sec=120,
    model=DLRM(),
    programs={"torch": torch_program, "jax": jax_program},
    metrics=mean_loss,
)

CRITEO1TB_LAYERNORM = replace(
    CRITEO1TB,
    name="criteo1tb_layernorm",
    summary="Criteo 1TB click logs, DLRM with layer normalisation",
    num_parameters=539_275_137,
    validation_target=0.123757,
    test_target=0.126152,
    model=DLRM(layer_norm=True),
)

CRITEO1TB_EMBED_INIT = replace(
    CRITEO1TB,
    name="criteo1tb_embed_init",
    summary="Criteo 1TB click logs, DLRM with embeddings that begin 2,048 times as large",
    validation_target=0.129657,
    test_target=0.131967,
    model=DLRM(embedding_scale=1.0),
)

CRITEO1TB_RESNET = replace(
    CRITEO1TB,
    name="criteo1tb_resnet",
    summary="Criteo 1TB click logs, residual perceptrons",
    num_parameters=538_121_473,
    validation_target=0.12415,
    test_target=0.12648,
    model=DLRMResNet(),
)
