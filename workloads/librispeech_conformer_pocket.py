"""librispeech_conformer_pocket: write down what actors say in a game, letter by letter, with a small Conformer."""

from fractions import Fraction
from functools import partial

from timetrial.data_loading import spoken_lines
from timetrial.data_loading.spoken_lines_mel import MEL
from timetrial.engine.facts import Metric, WorkloadFacts
from timetrial.engine.spec import LossType
from timetrial.workloads.librispeech_conformer import jax_program, torch_program
from timetrial.workloads.metrics_text import character_error_rate
from timetrial.workloads.models.conformer import Conformer
from timetrial.workloads.models.speech_features import LogMel, SpecAugment

LIBRISPEECH_CONFORMER_POCKET = WorkloadFacts(
    name="librispeech_conformer_pocket",
    base="librispeech_conformer",
    suite="pocket",
    summary="lines spoken in a game, Conformer",
    num_parameters=451_647,
    dataset=spoken_lines.DATASET,
    loss_type=LossType.CTC_LOSS,
    metric=Metric(name="cer", better="lower"),
    validation_target=0.6,
    test_target=0.6,
    num_train_examples=spoken_lines.SIZES.train,
    num_eval_train_examples=spoken_lines.SIZES.eval_train,
    num_validation_examples=spoken_lines.SIZES.validation,
    num_test_examples=spoken_lines.SIZES.test,
    eval_batch_size=64,
    step_hint=900,
    batch_ratio=Fraction(1, 16),
    budget_steps=1080,
    eval_period_steps=45,
    default_dropout_rate=0.1,
    model=Conformer(
        vocabulary=spoken_lines.NUM_TOKENS,
        width=96,
        depth=2,
        num_heads=4,
        mlp_width=384,
        subsampling_channels=16,
        batch_norm_decay=0.9,
        features=LogMel(**MEL),
        spec_augment=SpecAugment(time_masks=1, frequency_masks=1, frequency_bins=6),
    ),
    programs={"torch": torch_program, "jax": jax_program},
    metrics=partial(character_error_rate, tokenizer=spoken_lines.load_tokenizer),
)
