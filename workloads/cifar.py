"""cifar: classify CIFAR-10 images with a ResNet-18. A development workload, not scored.

data    32 x 32 colour photographs in ten classes; 45,000 train, 5,000 validation, 10,000 test
        training: 4 zero pixels on each side, random crop, random mirroring; all: normalised per channel
model   3x3 stem of 64 channels, two basic blocks in each of four stages (64, 128, 256, 512 wide), mean over space,
        Dense; the last batch norm of every block starts at scale 0; 11,173,962 parameters
loss    softmax cross-entropy, optional label smoothing
metric  accuracy of the most probable class, higher is better
target  0.85 on both, AlgoPerf's
budget  3,600 s, evaluated every 600 s; step_hint 4,883, a hundred epochs of 50,000 at batch 1,024
cost    1.1 GFLOP an image forward, 3.3 with the gradient; 190 MB of arrays, 139 MB download
source  AlgoPerf's cifar (arXiv 2306.07179). Where its frameworks disagree: images are padded by 4 pixels on each
        side, as in its torch (4 in total in its JAX); convolutions pad symmetrically, as in its torch (its JAX puts
        the pixel of a strided 3x3 behind); running variances are biased, as in its JAX.
"""

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


CIFAR = WorkloadFacts(
    name="cifar",
    base="cifar",
    suite="algoperf",
    summary="CIFAR-10, ResNet-18",
    num_parameters=11_173_962,
    dataset=cifar10.DATASET,
    loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
    metric=Metric(name="accuracy", better="higher"),
    validation_target=0.85,
    test_target=0.85,
    num_train_examples=cifar10.SIZES.train,
    num_eval_train_examples=cifar10.SIZES.eval_train,
    num_validation_examples=cifar10.SIZES.validation,
    num_test_examples=cifar10.SIZES.test,
    eval_batch_size=1024,
    step_hint=4883,
    max_allowed_runtime_sec=3600,
    eval_period_time_sec=600,
    model=ResNet(
        stage_sizes=(2, 2, 2, 2),
        width=64,
        num_classes=10,
        stem_kernel=3,
        stem_stride=1,
        stem_pool=False,
        block="basic",
    ),
    programs={"torch": torch_program, "jax": jax_program},
    metrics=accuracy_and_loss,
)
