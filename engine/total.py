"""Sufficient statistics of a split, from those of its batches."""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from timetrial.engine.facts import Statistics


class Total:
    """Scalars added up in float64; arrays joined along their first axis, in the order of the batches."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._rows: dict[str, list[np.ndarray]] = defaultdict(list)

    def add(self, statistics: Mapping[str, np.ndarray]) -> None:
        """One batch's; every batch has the same names."""
        for name, value in statistics.items():
            if value.ndim:
                self._rows[name].append(value)
            else:
                self._sums[name] += float(value)

    def statistics(self) -> Statistics:
        """Of all batches so far."""
        return dict(self._sums) | {name: np.concatenate(rows) for name, rows in self._rows.items()}
