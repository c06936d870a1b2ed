"""imagenet_resnet_pocket: classify CIFAR-10 images with a small bottleneck residual network.

data    32 x 32 colour photographs in ten classes; 45,000 train, 5,000 validation, 2,000 test
        training: 4 zero pixels on each side, random crop, random mirroring; all: normalised per channel
model   3x3 stem of stride 2 and 16 channels, 3x3 max pooling, one bottleneck in each of three stages
        (16, 32, 64 wide, outputs four times as wide), mean over space, Dense; 127,642 parameters
loss    softmax cross-entropy, optional label smoothing
metric  accuracy of the most probable class, higher is better
target  accuracies below, by benchmarks/set_targets.py: what five runs of the self-tuning NAdamW baseline have all
        reached after 75 % of step_hint (benchmarks/results/targets_imagenet_resnet_pocket.json)
budget  2,400 steps of the baseline at batch 64 (ImageNet's 1,024 / 16), evaluated every 100; step_hint 2,000
cost    50 to 65 s of one CPU core to the target, 25 to 45 ms a step; 190 MB of arrays, 139 MB download
source  AlgoPerf's imagenet_resnet (arXiv 2306.07179): ResNet v1.5 with the last batch norm of every block
        initialised to 0, LeCun-normal convolutions, Dense Normal(0, 0.01). Two differences from it, so that
        both frameworks compute the same: strided convolutions pad symmetrically, and running variances are
        biased. Preprocessing is that of AlgoPerf's cifar.
licence see below
"""

from fractions import Fraction
from typing import TYPE_CHECKING

from timetrial.data_loading import cifar10
from timetrial.engine.facts import Metric, WorkloadFacts
from timetrial.engine.spec import LossType
from timetrial.workloads.metrics import accuracy_and_loss
from timetrial.workloads.models.resnet import ResNet

if TYPE_CHECKING:
    from timetrial.engine.facts import JaxProgram, TorchProgram


def torch_program(model: ResNet) -> "TorchProgram":
    from timetrial.workloads.models import resnet_torch

    return resnet_torch.program(model)


def jax_program(model: ResNet) -> "JaxProgram":
    from timetrial.workloads.models import resnet_jax

    return resnet_jax.program(model)


IMAGENET_RESNET_POCKET = WorkloadFacts(
    name="imagenet_resnet_pocket",
    base="imagenet_resnet",
    suite="pocket",
    summary="CIFAR-10, bottleneck residual network",
    num_parameters=127_642,
    dataset=cifar10.POCKET_DATASET,
    loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
    metric=Metric(name="accuracy", better="higher"),
    validation_target=0.5854,
    test_target=0.576,
    num_train_examples=cifar10.POCKET_SIZES.train,
    num_eval_train_examples=cifar10.POCKET_SIZES.eval_train,
    num_validation_examples=cifar10.POCKET_SIZES.validation,
    num_test_examples=cifar10.POCKET_SIZES.test,
    eval_batch_size=250,
    step_hint=2000,
    batch_ratio=Fraction(1, 16),
    budget_steps=2400,
    eval_period_steps=100,
    model=ResNet(
        stage_sizes=(1, 1, 1), width=16, num_classes=10, stem_kernel=3, stem_stride=2, stem_pool=True
    ),
    programs={"torch": torch_program, "jax": jax_program},
    metrics=accuracy_and_loss,
)
