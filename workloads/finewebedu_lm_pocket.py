"""finewebedu_lm_pocket: predict the next byte of State-of-the-Union speeches with a small transformer.

data    speeches of 1790 to 2026 as bytes, windows of 128; 84,631 train, 256 validation, 256 test
        whole years are held out: two of every twenty, one to validate and one to test
model   decoder of two layers, 64 wide, two heads, gated MLP of 256; RMSNorm, rotary embedding, QK-norm with a
        learned scale, tied embeddings, no biases; 147,778 parameters
loss    softmax cross-entropy per byte, optional label smoothing
metric  perplexity per byte (ppl), lower is better; 20.7 for byte frequencies alone, 10.5 for pairs, 6.4 for
        triples (smoothed counts of the training text)
target  perplexities below, by benchmarks/set_targets.py: what five runs of the self-tuning NAdamW baseline have all
        reached after 75 % of step_hint (benchmarks/results/targets_finewebedu_lm_pocket.json)
budget  3,120 steps of the baseline at batch 4 (FineWeb-Edu's 64 / 16), evaluated every 130; step_hint 2,600
cost    40 s of one CPU core to the target, 20 ms a step in either framework; 11 MB of arrays, 4.5 MB download
source  AlgoPerf's finewebedu_lm: the same blocks and initialisation, in float32 throughout; queries and keys
        are divided by (norm + 1e-6) in both frameworks
licence see below
"""

from fractions import Fraction
from typing import TYPE_CHECKING

from timetrial.data_loading import sotu
from timetrial.engine.facts import Metric, WorkloadFacts
from timetrial.engine.spec import LossType
from timetrial.workloads.metrics import perplexity_and_loss
from timetrial.workloads.models.decoder_lm import DecoderLM

if TYPE_CHECKING:
    from timetrial.engine.facts import JaxProgram, TorchProgram


def torch_program(model: DecoderLM) -> "TorchProgram":
    from timetrial.workloads.models import decoder_lm_torch

    return decoder_lm_torch.program(model)


def jax_program(model: DecoderLM) -> "JaxProgram":
    from timetrial.workloads.models import decoder_lm_jax

    return decoder_lm_jax.program(model)


FINEWEBEDU_LM_POCKET = WorkloadFacts(
    name="finewebedu_lm_pocket",
    base="finewebedu_lm",
    suite="pocket",
    summary="State-of-the-Union speeches as bytes, decoder-only transformer",
    num_parameters=147_778,
    dataset=sotu.DATASET,
    loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
    metric=Metric(name="ppl", better="lower"),
    validation_target=5.253581,
    test_target=5.33058,
    num_train_examples=sotu.SIZES.train,
    num_eval_train_examples=sotu.SIZES.eval_train,
    num_validation_examples=sotu.SIZES.validation,
    num_test_examples=sotu.SIZES.test,
    eval_batch_size=64,
    step_hint=2600,
    batch_ratio=Fraction(1, 16),
    budget_steps=3120,
    eval_period_steps=130,
    model=DecoderLM(
        num_tokens=sotu.NUM_TOKENS, length=sotu.LENGTH, width=64, num_layers=2, num_heads=2, mlp_width=256
    ),
    programs={"torch": torch_program, "jax": jax_program},
    metrics=perplexity_and_loss,
)
