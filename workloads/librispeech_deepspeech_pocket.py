"""librispeech_deepspeech_pocket: write down what actors say in a game, letter by letter, with small LSTMs.

data    as librispeech_conformer_pocket: lines of a game, recordings of up to 3 s; 28 symbols and an end symbol
model   features, SpecAugment and convolutions as librispeech_conformer_pocket; two bidirectional LSTMs (64 in each
        direction), then two linear layers (128, ReLU), each behind a masked batch norm and beside a shortcut; layer
        norm and linear layer; 259,023 parameters
loss    connectionist temporal classification in nats a symbol, the end's included; blank 0
metric  character error rate of the most probable symbol of each frame, repeats and blanks dropped; lower is better
target  character error rates below, by benchmarks/set_targets.py: what five runs of the self-tuning NAdamW baseline
        have all reached after 75 % of step_hint (benchmarks/results/targets_librispeech_deepspeech_pocket.json)
budget  1,200 steps of the baseline at batch 16 (librispeech_deepspeech's 256 / 16), evaluated every 50; step_hint 1,000
cost    70 to 90 s of one CPU core to the target, 120 ms a step; data as librispeech_conformer_pocket
source  AlgoPerf's librispeech_deepspeech (arXiv 2306.07179): its front end, model and loss, narrower and with two
        LSTMs; characters are counted and batch norm's running averages decay by 0.9, as in
        librispeech_conformer_pocket
"""

from fractions import Fraction
from functools import partial

from timetrial.data_loading import spoken_lines
from timetrial.data_loading.spoken_lines_mel import MEL
from timetrial.engine.facts import Metric, WorkloadFacts
from timetrial.engine.spec import LossType
from timetrial.workloads.librispeech_deepspeech import jax_program, torch_program
from timetrial.workloads.metrics_text import character_error_rate
from timetrial.workloads.models.deepspeech import DeepSpeech
from timetrial.workloads.models.speech_features import LogMel, SpecAugment

LIBRISPEECH_DEEPSPEECH_POCKET = WorkloadFacts(
    name="librispeech_deepspeech_pocket",
    base="librispeech_deepspeech",
    suite="pocket",
    summary="lines spoken in a game, bidirectional LSTMs",
    num_parameters=259_023,
    dataset=spoken_lines.DATASET,
    loss_type=LossType.CTC_LOSS,
    metric=Metric(name="cer", better="lower"),
    validation_target=0.56581,
    test_target=0.570355,
    num_train_examples=spoken_lines.SIZES.train,
    num_eval_train_examples=spoken_lines.SIZES.eval_train,
    num_validation_examples=spoken_lines.SIZES.validation,
    num_test_examples=spoken_lines.SIZES.test,
    eval_batch_size=64,
    step_hint=1000,
    batch_ratio=Fraction(1, 16),
    budget_steps=1200,
    eval_period_steps=50,
    default_dropout_rate=0.1,
    model=DeepSpeech(
        vocabulary=spoken_lines.NUM_TOKENS,
        width=128,
        num_lstms=2,
        num_feed_forward=2,
        subsampling_channels=16,
        batch_norm_decay=0.9,
        features=LogMel(**MEL),
        spec_augment=SpecAugment(time_masks=1, frequency_masks=1, frequency_bins=6),
    ),
    programs={"torch": torch_program, "jax": jax_program},
    metrics=partial(character_error_rate, tokenizer=spoken_lines.load_tokenizer),
)
