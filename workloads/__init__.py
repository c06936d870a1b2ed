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
from timetrial.workloads.finewebedu_lm import FINEWEBEDU_LM
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
from timetrial.workloads.librispeech_conformer import (
    LIBRISPEECH_CONFORMER,
    LIBRISPEECH_CONFORMER_ATTENTION_TEMPERATURE,
    LIBRISPEECH_CONFORMER_GELU,
    LIBRISPEECH_CONFORMER_LAYERNORM,
)
from timetrial.workloads.librispeech_conformer_pocket import LIBRISPEECH_CONFORMER_POCKET
from timetrial.workloads.librispeech_deepspeech import (
    LIBRISPEECH_DEEPSPEECH,
    LIBRISPEECH_DEEPSPEECH_NO_RESNET,
    LIBRISPEECH_DEEPSPEECH_NORM_AND_SPEC_AUG,
    LIBRISPEECH_DEEPSPEECH_TANH,
)
from timetrial.workloads.librispeech_deepspeech_pocket import LIBRISPEECH_DEEPSPEECH_POCKET
from timetrial.workloads.mnist import MNIST
from timetrial.workloads.ogbg import OGBG, OGBG_GELU, OGBG_MODEL_SIZE, OGBG_SILU
from timetrial.workloads.ogbg_pocket import OGBG_POCKET
from timetrial.workloads.toy import TOY, TOY_LARGE
from timetrial.workloads.wmt import WMT, WMT_ATTENTION_TEMP, WMT_GLU_TANH, WMT_POST_LN
from timetrial.workloads.wmt_pocket import WMT_POCKET

WORKLOADS: dict[str, WorkloadFacts] = {
    facts.name: facts
    for facts in (
        CRITEO1TB,
        FASTMRI,
        IMAGENET_RESNET,
        IMAGENET_VIT,
        LIBRISPEECH_CONFORMER,
        LIBRISPEECH_DEEPSPEECH,
        OGBG,
        WMT,
        FINEWEBEDU_LM,
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
        LIBRISPEECH_CONFORMER_ATTENTION_TEMPERATURE,
        LIBRISPEECH_CONFORMER_LAYERNORM,
        LIBRISPEECH_CONFORMER_GELU,
        LIBRISPEECH_DEEPSPEECH_TANH,
        LIBRISPEECH_DEEPSPEECH_NO_RESNET,
        LIBRISPEECH_DEEPSPEECH_NORM_AND_SPEC_AUG,
        OGBG_GELU,
        OGBG_SILU,
        OGBG_MODEL_SIZE,
        WMT_POST_LN,
        WMT_ATTENTION_TEMP,
        WMT_GLU_TANH,
        CIFAR,
        MNIST,
        CRITEO1TB_POCKET,
        FASTMRI_POCKET,
        IMAGENET_RESNET_POCKET,
        IMAGENET_VIT_POCKET,
        LIBRISPEECH_CONFORMER_POCKET,
        LIBRISPEECH_DEEPSPEECH_POCKET,
        OGBG_POCKET,
        WMT_POCKET,
        FINEWEBEDU_LM_POCKET,
        TOY,
        TOY_LARGE,
    )
}

# `algoperf` is what AlgoPerf scores; `pocket` is raced on a laptop; `test` is what the engine's own tests train.
SUITES: dict[str, tuple[str, ...]] = {
    "algoperf": (
        "criteo1tb",
        "fastmri",
        "imagenet_resnet",
        "imagenet_vit",
        "librispeech_conformer",
        "librispeech_deepspeech",
        "ogbg",
        "wmt",
        "finewebedu_lm",
    ),
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
        "librispeech_conformer_attention_temperature",
        "librispeech_conformer_layernorm",
        "librispeech_conformer_gelu",
        "librispeech_deepspeech_tanh",
        "librispeech_deepspeech_no_resnet",
        "librispeech_deepspeech_norm_and_spec_aug",
        "ogbg_gelu",
        "ogbg_silu",
        "ogbg_model_size",
        "wmt_post_ln",
        "wmt_attention_temp",
        "wmt_glu_tanh",
    ),
    "development": ("cifar", "mnist"),
    "pocket": (
        "criteo1tb_pocket",
        "fastmri_pocket",
        "imagenet_resnet_pocket",
        "imagenet_vit_pocket",
        "librispeech_conformer_pocket",
        "librispeech_deepspeech_pocket",
        "ogbg_pocket",
        "wmt_pocket",
        "finewebedu_lm_pocket",
    ),
    "test": ("toy", "toy_large"),
}
