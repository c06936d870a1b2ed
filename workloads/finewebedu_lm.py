"""finewebedu_lm: predict the next token of educational web pages with a decoder-only transformer.

data    FineWeb-Edu, the sample of ten billion tokens, as GPT-2's tokens, windows of 1,024; about 8,749,870 train (90 %
        of the documents), 100,000 validation, no test
model   decoder of twelve layers, 1,024 wide, eight heads, gated MLP of 4,096; RMSNorm, rotary embedding, QK-norm with
        a learned scale, tied embeddings, no biases; 252,815,372 parameters
loss    softmax cross-entropy per token, optional label smoothing
metric  perplexity per token (ppl), lower is better
target  perplexity below, AlgoPerf's of June 2026 (22.432 in its earlier sources); there is no test target
budget  31,967 s, evaluated every 2,571 s; step_hint 72,000 (at AlgoPerf's batch of 64, 0.53 epochs)
cost    1.0 GB of parameters, as much for their gradient, twice as much for an optimizer with two moments; 1.7 TFLOP
        a sequence and step. Untested at full size.
source  AlgoPerf, finewebedu_lm. Where its frameworks disagree, here are in both: queries and keys divided by
        (norm + 1e-6) as its JAX; the learned scale of attention in float32 as its torch (its JAX keeps it in
        bfloat16, where it hardly moves); every validation window evaluated once (its torch, on N devices, a part of
        them N times). AlgoPerf computes in bfloat16 on GPUs; this is float32 throughout, so that both frameworks
        compute the same on any device, and slower for it.
"""

from typing import TYPE_CHECKING

from timetrial.data_loading import finewebedu
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


FINEWEBEDU_LM = WorkloadFacts(
    name="finewebedu_lm",
    base="finewebedu_lm",
    suite="algoperf",
    summary="FineWeb-Edu as GPT-2 tokens, decoder-only transformer",
    num_parameters=252_815_372,
    dataset=finewebedu.DATASET,
    loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
    metric=Metric(name="ppl", better="lower"),
    validation_target=22.2995,
    test_target=None,
    num_train_examples=finewebedu.SIZES.train,
    num_eval_train_examples=finewebedu.SIZES.eval_train,
    num_validation_examples=finewebedu.SIZES.validation,
    num_test_examples=None,
    eval_batch_size=256,
    step_hint=72_000,
    max_allowed_runtime_sec=31_967,
    eval_period_time_sec=2_571,
    model=DecoderLM(
        num_tokens=finewebedu.NUM_TOKENS,
        length=finewebedu.LENGTH,
        width=1024,
        num_layers=12,
        num_heads=8,
        mlp_width=4096,
    ),
    programs={"torch": torch_program, "jax": jax_program},
    metrics=perplexity_and_loss,
)
