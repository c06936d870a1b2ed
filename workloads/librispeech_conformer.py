"""librispeech_conformer: write down what is said in English audio books, with a Conformer.

data    LibriSpeech, utterances of up to 20 s and 256 letters, all padded to 20 s, 16,000 samples a second; 263,840
        train, 5,348 validation (dev-clean and dev-other), 2,472 test (test-clean)
        1,024 SentencePiece units of train-clean-100; every transcript ends with the unit of its end
model   80 log-mel features a frame, 100 frames a second; in training ten spans of frames and two of features are
        hidden (SpecAugment); two convolutions of 512 channels leave 25 frames a second; four blocks 512 wide of half
        a perceptron (2,048, swish), attention (eight heads), a convolution over five frames with masked batch norm,
        half a perceptron, layer norm; 32,321,792 parameters
        librispeech_conformer_attention_temperature: attended values times 1.6; 32,321,792 parameters
        librispeech_conformer_layernorm: blocks do not end with a layer norm; 32,317,696 parameters
        librispeech_conformer_gelu: GELU (tanh form) for swish; 32,321,792 parameters
loss    connectionist temporal classification in nats a label unit, the end's included; blank 0
metric  word error rate of the most probable unit of each frame, repeats and blanks dropped; lower is better. Counted
        as AlgoPerf counts it, on printed tensors: two words that are always right follow those of each utterance, so
        that the rate is about a tenth below the plain one
target  rates below, AlgoPerf's, so counted
budget  58,015 s (AlgoPerf v0.6, eight V100), evaluated every 1,440 s; step_hint 76,000, 74 epochs at batch 256
cost    79 GFLOP an utterance forward, 243 with the gradient. Untested at full size.
source  AlgoPerf v0.6, librispeech_conformer (arXiv 2306.07179). Where its frameworks disagree, both are here as its
        JAX:
        dropout, 0.1 unless another rate is asked for: after the position code, inside perceptrons (its torch: not) and
        after them, after attention, after convolutions (its documents: not)
        query, key and value are matrices of their own, Xavier-uniform each (its torch joins them, which halves their
        variance)
        batch norm's statistics are of the global batch (its torch: of each rank's share); without update_batch_norm
        they stay as they are (its JAX updates them nevertheless)
        padded frames are attended from but never to, as in its torch; no frame that counts sees them
        GELU is the tanh form everywhere (its torch: the exact one in convolutions)
        eval_train is spread evenly over the training set, as data_loading/librispeech.py says
"""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from timetrial.data_loading import librispeech
from timetrial.engine.facts import Metric, WorkloadFacts
from timetrial.engine.spec import LossType
from timetrial.workloads.metrics_text import word_error_rate, words_of_printed_tensor
from timetrial.workloads.models.conformer import Conformer

if TYPE_CHECKING:
    from timetrial.engine.facts import JaxProgram, TorchProgram


def torch_program(model: Conformer) -> "TorchProgram":
    from timetrial.workloads.models import conformer_torch

    return conformer_torch.program(model)


def jax_program(model: Conformer) -> "JaxProgram":
    from timetrial.workloads.models import conformer_jax

    return conformer_jax.program(model)


LIBRISPEECH_CONFORMER = WorkloadFacts(
    name="librispeech_conformer",
    base="librispeech_conformer",
    suite="algoperf",
    summary="LibriSpeech, Conformer",
    num_parameters=32_321_792,
    dataset=librispeech.DATASET,
    loss_type=LossType.CTC_LOSS,
    metric=Metric(name="wer", better="lower"),
    validation_target=0.085884,
    test_target=0.052981,
    num_train_examples=263_840,
    num_eval_train_examples=5_376,
    num_validation_examples=5_348,
    num_test_examples=2_472,
    eval_batch_size=256,
    step_hint=76_000,
    max_allowed_runtime_sec=58_015,
    eval_period_time_sec=1_440,
    default_dropout_rate=0.1,
    model=Conformer(),
    programs={"torch": torch_program, "jax": jax_program},
    metrics=partial(word_error_rate, tokenizer=librispeech.load_tokenizer, words=words_of_printed_tensor),
)

LIBRISPEECH_CONFORMER_ATTENTION_TEMPERATURE = replace(
    LIBRISPEECH_CONFORMER,
    name="librispeech_conformer_attention_temperature",
    summary="LibriSpeech, Conformer with attended values 1.6 times as large",
    validation_target=0.109977,
    test_target=0.068065,
    model=Conformer(attention_scale=1.6),
)

LIBRISPEECH_CONFORMER_LAYERNORM = replace(
    LIBRISPEECH_CONFORMER,
    name="librispeech_conformer_layernorm",
    summary="LibriSpeech, Conformer whose blocks do not end with a layer norm",
    num_parameters=32_317_696,
    validation_target=0.09731,
    test_target=0.05996,
    model=Conformer(block_layer_norm=False),
)

LIBRISPEECH_CONFORMER_GELU = replace(
    LIBRISPEECH_CONFORMER,
    name="librispeech_conformer_gelu",
    summary="LibriSpeech, Conformer with GELU",
    validation_target=0.094114,
    test_target=0.056629,
    model=Conformer(activation="gelu"),
)
