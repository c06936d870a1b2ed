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
    num_parameters=516_096,
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
    step_hint=1800,
    batch_ratio=Fraction(1, 8),
    budget_steps=2160,
    eval_period_steps=180,
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
