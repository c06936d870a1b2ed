"""The registry of workloads. Importing it needs neither torch nor JAX.

To add one: write its page, its models (`models/NAME_torch.py`, `models/NAME_jax.py`) and, for new data, a
file in `data_loading/`; then name it here. The tests run over this registry.
"""

from timetrial.engine.facts import WorkloadFacts
from timetrial.workloads.finewebedu_lm_pocket import FINEWEBEDU_LM_POCKET
from timetrial.workloads.imagenet_resnet_pocket import IMAGENET_RESNET_POCKET
from timetrial.workloads.toy import TOY, TOY_LARGE

WORKLOADS: dict[str, WorkloadFacts] = {
    "imagenet_resnet_pocket": IMAGENET_RESNET_POCKET,
    "finewebedu_lm_pocket": FINEWEBEDU_LM_POCKET,
    "toy": TOY,
    "toy_large": TOY_LARGE,
}

# `pocket` is what is raced; `test` is what the engine's own tests train.
SUITES: dict[str, tuple[str, ...]] = {
    "pocket": ("imagenet_resnet_pocket", "finewebedu_lm_pocket"),
    "test": ("toy", "toy_large"),
}
