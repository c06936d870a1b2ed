"""Performance profiles (Dolan and More, 2002) and the AlgoPerf score, their normalised integral."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

GRID_POINTS = 100


def ratios(times: pd.DataFrame) -> pd.DataFrame:
    """Each time over its column's best; infinite where missed or not run.

    A workload that nobody reached stays infinite for all: it gives no credit and still counts in the mean.
    """
    reached = times.where(times < np.inf)
    best = reached.min()
    # The best is 1 even where its time is 0.
    return (reached / best).where(reached != best, 1.0).fillna(np.inf)


def profiles(ratio: pd.DataFrame, taus: Sequence[float]) -> pd.DataFrame:
    """rho(tau), the share of workloads within `tau` of the best: a row a tau, a column a submission."""
    values = ratio.to_numpy()
    rho = [(values <= tau).mean(axis=1) for tau in taus]
    return pd.DataFrame(rho, index=pd.Index(taus, name="tau"), columns=ratio.index)


def grid(tau_max: float) -> list[float]:
    """AlgoPerf's 100 equally spaced taus from 1 to `tau_max`."""
    return [float(tau) for tau in np.linspace(1.0, tau_max, GRID_POINTS)]


def grid_scores(ratio: pd.DataFrame, tau_max: float) -> pd.Series:
    """AlgoPerf's score: the profile integrated by the trapezoid rule on the grid, over `tau_max` - 1."""
    rho = profiles(ratio, grid(tau_max))
    heights = rho.rolling(2).mean().iloc[1:]
    area = heights.mul(np.diff(rho.index), axis="index").sum()
    return area / (tau_max - 1)


def exact_scores(ratio: pd.DataFrame, tau_max: float) -> pd.Series:
    """The integral in closed form: the mean over workloads of max(0, tau_max - ratio) / (tau_max - 1)."""
    return ((tau_max - ratio).clip(lower=0) / (tau_max - 1)).mean(axis=1)
