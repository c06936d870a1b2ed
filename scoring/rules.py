"""The rulesets, as data: which workloads count, by which metric and target, over how many studies.

Targets are AlgoPerf's validation targets (MLCommons AlgoPerf benchmark, versions 0.5 and 0.6). A value equal
to the target reaches it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from timetrial.engine.facts import Metric


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What a trial of a workload has to reach: column `validation/<metric.name>`, `target` or better."""

    metric: Metric
    target: float

    def reached(self, value: float) -> bool:
        return self.metric.reached(value, self.target)


@dataclass(frozen=True, kw_only=True)
class Ruleset:
    """How a group of submissions is scored.

    `goals` holds base and held-out workloads; `held_out` maps a base workload to the variant that must be
    reached too. Both are empty where the runs themselves name their goals (pocket). `studies` and `trials`
    are what a complete external-tuning submission has, None where the rules leave it open.
    """

    name: str
    goals: Mapping[str, Goal] = field(default_factory=dict)
    held_out: Mapping[str, str] = field(default_factory=dict)
    studies: int | None = None
    trials: int | None = None
    tau_max: float = 4.0

    @property
    def base_workloads(self) -> tuple[str, ...]:
        variants = set(self.held_out.values())
        return tuple(name for name in self.goals if name not in variants)


def _higher(metric: str, target: float) -> Goal:
    return Goal(metric=Metric(name=metric, better="higher"), target=target)


def _lower(metric: str, target: float) -> Goal:
    return Goal(metric=Metric(name=metric, better="lower"), target=target)


_BASE = {
    "criteo1tb": _lower("loss", 0.123735),
    "fastmri": _higher("ssim", 0.723653),
    "imagenet_resnet": _higher("accuracy", 0.77431),
    "imagenet_vit": _higher("accuracy", 0.77309),
    "librispeech_conformer": _lower("wer", 0.085884),
    "librispeech_deepspeech": _lower("wer", 0.119936),
    "ogbg": _higher("mean_average_precision", 0.28098),
    "wmt": _higher("bleu", 30.8491),
}

_V05_VARIANTS = {
    "criteo1tb_embed_init": _lower("loss", 0.129657),
    "fastmri_tanh": _higher("ssim", 0.717840),
    "imagenet_resnet_large_bn_init": _higher("accuracy", 0.76526),
    "librispeech_conformer_layernorm": _lower("wer", 0.09731),
    "ogbg_model_size": _higher("mean_average_precision", 0.269446),
    "wmt_glu_tanh": _higher("bleu", 29.5779),
}

V05 = Ruleset(
    name="v0.5",
    goals=_BASE | _V05_VARIANTS,
    held_out={
        "criteo1tb": "criteo1tb_embed_init",
        "fastmri": "fastmri_tanh",
        "imagenet_resnet": "imagenet_resnet_large_bn_init",
        "librispeech_conformer": "librispeech_conformer_layernorm",
        "ogbg": "ogbg_model_size",
        "wmt": "wmt_glu_tanh",
    },
    studies=5,
    trials=5,
)

V06 = Ruleset(name="v0.6", goals=_BASE, studies=3, trials=5)

# A pocket run's meta_data_0.json names its metric, direction and target; every workload that any of the
# compared submissions ran counts once.
POCKET = Ruleset(name="pocket")

RULESETS = {rules.name: rules for rules in (POCKET, V05, V06)}
