"""librispeech_conformer_pocket: write down what actors say in a game, letter by letter, with a small Conformer.

data    recordings of two words and more from an adventure game, 0.8 to 3 s, 11,025 samples a second, padded to 3 s;
        3,014 train (1.7 hours), 256 validation, 256 test; whole dialogues and scenes are held out
        31 symbols: letters, the apostrophe, the space, an end and two that CTC and padding need
model   40 log-mel features; two convolutions of 16 channels; two blocks 64 wide, four heads,
        perceptrons of 256; 207,727 parameters
loss    connectionist temporal classification in nats a label symbol; blank 0
metric  character error rate of the most probable symbol of each frame, repeats and blanks dropped; lower is better.
        Words are AlgoPerf's unit; in a minute on one core no network learns enough of them from so few hours
target  rates below, by benchmarks/set_targets.py: what the self-tuning NAdamW baseline reaches after 70 % of step_hint,
        median of five seeds (benchmarks/results/targets_librispeech_conformer_pocket.json)
budget  1,920 steps of the baseline at batch 16 (LibriSpeech's 256 / 16), evaluated every 80; step_hint 1,600
cost    80 to 100 s of one CPU core to the target, 85 ms a step; 168 MB of arrays, 35 MB download
source  AlgoPerf's librispeech_conformer (arXiv 2306.07179): the same network, features and SpecAugment, smaller
"""

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
    summary="lines of a game, Conformer",
    num_parameters=207_727,
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
    step_hint=1600,
    batch_ratio=Fraction(1, 16),
    budget_steps=1920,
    eval_period_steps=80,
    default_dropout_rate=0.1,
    model=Conformer(
        vocabulary=spoken_lines.NUM_TOKENS,
        width=64,
        depth=2,
        num_heads=4,
        mlp_width=256,
        subsampling_channels=16,
        features=LogMel(**MEL),
        spec_augment=SpecAugment(time_masks=3, frequency_masks=2, frequency_bins=6),
    ),
    programs={"torch": torch_program, "jax": jax_program},
    metrics=partial(character_error_rate, tokenizer=spoken_lines.load_tokenizer),
)
