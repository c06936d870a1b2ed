"""fastmri_pocket: reconstruct images of heads from a quarter of the columns of emulated MRI scans, with a small U-Net.

data    64 x 64 slices of heads: real images, emulated k-space of 80 x 80; 2,858 train (three heads), 128 validation
        and 128 test (a fourth head). Input: the zero-filled inverse transform of the kept columns; input and target
        less the input's mean, over its standard deviation, clipped to [-6, 6]
model   pairs of 3x3 convolutions without bias, each with instance norm and leaky ReLU of slope 0.2; 8, 16 and 32
        channels and 64 at the bottom, three 2x2 average poolings and transposed convolutions; the level's features
        from the way down appended; a 1x1 convolution at the end; 120,273 parameters
loss    mean absolute error of the normalised image; label smoothing is ignored
metric  ssim, higher is better: structural similarity of each slice before normalisation, of the clipped target, with
        7x7 windows and the volume's maximum for data range, averaged over slices
target  similarities below, by benchmarks/set_targets.py: what five runs of the self-tuning NAdamW baseline have all
        reached after 75 % of step_hint (benchmarks/results/targets_fastmri_pocket.json)
budget  1,200 steps of the baseline at batch 8 (fastMRI's 32 / 4), evaluated every 50; step_hint 1,000
cost    25 to 50 s of one CPU core to the target, 45 to 52 ms a step; 174 MB of arrays, 184 MB download
source  AlgoPerf's fastmri (arXiv 2306.07179): the same model at a quarter of the width and with one level fewer, the
        same masks, normalisation and metric. The page of fastmri says where its two frameworks disagree.
licence that of the dataset (`timetrial list workloads`)
"""

from fractions import Fraction
from typing import TYPE_CHECKING

from timetrial.data_loading import head_scans
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


FASTMRI_POCKET = WorkloadFacts(
    name="fastmri_pocket",
    base="fastmri",
    suite="pocket",
    summary="slices of heads with emulated k-space, U-Net",
    num_parameters=120_273,
    dataset=head_scans.DATASET,
    loss_type=LossType.MEAN_ABSOLUTE_ERROR,
    metric=Metric(name="ssim", better="higher"),
    validation_target=0.662615,
    test_target=0.662303,
    num_train_examples=head_scans.SIZES.train,
    num_eval_train_examples=head_scans.SIZES.eval_train,
    num_validation_examples=head_scans.SIZES.validation,
    num_test_examples=head_scans.SIZES.test,
    eval_batch_size=64,
    step_hint=1000,
    batch_ratio=Fraction(1, 4),
    budget_steps=1200,
    eval_period_steps=50,
    model=UNet(channels=8, pools=3),
    programs={"torch": torch_program, "jax": jax_program},
    metrics=ssim_and_loss,
)
