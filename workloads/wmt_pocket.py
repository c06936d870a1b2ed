"""wmt_pocket: translate German into English, in the help pages of an office suite, with a small transformer.

data    paragraphs of LibreOffice's help in both languages, 1,500 SentencePiece units for both; at most 64 a side
        12,640 train pairs, packed into rows of 64 and 64 units, 2.5 pairs a row; 512 validation and 512 test pairs,
        of pages that are held out whole
model   encoder and decoder of two layers each, 96 wide, four heads, perceptrons of 192, layer norms before each part,
        one embedding for both sides and the output; 516,096 parameters
loss    softmax cross-entropy per unit, optional label smoothing
metric  BLEU (sacreBLEU, 0 to 100) of translations by beam search, beam 4; higher is better
target  BLEU below, by benchmarks/set_targets.py: what the self-tuning NAdamW baseline reaches after 70 % of step_hint,
        median of five seeds (benchmarks/results/targets_wmt_pocket.json)
budget  STEPS steps of the baseline at batch 16 (wmt's 128 / 8), evaluated every PERIOD; step_hint HINT
cost    COST
source  AlgoPerf's wmt (arXiv 2306.07179): the same transformer, search and metric
"""

from fractions import Fraction
from functools import partial

from timetrial.data_loading import manuals
from timetrial.engine.facts import Metric, WorkloadFacts
from timetrial.engine.spec import LossType
from timetrial.workloads.metrics_translation import bleu
from timetrial.workloads.models.transformer import Transformer
from timetrial.workloads.wmt import jax_program, torch_program

WMT_POCKET = WorkloadFacts(
    name="wmt_pocket",
    base="wmt",
    suite="pocket",
    summary="help pages, German to English, transformer",
    num_parameters=516_096,
    dataset=manuals.DATASET,
    loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
    metric=Metric(name="bleu", better="higher"),
    validation_target=10.0,
    test_target=10.0,
    num_train_examples=manuals.SIZES.train,
    num_eval_train_examples=manuals.SIZES.eval_train,
    num_validation_examples=manuals.SIZES.validation,
    num_test_examples=manuals.SIZES.test,
    eval_batch_size=64,
    step_hint=900,
    batch_ratio=Fraction(1, 8),
    budget_steps=1080,
    eval_period_steps=90,
    default_dropout_rate=0.1,
    model=Transformer(
        num_tokens=manuals.NUM_TOKENS,
        max_length=manuals.LENGTH,
        width=96,
        num_layers=2,
        num_heads=4,
        mlp_width=192,
    ),
    programs={"torch": torch_program, "jax": jax_program},
    metrics=partial(bleu, tokenizer=manuals.load_tokenizer),
)
