"""wmt_pocket: translate German sentences of a program's help into English, with a small encoder-decoder transformer.

data    sentences of LibreOffice's help of up to 120 characters, 1,500 SentencePiece units for both languages; 12,640
        train, 256 validation and 256 test pairs, of pages that are held out whole
        rows of 64 tokens a side, several pairs packed into a row in training
model   one layer of encoder and one of decoder, 128 wide, four heads, perceptrons of 256 (ReLU), layer norm before
        each; one embedding for both languages and the output; 522,240 parameters
loss    cross-entropy, mean over the tokens of the translations; label smoothing as asked for
metric  BLEU of translations that a beam search of four finds, as sacreBLEU computes it; higher is better
target  BLEUs below, by benchmarks/set_targets.py: what five runs of the self-tuning NAdamW baseline have all reached
        after 75 % of step_hint (benchmarks/results/targets_wmt_pocket.json)
budget  2,304 steps of the baseline at batch 8 (wmt's 128 / 16), evaluated every 160; step_hint 1,920
cost    60 to 100 s of one CPU core to the target, 65 ms a step; 2 MB of arrays, 14 MB download
source  AlgoPerf's wmt (arXiv 2306.07179): its model, packing, loss, search and metric, narrower and with one layer of
        six. So small a model learns a program's turns of phrase and little grammar: its BLEU stays far below WMT's
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
    summary="German and English help pages, encoder-decoder transformer",
    num_parameters=522_240,
    dataset=manuals.DATASET,
    loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
    metric=Metric(name="bleu", better="higher"),
    validation_target=3.630828,
    test_target=3.00363,
    num_train_examples=manuals.SIZES.train,
    num_eval_train_examples=manuals.SIZES.eval_train,
    num_validation_examples=manuals.SIZES.validation,
    num_test_examples=manuals.SIZES.test,
    eval_batch_size=128,
    step_hint=1920,
    batch_ratio=Fraction(1, 16),
    budget_steps=2304,
    eval_period_steps=160,
    default_dropout_rate=0.1,
    model=Transformer(
        num_tokens=manuals.NUM_TOKENS,
        max_length=manuals.LENGTH,
        width=128,
        num_layers=1,
        num_heads=4,
        mlp_width=256,
    ),
    programs={"torch": torch_program, "jax": jax_program},
    metrics=partial(bleu, tokenizer=manuals.load_tokenizer),
)
