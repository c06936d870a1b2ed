"""librispeech_conformer_pocket: write down what actors say in a game, letter by letter, with a small Conformer.

data    lines of a game with their transcripts, recordings of 0.8 to 3 s, all padded to 3 s, 11,025 samples a second;
        3,014 train (1.7 hours), 256 validation and 256 test lines, of dialogues and scenes that are held out whole
        28 symbols, a space and an apostrophe among them; every transcript ends with an end symbol
model   80 log-mel features a frame, 100 frames a second; in training one span of frames and one of 6 features are
        hidden (SpecAugment); two convolutions of 16 channels leave 25 frames a second; two blocks 96 wide of half a
        perceptron (384, swish), attention (four heads), a convolution over five frames with masked batch norm, half
        a perceptron, layer norm; 451,647 parameters
loss    connectionist temporal classification in nats a symbol, the end's included; blank 0
metric  character error rate of the most probable symbol of each frame, repeats and blanks dropped; lower is better
target  character error rates below, by benchmarks/set_targets.py: what five runs of the self-tuning NAdamW baseline
        have all reached after 75 % of step_hint (benchmarks/results/targets_librispeech_conformer_pocket.json)
budget  1,080 steps of the baseline at batch 16 (librispeech_conformer's 256 / 16), evaluated every 45; step_hint 900
cost    110 to 150 s of one slow CPU core to the target, 210 ms a step; 162 MB of arrays, 35 MB download
source  AlgoPerf's librispeech_conformer (arXiv 2306.07179): its front end, model and loss, narrower and with two
        blocks. Words are out of reach of two hours of speech and two minutes of training, so that characters are
        counted. Batch norm's running averages decay by 0.9 a step: with 0.999 they would lag behind in so short a run
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
    summary="lines spoken in a game, Conformer",
    num_parameters=451_647,
    dataset=spoken_lines.DATASET,
    loss_type=LossType.CTC_LOSS,
    metric=Metric(name="cer", better="lower"),
    validation_target=0.609322,
    test_target=0.605281,
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
