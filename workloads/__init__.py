"""The registry of workloads. Importing it needs neither torch nor JAX.

To add one: write its page, its models (`models/NAME_torch.py`, `models/NAME_jax.py`) and, for new data, a
file in `data_loading/`; then name it here. The tests run over this registry.
"""

from timetrial.engine.facts import WorkloadFacts
from timetrial.workloads.cifar import CIFAR
from timetrial.workloads.criteo1tb import (
    CRITEO1TB,
    CRITEO1TB_EMBED_INIT,
    CRITEO1TB_LAYERNORM,
    CRITEO1TB_RESNET,
)
from timetrial.workloads.criteo1tb_pocket import CRITEO1TB_POCKET
from timetrial.workloads.fastmri import FASTMRI, FASTMRI_LAYERNORM, FASTMRI_MODEL_SIZE, FASTMRI_TANH
from timetrial.workloads.fastmri_pocket import FASTMRI_POCKET
from timetrial.workloads.finewebedu_lm_pocket import FINEWEBEDU_LM_POCKET
from timetrial.workloads.imagenet_resnet import (
    IMAGENET_RESNET,
    IMAGENET_RESNET_GELU,
    IMAGENET_RESNET_LARGE_BN_INIT,
    IMAGENET_RESNET_SILU,
)
from timetrial.workloads.imagenet_resnet_pocket import IMAGENET_RESNET_POCKET
from timetrial.workloads.imagenet_vit import (
    IMAGENET_VIT,
    IMAGENET_VIT_GLU,
    IMAGENET_VIT_MAP,
    IMAGENET_VIT_POST_LN,
)
from timetrial.workloads.imagenet_vit_pocket import IMAGENET_VIT_POCKET
from timetrial.workloads.mnist import MNIST
from timetrial.workloads.toy import TOY, TOY_LARGE

WORKLOADS: dict[str, WorkloadFacts] = {
    facts.name: facts
    for facts in (
        CRITEO1TB,
        FASTMRI,
        IMAGENET_RESNET,
        IMAGENET_VIT,
        CRITEO1TB_LAYERNORM,
        CRITEO1TB_EMBED_INIT,
        CRITEO1TB_RESNET,
        FASTMRI_MODEL_SIZE,
        FASTMRI_TANH,
        FASTMRI_LAYERNORM,
        IMAGENET_RESNET_SILU,
        IMAGENET_RESNET_GELU,
        IMAGENET_RESNET_LARGE_BN_INIT,
        IMAGENET_VIT_GLU,
        IMAGENET_VIT_POST_LN,
        IMAGENET_VIT_MAP,
        CIFAR,
        MNIST,
        CRITEO1TB_POCKET,
        FASTMRI_POCKET,
        IMAGENET_RESNET_POCKET,
        IMAGENET_VIT_POCKET,
        FINEWEBEDU_LM_POCKET,
        TOY,
        TOY_LARGE,
    )
}

# `algoperf` is what AlgoPerf scores; `pocket` is raced on a laptop; `test` is what the engine's own tests train.
SUITES: dict[str, tuple[str, ...]] = {
    "algoperf": ("criteo1tb", "fastmri", "imagenet_resnet", "imagenet_vit"),
    "variants": (
        "criteo1tb_layernorm",
        "criteo1tb_embed_init",
        "criteo1tb_resnet",
        "fastmri_model_size",
        "fastmri_tanh",
        "fastmri_layernorm",
        "imagenet_resnet_silu",
        "imagenet_resnet_gelu",
        "imagenet_resnet_large_bn_init",
        "imagenet_vit_glu",
        "imagenet_vit_post_ln",
        "imagenet_vit_map",
    ),
    "development": ("cifar", "mnist"),
    "pocket": (
        "criteo1tb_pocket",
        "fastmri_pocket",
        "imagenet_resnet_pocket",
        "imagenet_vit_pocket",
        "finewebedu_lm_pocket",
    ),
    "test": ("toy", "toy_large"),
}
