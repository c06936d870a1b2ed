"""imagenet_vit: classify ImageNet photographs with a ViT-S/16.

data    ImageNet (ILSVRC 2012), 1,000 classes; 1,281,167 train, 50,000 validation; test: ImageNet-V2, 10,000
        training: as imagenet_resnet, then RandAugment (two operations) and mixup (Beta(0.2, 0.2), one weight a
        batch, each image with the one before it), so that targets are distributions; evaluation: as imagenet_resnet
model   patches of 16 x 16 pixels, 196 tokens, no class token, fixed sines and cosines of their places; twelve blocks
        384 wide with six heads and perceptrons of 1,536 (tanh GELU), layer norms before both; mean over the tokens,
        tanh layer, Dense of zeros; 22,122,472 parameters
        imagenet_vit_glu: the activated hidden layer is multiplied by a linear map of itself; 50,452,456 parameters
        imagenet_vit_post_ln: layer norms after each addition and none at the end; 22,121,704 parameters
        imagenet_vit_map: attention of a learned probe instead of the mean; 23,896,552 parameters
loss    softmax cross-entropy, optional label smoothing
metric  accuracy of the most probable class, higher is better
target  accuracies below, AlgoPerf's
budget  69,768 s (AlgoPerf v0.6, eight V100), evaluated every 420 s; step_hint 167,999, 134 epochs at batch 1,024
cost    9.2 GFLOP an image forward, 27.3 with the gradient (glu: 20.3 and 60.6). Untested at full size.
source  AlgoPerf v0.6, imagenet_vit (arXiv 2306.07179). Where its frameworks disagree:
        dropout, 0 unless a rate is asked for: after the position code, after attention, inside and after perceptrons,
        those of the probe's too; never of attention probabilities, which its torch drops
        map: separate keys and values, limits and zero biases as in its JAX (its torch: one matrix of both and small
        random biases); all are declared as attention's
        post_ln: cannot be built in its JAX; here as in its torch
        RandAugment's operations as data_loading/rand_augment.py says; mixup's weight and partner are those of the
        global batch, as in its JAX (its torch: of each rank's share)
        windows, resizing, order and eval_train as imagenet_resnet's page says
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from timetrial.data_loading import imagenet
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


VIT_S_16 = ViT(image_size=224, patch=16, width=384, depth=12, num_heads=6, mlp_width=1536, num_classes=1000)

IMAGENET_VIT = WorkloadFacts(
    name="imagenet_vit",
    base="imagenet_vit",
    suite="algoperf",
    summary="ImageNet under RandAugment and mixup, ViT-S/16",
    num_parameters=22_122_472,
    dataset=imagenet.VIT_DATASET,
    loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
    metric=Metric(name="accuracy", better="higher"),
    validation_target=1 - 0.22691,
    test_target=1 - 0.3481,
    num_train_examples=1_281_167,
    num_eval_train_examples=51_200,
    num_validation_examples=50_000,
    num_test_examples=10_000,
    eval_batch_size=2048,
    step_hint=167_999,
    max_allowed_runtime_sec=69_768,
    eval_period_time_sec=420,
    model=VIT_S_16,
    programs={"torch": torch_program, "jax": jax_program},
    metrics=accuracy_and_loss,
)

IMAGENET_VIT_GLU = replace(
    IMAGENET_VIT,
    name="imagenet_vit_glu",
    summary="ImageNet under RandAugment and mixup, gated ViT-S/16",
    num_parameters=50_452_456,
    validation_target=0.75738,
    test_target=0.6359,
    model=replace(VIT_S_16, glu=True),
)

IMAGENET_VIT_POST_LN = replace(
    IMAGENET_VIT,
    name="imagenet_vit_post_ln",
    summary="ImageNet under RandAugment and mixup, ViT-S/16 with layer norms after additions",
    num_parameters=22_121_704,
    validation_target=0.75312,
    test_target=0.6286,
    model=replace(VIT_S_16, post_ln=True),
)

IMAGENET_VIT_MAP = replace(
    IMAGENET_VIT,
    name="imagenet_vit_map",
    summary="ImageNet under RandAugment and mixup, ViT-S/16 pooled by attention",
    num_parameters=23_896_552,
    validation_target=0.77113,
    test_target=0.6523,
    model=replace(VIT_S_16, pooling="map"),
)
