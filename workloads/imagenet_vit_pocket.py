"""imagenet_vit_pocket: classify CIFAR-10 images with a small vision transformer, under mixup.

data    32 x 32 colour photographs in ten classes; 45,000 train, 5,000 validation, 2,000 test
        training: 4 zero pixels on each side, random crop, random mirroring, then mixup (Beta(0.2, 0.2), one weight
        a batch, each image with the one before it), so that targets are distributions; all: normalised per channel
model   patches of 4 x 4 pixels, 64 tokens, three blocks 64 wide with four heads and perceptrons of 128, mean over the
        tokens, tanh layer, Dense; 108,490 parameters
loss    softmax cross-entropy, optional label smoothing
metric  accuracy of the most probable class, higher is better
target  accuracies below, by benchmarks/set_targets.py: what five runs of the self-tuning NAdamW baseline have all
        reached after 75 % of step_hint (benchmarks/results/targets_imagenet_vit_pocket.json)
budget  1,200 steps of the baseline at batch 64 (ImageNet's 1,024 / 16), evaluated every 50; step_hint 1,000
cost    see the results named above; 190 MB of arrays, 139 MB download, shared with imagenet_resnet_pocket
source  AlgoPerf's imagenet_vit (arXiv 2306.07179): the same blocks, initialisation and mixup; without RandAugment,
        whose operations have magnitudes for images of 224 pixels. Preprocessing is that of AlgoPerf's cifar.
licence that of the dataset (`timetrial list workloads`)
"""

from fractions import Fraction
from typing import TYPE_CHECKING

from timetrial.data_loading import cifar10
from timetrial.engine.facts import Metric, WorkloadFacts
from timetrial.engine.spec import LossType
from timetrial.workloads.metrics import accuracy_and_loss
from timetrial.workloads.models.vit import ViT

if TYPE_CHECKING:
    from timetrial.engine.facts import JaxProgram, TorchProgram


def torch_program(model: ViT) -> "TorchProgram":
    from timetrial.workloads.models import vit_torch

    return vit_torch.program(model)


def jax_program(model: ViT) -> "JaxProgram":
    from timetrial.workloads.models import vit_jax

    return vit_jax.program(model)


IMAGENET_VIT_POCKET = WorkloadFacts(
    name="imagenet_vit_pocket",
    base="imagenet_vit",
    suite="pocket",
    summary="CIFAR-10 under mixup, vision transformer",
    num_parameters=108_490,
    dataset=cifar10.POCKET_MIXUP_DATASET,
    loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
    metric=Metric(name="accuracy", better="higher"),
    validation_target=0.404,
    test_target=0.41,
    num_train_examples=cifar10.POCKET_SIZES.train,
    num_eval_train_examples=cifar10.POCKET_SIZES.eval_train,
    num_validation_examples=cifar10.POCKET_SIZES.validation,
    num_test_examples=cifar10.POCKET_SIZES.test,
    eval_batch_size=250,
    step_hint=1000,
    batch_ratio=Fraction(1, 16),
    budget_steps=1200,
    eval_period_steps=50,
    model=ViT(image_size=32, patch=4, width=64, depth=3, num_heads=4, mlp_width=128, num_classes=10),
    programs={"torch": torch_program, "jax": jax_program},
    metrics=accuracy_and_loss,
)
