"""librispeech_deepspeech: write down what is said in English audio books, with LSTMs.

data    as librispeech_conformer: LibriSpeech, utterances of up to 20 s; 1,024 SentencePiece units
model   features, SpecAugment and convolutions as librispeech_conformer; six bidirectional LSTMs (256 in each
        direction), then three linear layers (512, ReLU), each behind a masked batch norm and beside a shortcut; layer
        norm and linear layer; 18,381,312 parameters
        librispeech_deepspeech_tanh: tanh for ReLU, in the convolutions too; 18,381,312 parameters
        librispeech_deepspeech_no_resnet: no shortcuts; 18,381,312 parameters
        librispeech_deepspeech_norm_and_spec_aug: layer norms for batch norms and none at the end; fifteen spans of
        frames and four of features are hidden in training; 18,380,288 parameters
loss    connectionist temporal classification in nats a label unit, the end's included; blank 0. An utterance with
        fewer frames than its labels need would count for nothing (AlgoPerf: 1e5 nats in JAX, infinity in torch)
metric  word error rate of the most probable unit of each frame, repeats and blanks dropped; lower is better. Counted
        as AlgoPerf counts it, on printed tensors: two words that are always right follow those of each utterance, so
        that the rate is about a tenth below the plain one
target  rates below, AlgoPerf's, so counted
budget  44,405 s (AlgoPerf v0.6, eight V100), evaluated every 1,440 s; step_hint 38,400, 37 epochs at batch 256
cost    64 GFLOP an utterance forward, 191 with the gradient. Untested at full size.
source  AlgoPerf v0.6, librispeech_deepspeech (arXiv 2306.07179). Where its frameworks disagree, both are here as its
        JAX but for an error:
        LSTMs have one bias a gate, LeCun-normal input weights and orthogonal recurrent ones for each gate (its torch:
        two biases, 18,393,600 parameters in all, all of them uniform in +-1/16)
        dropout, 0.1 unless another rate is asked for: before the LSTMs and after linear layers (its JAX has 0.1 in
        these whatever rate is asked for, unless there are no shortcuts)
        LSTMs give 0 for padded frames, as its torch; no frame that counts sees them
        batch norm's statistics are of the global batch, as in both; without update_batch_norm they stay as they are
        eval_train is spread evenly over the training set, as data_loading/librispeech.py says
"""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from timetrial.data_loading import librispeech
from timetrial.engine.facts import Metric, WorkloadFacts
from timetrial.engine.spec import LossType
from timetrial.workloads.metrics_text import word_error_rate, words_of_printed_tensor
from timetrial.workloads.models.deepspeech import DeepSpeech
from timetrial.workloads.models.speech_features import SpecAugment

if TYPE_CHECKING:
    from timetrial.engine.facts import JaxProgram, TorchProgram


def torch_program(model: DeepSpeech) -> "TorchProgram":
    from timetrial.workloads.models import deepspeech_torch

    return deepspeech_torch.program(model)


def jax_program(model: DeepSpeech) -> "JaxProgram":
    from timetrial.workloads.models import deepspeech_jax

    return deepspeech_jax.program(model)


LIBRISPEECH_DEEPSPEECH = WorkloadFacts(
    name="librispeech_deepspeech",
    base="librispeech_deepspeech",
    suite="algoperf",
    summary="LibriSpeech, bidirectional LSTMs",
    num_parameters=18_381_312,
    dataset=librispeech.DATASET,
    loss_type=LossType.CTC_LOSS,
    metric=Metric(name="wer", better="lower"),
    validation_target=0.119936,
    test_target=0.074143,
    num_train_examples=263_840,
    num_eval_train_examples=5_376,
    num_validation_examples=5_348,
    num_test_examples=2_472,
    eval_batch_size=256,
    step_hint=38_400,
    max_allowed_runtime_sec=44_405,
    eval_period_time_sec=1_440,
    default_dropout_rate=0.1,
    model=DeepSpeech(),
    programs={"torch": torch_program, "jax": jax_program},
    metrics=partial(word_error_rate, tokenizer=librispeech.load_tokenizer, words=words_of_printed_tensor),
)

LIBRISPEECH_DEEPSPEECH_TANH = replace(
    LIBRISPEECH_DEEPSPEECH,
    name="librispeech_deepspeech_tanh",
    summary="LibriSpeech, bidirectional LSTMs, tanh for ReLU",
    validation_target=0.150883,
    test_target=0.098613,
    model=DeepSpeech(activation="tanh"),
)

LIBRISPEECH_DEEPSPEECH_NO_RESNET = replace(
    LIBRISPEECH_DEEPSPEECH,
    name="librispeech_deepspeech_no_resnet",
    summary="LibriSpeech, bidirectional LSTMs without shortcuts",
    validation_target=0.131564,
    test_target=0.079297,
    model=DeepSpeech(residual=False),
)

LIBRISPEECH_DEEPSPEECH_NORM_AND_SPEC_AUG = replace(
    LIBRISPEECH_DEEPSPEECH,
    name="librispeech_deepspeech_norm_and_spec_aug",
    summary="LibriSpeech under more SpecAugment, bidirectional LSTMs with layer norms",
    num_parameters=18_380_288,
    validation_target=0.14342,
    test_target=0.090976,
    eval_batch_size=128,
    model=DeepSpeech(layer_norm=True, spec_augment=SpecAugment(time_masks=15, frequency_masks=4)),
)
