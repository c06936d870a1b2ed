"""Held-out workloads (AlgoPerf v0.5): a base workload counts only if its hidden variant was reached too."""

import math

import pandas as pd

from timetrial.scoring.rules import Ruleset


def eligible_times(times: pd.DataFrame, rules: Ruleset) -> pd.DataFrame:
    """The times of the base workloads that count; infinite where one was missed or taken away.

    `times`: seconds, a row a submission, a column a workload; infinite where missed, NaN where not run. In
    AlgoPerf's order: (1) a variant is missed where its base is; (2) a time over `tau_max` times its column's
    best is a miss; (3) a base is missed where its variant is missed or was not run.
    """
    names = list(rules.goals) or list(times.columns)
    times = times.reindex(columns=names)
    if not rules.held_out:
        return times
    finite = times.notna() & (times < math.inf)
    for base, variant in rules.held_out.items():
        times[variant] = times[variant].where(finite[base], math.inf)
    times = times.mask(times > rules.tau_max * times.min(), math.inf)
    for base, variant in rules.held_out.items():
        times[base] = times[base].where(times[variant] < math.inf, math.inf)
    return times[list(rules.base_workloads)]
