"""wmt: translate German into English with an encoder-decoder transformer.

data    train: WMT 2017, 5,906,184 pairs of sentences; validation: newstest2013, 3,000; test: newstest2014, 3,003
        one vocabulary of 32,000 word pieces; sentences of up to 256; training: several pairs packed into rows of 256
        and 256 tokens; evaluation: one pair a row
model   six layers each of encoder and decoder, 1,024 wide, 16 heads without biases, perceptrons of 1,024 (ReLU),
        layer norms before each part and after both stacks; sines and cosines of places; one embedding for source,
        target and output; 133,521,408 parameters
        wmt_post_ln: layer norms after each addition and none at the ends; 133,517,312 parameters
        wmt_attention_temp: queries four times as large; 133,521,408 parameters
        wmt_glu_tanh: perceptrons of tanh, times a second linear map of their input; 146,116,608 parameters
loss    softmax cross-entropy of the target's tokens, mean over all that are no padding, optional label smoothing
metric  BLEU (sacreBLEU: 13a, case kept, exponential smoothing, 0 to 100) of the texts found by beam search, against
        the texts of the references' tokens; higher is better
        search: beam of 4, log-probability over ((5 + tokens) / 6) ** 0.6, at most 255 tokens
target  BLEU below, AlgoPerf's; the test target of wmt_attention_temp is its JAX's (its torch has a slip: 229.4143)
budget  43,336 s (AlgoPerf v0.6, eight V100), evaluated every 840 s; step_hint 120,000
cost    73 GFLOP a packed row forward, 220 with the gradient (glu_tanh: 79 and 238); a batch of 128 has 4.2 GB of
        logits. Beam search of 128 rows keeps 6.4 GB of keys and values. Untested at full size.
source  AlgoPerf v0.6, wmt (arXiv 2306.07179). Where its frameworks disagree, or disagree with what it documents:
        dropout, 0.1 unless another rate is asked for: after the position code, of attention's weights (as it
        documents; its torch does, its JAX does not), after attention, inside and after perceptrons
        query, key and value are matrices of their own, Xavier-uniform each, as in its JAX (its torch joins them, which
        makes them smaller at first)
        padding attends to everything, which no loss sees: attention to nothing is not a number
        a packed sentence is decoded from the end of the one before, but the first and every translation from 0
        a translation without end counts as it is; there its text is that of its first token only
"""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from timetrial.data_loading import wmt as wmt_data
from timetrial.engine.facts import Metric, WorkloadFacts
from timetrial.engine.spec import LossType
from timetrial.workloads.metrics_translation import bleu
from timetrial.workloads.models.transformer import Transformer

if TYPE_CHECKING:
    from timetrial.engine.facts import JaxProgram, TorchProgram


def torch_program(model: Transformer) -> "TorchProgram":
    from timetrial.workloads.models import transformer_torch

    return transformer_torch.program(model)


def jax_program(model: Transformer) -> "JaxProgram":
    from timetrial.workloads.models import transformer_jax

    return transformer_jax.program(model)


TRANSFORMER = Transformer(
    num_tokens=32_000, max_length=256, width=1024, num_layers=6, num_heads=16, mlp_width=1024, beam_size=4
)

WMT = WorkloadFacts(
    name="wmt",
    base="wmt",
    suite="algoperf",
    summary="WMT German to English, encoder-decoder transformer",
    num_parameters=133_521_408,
    dataset=wmt_data.DATASET,
    loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
    metric=Metric(name="bleu", better="higher"),
    validation_target=30.8491,
    test_target=30.7219,
    num_train_examples=5_906_184,
    num_eval_train_examples=3072,
    num_validation_examples=3000,
    num_test_examples=3003,
    eval_batch_size=128,
    step_hint=120_000,
    max_allowed_runtime_sec=43_336,
    eval_period_time_sec=840,
    default_dropout_rate=0.1,
    model=TRANSFORMER,
    programs={"torch": torch_program, "jax": jax_program},
    metrics=partial(bleu, tokenizer=wmt_data.load_tokenizer),
)

WMT_POST_LN = replace(
    WMT,
    name="wmt_post_ln",
    summary="WMT German to English, transformer with layer norms after additions",
    num_parameters=133_517_312,
    validation_target=30.0779,
    test_target=29.8982,
    model=replace(TRANSFORMER, post_ln=True),
)

WMT_ATTENTION_TEMP = replace(
    WMT,
    name="wmt_attention_temp",
    summary="WMT German to English, transformer with queries four times as large",
    validation_target=29.3379,
    test_target=29.4143,
    model=replace(TRANSFORMER, attention_temp=4.0),
)

WMT_GLU_TANH = replace(
    WMT,
    name="wmt_glu_tanh",
    summary="WMT German to English, transformer with gated tanh",
    num_parameters=146_116_608,
    validation_target=29.5779,
    test_target=29.0515,
    model=replace(TRANSFORMER, glu_tanh=True),
)
