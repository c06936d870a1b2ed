"""The scoring rules on arrays: held-out workloads, ratios, performance profiles (Dolan and More, 2002), scores.

Arrays are (..., submissions, workloads), seconds or any other cost; infinite where missed, NaN where not run.
Leading axes are resamples: the leaderboard and its uncertainty are computed by the same lines.
"""

from collections.abc import Mapping, Sequence

import numpy as np

GRID_POINTS = 100


def eligible_times(
    times: np.ndarray,
    workloads: Sequence[str],
    held_out: Mapping[str, Sequence[str]],
    tau_max: float,
    best: np.ndarray | None = None,
) -> np.ndarray:
    """The times that count, of the same shape: infinite where one was missed or taken away.

    `held_out` maps a base workload to the variants that must be reached too. In AlgoPerf's order: (1) a variant is
    missed where its base is; (2) a time over `tau_max` times its column's best is a miss; (3) a base is missed
    where a variant is missed or was not run. Without held-out workloads nothing changes.

    `best`: times by workload of a frozen reference, to be counted with the columns' own best in (2).
    """
    if not held_out:
        return times
    times = times.copy()
    at = {name: column for column, name in enumerate(workloads)}
    missed = ~(times < np.inf)
    for base, variants in held_out.items():
        for variant in variants:
            times[..., at[variant]][missed[..., at[base]]] = np.inf
    limit = tau_max * _best(times, best)
    times[times > limit[..., None, :]] = np.inf
    for base, variants in held_out.items():
        for variant in variants:
            times[..., at[base]][~(times[..., at[variant]] < np.inf)] = np.inf
    return times


def ratios(times: np.ndarray, best: np.ndarray | None = None) -> np.ndarray:
    """Each time over its column's best; infinite where missed or not run, 1 for the best even if it took 0.

    A workload that nobody reached stays infinite for all: it gives no credit and still counts in the mean.
    `best`: times by workload of a frozen reference to divide by instead; faster ones have ratios below 1.
    """
    reached = times < np.inf
    lowest = _best(times, None)[..., None, :] if best is None else best
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(times == lowest, 1.0, times / lowest)
    return np.where(reached & (lowest < np.inf), ratio, np.inf)


def profile(ratio: np.ndarray, taus: Sequence[float] | np.ndarray) -> np.ndarray:
    """rho(tau), the share of workloads within `tau` of the best: shape (..., submissions, taus)."""
    within = [(ratio <= tau).mean(axis=-1) for tau in np.asarray(taus)]
    return np.stack(within, axis=-1)


def grid(tau_max: float) -> np.ndarray:
    """AlgoPerf's 100 equally spaced taus from 1 to `tau_max`."""
    return np.linspace(1.0, tau_max, GRID_POINTS)


def grid_scores(ratio: np.ndarray, tau_max: float) -> np.ndarray:
    """AlgoPerf's score: the profile integrated by the trapezoid rule on the grid, over `tau_max` - 1.

    Of a workload whose ratio the grid first covers at point k, that integral is the share of points above k,
    and a half for k itself unless it is the first.
    """
    first: np.ndarray = np.searchsorted(grid(tau_max), ratio, side="left")
    last = GRID_POINTS - 1
    credit: np.ndarray = np.where(first > last, 0.0, last - first + np.where(first > 0, 0.5, 0.0)) / last
    score: np.ndarray = np.mean(credit, axis=-1)
    return score


def exact_scores(ratio: np.ndarray, tau_max: float) -> np.ndarray:
    """The integral in closed form: the mean over workloads of (tau_max - ratio) / (tau_max - 1), in [0, 1]."""
    score: np.ndarray = np.mean(np.clip((tau_max - ratio) / (tau_max - 1), 0.0, 1.0), axis=-1)
    return score


def ranks(scores: np.ndarray) -> np.ndarray:
    """Ranks from 1, along the last axis; equal scores share the better rank."""
    order = np.argsort(-scores, axis=-1, kind="stable")
    ordered = np.take_along_axis(scores, order, axis=-1)
    differs = np.ones(scores.shape, dtype=bool)
    differs[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    first_of_equals = np.maximum.accumulate(np.where(differs, np.arange(scores.shape[-1]), 0), axis=-1)
    rank = np.empty(scores.shape, dtype=np.int64)
    np.put_along_axis(rank, order, first_of_equals + 1, axis=-1)
    return rank


def _best(times: np.ndarray, reference: np.ndarray | None) -> np.ndarray:
    """The least time of every workload, NaN and infinity aside; infinite where nobody has one."""
    best: np.ndarray = np.min(np.where(np.isnan(times), np.inf, times), axis=-2)
    return best if reference is None else np.minimum(best, reference)
