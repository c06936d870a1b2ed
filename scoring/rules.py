"""The rulesets, as data: which workloads count, by which metric and target, over how many studies and trials.

One frozen record per version of AlgoPerf (MLCommons), and one for pocket runs. Targets are AlgoPerf's validation
targets; a value equal to the target reaches it. Budgets are seconds of submission time under external tuning.
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
class Budget:
    """What a trial may use: seconds of submission time, the steps planned for, seconds between evaluations."""

    seconds: float
    step_hint: float
    eval_period: float

    @property
    def step_seconds(self) -> float:
        """The pace the budget was made for: that of the benchmark's own JAX baseline on its own machine."""
        return self.seconds / self.step_hint


@dataclass(frozen=True, kw_only=True)
class Ruleset:
    """How a group of submissions is scored.

    goals                every workload that is scored, base and held-out
    held_out             base workload -> the variant that must be reached too
    studies, trials      what a complete external-tuning submission has; a self-tuning study is one trial
    self_tuning_factor   a self-tuning trial's budget over an external one's
    budgets              by base workload; a variant has its base's
    ends_at_step_hint    official runs ended after `step_hint` steps, budget left or not
    tau_max              upper end of the performance profile; also how far behind the best a time still counts

    Pocket runs name their own goals and budgets, so that their record holds none; None is what rules leave open.
    """

    name: str
    goals: Mapping[str, Goal] = field(default_factory=dict)
    held_out: Mapping[str, str] = field(default_factory=dict)
    studies: int | None = None
    trials: int | None = None
    self_tuning_factor: float = 1.0
    budgets: Mapping[str, Budget] = field(default_factory=dict)
    ends_at_step_hint: bool = False
    tau_max: float = 4.0

    @property
    def base_workloads(self) -> tuple[str, ...]:
        variants = set(self.held_out.values())
        return tuple(name for name in self.goals if name not in variants)

    def budget(self, workload: str) -> Budget | None:
        """The budget of a workload or of the base it is a variant of; None where the rules state none."""
        return self.budgets.get(workload) or self.budgets.get(base_of(workload) or "")


def base_of(workload: str) -> str | None:
    """The AlgoPerf base workload that this one is a variant of (or is itself); None for any other name."""
    return next((base for base in BASE if workload == base or workload in VARIANTS[base]), None)


def _higher(metric: str, target: float) -> Goal:
    return Goal(metric=Metric(name=metric, better="higher"), target=target)


def _lower(metric: str, target: float) -> Goal:
    return Goal(metric=Metric(name=metric, better="lower"), target=target)


BASE = {
    "criteo1tb": _lower("loss", 0.123735),
    "fastmri": _higher("ssim", 0.723653),
    "imagenet_resnet": _higher("accuracy", 0.77431),
    "imagenet_vit": _higher("accuracy", 0.77309),
    "librispeech_conformer": _lower("wer", 0.085884),
    "librispeech_deepspeech": _lower("wer", 0.119936),
    "ogbg": _higher("mean_average_precision", 0.28098),
    "wmt": _higher("bleu", 30.8491),
    "finewebedu_lm": _lower("ppl", 22.2995),
}

# Every variant of AlgoPerf, by its base.
VARIANTS: dict[str, dict[str, Goal]] = {
    "criteo1tb": {
        "criteo1tb_layernorm": _lower("loss", 0.123757),
        "criteo1tb_embed_init": _lower("loss", 0.129657),
        "criteo1tb_resnet": _lower("loss", 0.12415),
    },
    "fastmri": {
        "fastmri_model_size": _higher("ssim", 0.723559),
        "fastmri_tanh": _higher("ssim", 0.717840),
        "fastmri_layernorm": _higher("ssim", 0.723284),
    },
    "imagenet_resnet": {
        "imagenet_resnet_silu": _higher("accuracy", 0.75445),
        "imagenet_resnet_gelu": _higher("accuracy", 0.76765),
        "imagenet_resnet_large_bn_init": _higher("accuracy", 0.76526),
    },
    "imagenet_vit": {
        "imagenet_vit_glu": _higher("accuracy", 0.75738),
        "imagenet_vit_post_ln": _higher("accuracy", 0.75312),
        "imagenet_vit_map": _higher("accuracy", 0.77113),
    },
    "librispeech_conformer": {
        "librispeech_conformer_attention_temperature": _lower("wer", 0.109977),
        "librispeech_conformer_layernorm": _lower("wer", 0.09731),
        "librispeech_conformer_gelu": _lower("wer", 0.094114),
    },
    "librispeech_deepspeech": {
        "librispeech_deepspeech_tanh": _lower("wer", 0.150883),
        "librispeech_deepspeech_no_resnet": _lower("wer", 0.131564),
        "librispeech_deepspeech_norm_and_spec_aug": _lower("wer", 0.14342),
    },
    "ogbg": {
        "ogbg_gelu": _higher("mean_average_precision", 0.27771),
        "ogbg_silu": _higher("mean_average_precision", 0.282178),
        "ogbg_model_size": _higher("mean_average_precision", 0.269446),
    },
    "wmt": {
        "wmt_post_ln": _higher("bleu", 30.0779),
        "wmt_attention_temp": _higher("bleu", 29.3379),
        "wmt_glu_tanh": _higher("bleu", 29.5779),
    },
    "finewebedu_lm": {},
}

_EIGHT = {name: goal for name, goal in BASE.items() if name != "finewebedu_lm"}

# The variants drawn for the first competition.
_V05_HELD_OUT = {
    "criteo1tb": "criteo1tb_embed_init",
    "fastmri": "fastmri_tanh",
    "imagenet_resnet": "imagenet_resnet_large_bn_init",
    "librispeech_conformer": "librispeech_conformer_layernorm",
    "ogbg": "ogbg_model_size",
    "wmt": "wmt_glu_tanh",
}

V05 = Ruleset(
    name="v0.5",
    goals=_EIGHT | {variant: VARIANTS[base][variant] for base, variant in _V05_HELD_OUT.items()},
    held_out=_V05_HELD_OUT,
    studies=5,
    trials=5,
    self_tuning_factor=3.0,
    ends_at_step_hint=True,
    budgets={
        "criteo1tb": Budget(seconds=7_703, step_hint=10_666, eval_period=120),
        "fastmri": Budget(seconds=8_859, step_hint=36_189, eval_period=80),
        "imagenet_resnet": Budget(seconds=63_008, step_hint=186_666, eval_period=510),
        "imagenet_vit": Budget(seconds=77_520, step_hint=186_666, eval_period=420),
        "librispeech_conformer": Budget(seconds=61_068, step_hint=80_000, eval_period=1_440),
        "librispeech_deepspeech": Budget(seconds=55_506, step_hint=48_000, eval_period=1_440),
        "ogbg": Budget(seconds=18_477, step_hint=80_000, eval_period=240),
        "wmt": Budget(seconds=48_151, step_hint=133_333, eval_period=840),
    },
)

V06 = Ruleset(
    name="v0.6",
    goals=_EIGHT,
    studies=3,
    trials=5,
    self_tuning_factor=1.5,
    budgets={
        "criteo1tb": Budget(seconds=7_703, step_hint=10_666, eval_period=120),
        "fastmri": Budget(seconds=4_430, step_hint=18_094, eval_period=80),
        "imagenet_resnet": Budget(seconds=66_159, step_hint=195_999, eval_period=510),
        "imagenet_vit": Budget(seconds=69_768, step_hint=167_999, eval_period=420),
        "librispeech_conformer": Budget(seconds=58_015, step_hint=76_000, eval_period=1_440),
        "librispeech_deepspeech": Budget(seconds=44_405, step_hint=38_400, eval_period=1_440),
        "ogbg": Budget(seconds=12_011, step_hint=52_000, eval_period=240),
        "wmt": Budget(seconds=43_336, step_hint=120_000, eval_period=840),
    },
)

# With the language model, on four A100. The eight older budgets were derived anew for that machine and are not
# stated here: a run's own meta_data_0.json names them.
V10 = Ruleset(
    name="v1.0",
    goals=BASE,
    studies=3,
    trials=5,
    self_tuning_factor=1.5,
    budgets={"finewebedu_lm": Budget(seconds=31_967, step_hint=72_000, eval_period=2_571)},
)

# A pocket run's meta_data_0.json names its metric, direction, target and budget; every workload that any of the
# compared submissions ran counts once.
POCKET = Ruleset(name="pocket", self_tuning_factor=1.5)

RULESETS = {rules.name: rules for rules in (POCKET, V05, V06, V10)}
