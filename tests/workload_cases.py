"""Which workloads a test over the registry takes, and which of them are left to `-m slow`."""

import pytest
from small_models import small

from timetrial.workloads import WORKLOADS


def workloads(slow=()):
    """All workloads; those of `slow` are marked so."""
    return [pytest.param(n, marks=[pytest.mark.slow] if n in slow else []) for n in WORKLOADS]


def sized_workloads(slow=()):
    """(workload, "small" or "full"); one whose model is small as it is has one case. Full size and `slow` are slow."""
    return [
        pytest.param(
            name,
            size,
            marks=[pytest.mark.slow] if size == "full" or name in slow else [],
            id=f"{name}-{size}",
        )
        for name, facts in WORKLOADS.items()
        for size in (("small",) if small(facts.model) == facts.model else ("small", "full"))
    ]
