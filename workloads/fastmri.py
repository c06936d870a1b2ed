"""fastmri: reconstruct knee images from a quarter of the columns of an MRI scan, with a U-Net.

data    fastMRI's single-coil knees, slices of 320 x 320; 34,742 train (973 volumes), 3,554 validation (100) and
        3,581 test (99; both from fastMRI's validation files). Input: the image of a quarter of the columns of a
        scan, with zeros for the rest; input and target less the input's mean, over its standard deviation,
        clipped to [-6, 6]
model   fastmri: pairs of 3x3 convolutions without bias, each with instance norm and leaky ReLU of slope 0.2, of 32,
        64, 128 and 256 channels, and 512 at the bottom; four 2x2 average poolings, four transposed convolutions,
        after which the level's features from the way down are appended; a 1x1 convolution; 7,756,097 parameters
        fastmri_model_size: 64, 128, 256 channels, 512 at the bottom, three poolings; 7,692,929 parameters
        fastmri_tanh: tanh in place of every leaky ReLU; 7,756,097 parameters
        fastmri_layernorm: layer norm over height, width and channels after the 3x3 convolutions, still instance
        norm after the transposed ones; 7,761,985 parameters
loss    mean absolute error of the normalised image; label smoothing is ignored
metric  ssim, higher is better: structural similarity to the clipped target, each slice as it was before
        normalisation, 7x7 windows, the volume's maximum for data range; mean over slices
target  similarities below, AlgoPerf's
budget  4,430 s, evaluated every 80 s; step_hint 18,094 (at AlgoPerf's batch of 32, 16.7 epochs)
cost    37.6 GFLOP a slice forward, 112.8 with the gradient; fastmri_model_size three times that. A training step
        takes 1.4 s of one core a slice in torch, compiled or not, 1.9 s in JAX (benchmarks/steps.py fastmri, batch
        of 2, AMD EPYC with AVX-512, under load). Untested on a GPU
source  AlgoPerf v0.6, fastmri (arXiv 2306.07179), after the baseline of fastMRI (arXiv 1811.08839). Where its
        frameworks disagree, both are here as its JAX, in which the targets were set, but for dropout:
        - transposed convolutions start LeCun-normal with fan-in 4 * inputs (its torch: 4 * outputs, so weights
          larger by sqrt(2), which the norm behind them hides from all but the gradient);
        - dropout is of whole channels, after each activation of the 3x3 convolutions (its JAX drops nothing at
          any rate); the default rate is 0;
        - layer norms are declared as such (its torch: weights of convolutions and biases);
        - the 1x1 convolution is the output layer, in fastmri_model_size too (its torch names another one).
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from timetrial.data_loading import fastmri as data
from timetrial.engine.facts import Metric, WorkloadFacts
from timetrial.engine.spec import LossType
from timetrial.workloads.metrics import ssim_and_loss
from timetrial.workloads.models.unet import UNet

if TYPE_CHECKING:
    from timetrial.engine.facts import JaxProgram, TorchProgram


def torch_program(model: UNet) -> "TorchProgram":
    from timetrial.workloads.models import unet_torch

    return unet_torch.program(model)


def jax_program(model: UNet) -> "JaxProgram":
    from timetrial.workloads.models import unet_jax

    return unet_jax.program(model)


FASTMRI = WorkloadFacts(
    name="fastmri",
    base="fastmri",
    suite="algoperf",
    summary="fastMRI knee slices, U-Net",
    num_parameters=7_756_097,
    dataset=data.DATASET,
    loss_type=LossType.MEAN_ABSOLUTE_ERROR,
    metric=Metric(name="ssim", better="higher"),
    validation_target=0.723653,
    test_target=0.740633,
    num_train_examples=34_742,
    num_eval_train_examples=3584,
    num_validation_examples=3554,
    num_test_examples=3581,
    eval_batch_size=256,
    step_hint=18_094,
    max_allowed_runtime_sec=4430,
    eval_period_time_sec=80,
    model=UNet(),
    programs={"torch": torch_program, "jax": jax_program},
    metrics=ssim_and_loss,
)

FASTMRI_MODEL_SIZE = replace(
    FASTMRI,
    name="fastmri_model_size",
    summary="fastMRI knee slices, U-Net with twice the channels and one level fewer",
    num_parameters=7_692_929,
    validation_target=0.723559,
    test_target=0.740726,
    model=UNet(channels=64, pools=3),
)

FASTMRI_TANH = replace(
    FASTMRI,
    name="fastmri_tanh",
    summary="fastMRI knee slices, U-Net with tanh",
    validation_target=0.71784,
    test_target=0.734505,
    model=UNet(activation="tanh"),
)

FASTMRI_LAYERNORM = replace(
    FASTMRI,
    name="fastmri_layernorm",
    summary="fastMRI knee slices, U-Net with layer normalisation",
    num_parameters=7_761_985,
    validation_target=0.723284,
    test_target=0.739996,
    model=UNet(norm="layer"),
)
