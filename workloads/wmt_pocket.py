"""wmt_pocket: translate German sentences of a program's help into English, with a small encoder-decoder transformer."""

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
    validation_target=2.0,
    test_target=2.0,
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
