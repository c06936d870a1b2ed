"""imagenet_resnet: classify ImageNet photographs with a ResNet-50.

data    ImageNet (ILSVRC 2012), 1,000 classes; 1,281,167 train, 50,000 validation; test: ImageNet-V2, 10,000
        training: a random part of 8 to 100 % of the area and 3/4 to 4/3 in shape, resized to 224 x 224, random
        mirroring; evaluation: the central 224/256 of the shorter side, resized to 224 x 224; normalised per channel
model   7x7 stem of stride 2 and 64 channels, 3x3 max pooling, bottlenecks (3, 4, 6, 3) of width 64, 128, 256, 512
        and four times as wide at the output, mean over space, Dense; the last batch norm of every block starts at
        scale 0; 25,557,032 parameters
        imagenet_resnet_silu, imagenet_resnet_gelu: SiLU, or GELU (tanh approximation), for every ReLU
        imagenet_resnet_large_bn_init: the last batch norm of every block starts at scale 8
loss    softmax cross-entropy, optional label smoothing; targets are classes, or distributions by their rank alone
        (AlgoPerf's JAX takes any targets whose last axis is 1,000 for distributions)
metric  accuracy of the most probable class, higher is better
target  accuracies below, AlgoPerf's
budget  66,159 s (AlgoPerf v0.6, eight V100), evaluated every 510 s; step_hint 195,999, 157 epochs at batch 1,024
cost    8.2 GFLOP an image forward, 24.3 with the gradient. Untested at full size.
source  AlgoPerf v0.6, imagenet_resnet (arXiv 2306.07179): ResNet v1.5, LeCun-normal convolutions, Dense
        Normal(0, 0.01). Where its frameworks disagree:
        resizing is by an antialiased triangular filter for all splits, as its torch does but for the test split (its
        JAX: bicubic without antialiasing)
        random windows are drawn as in its torch, the evaluated square is computed as in its JAX (its torch resizes
        the shorter side to 256 first)
        every epoch is one permutation, as in its torch (its JAX draws from a buffer of 16 batches)
        convolutions pad symmetrically, as in its torch (its JAX puts the pixel of a strided 3x3 behind)
        running variances are biased, as in its JAX (its torch keeps the unbiased ones)
        eval_train is a fixed subset, as in its torch (its JAX draws another one for each evaluation)
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from timetrial.data_loading import imagenet
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


RESNET_50 = ResNet(
    stage_sizes=(3, 4, 6, 3), width=64, num_classes=1000, stem_kernel=7, stem_stride=2, stem_pool=True
)

IMAGENET_RESNET = WorkloadFacts(
    name="imagenet_resnet",
    base="imagenet_resnet",
    suite="algoperf",
    summary="ImageNet, ResNet-50",
    num_parameters=25_557_032,
    dataset=imagenet.RESNET_DATASET,
    loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
    metric=Metric(name="accuracy", better="higher"),
    validation_target=1 - 0.22569,
    test_target=1 - 0.3440,
    num_train_examples=1_281_167,
    num_eval_train_examples=50_176,
    num_validation_examples=50_000,
    num_test_examples=10_000,
    eval_batch_size=1024,
    step_hint=195_999,
    max_allowed_runtime_sec=66_159,
    eval_period_time_sec=510,
    model=RESNET_50,
    programs={"torch": torch_program, "jax": jax_program},
    metrics=accuracy_and_loss,
)

IMAGENET_RESNET_SILU = replace(
    IMAGENET_RESNET,
    name="imagenet_resnet_silu",
    summary="ImageNet, ResNet-50 with SiLU",
    validation_target=0.75445,
    test_target=0.6323,
    model=replace(RESNET_50, activation="silu"),
)

IMAGENET_RESNET_GELU = replace(
    IMAGENET_RESNET,
    name="imagenet_resnet_gelu",
    summary="ImageNet, ResNet-50 with GELU",
    validation_target=0.76765,
    test_target=0.6519,
    model=replace(RESNET_50, activation="gelu"),
)

IMAGENET_RESNET_LARGE_BN_INIT = replace(
    IMAGENET_RESNET,
    name="imagenet_resnet_large_bn_init",
    summary="ImageNet, ResNet-50 with last batch norms of scale 8",
    validation_target=0.76526,
    test_target=0.6423,
    model=replace(RESNET_50, last_batch_norm_scale=8.0),
)
