"""Training steps in JAX compile for one H100 and for eight, without one: `pytest -m slow -s`, with the extra
`jax-ahead-of-time`.

One workload for each kind of operation that has a kernel. Models have their full width and few layers
(`h100_step.py`); peak memory, which -s shows, is theirs.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from timetrial.kernels import ahead_of_time_jax

STEP = Path(__file__).with_name("h100_step.py")
WORKLOADS = ("wmt", "ogbg", "criteo1tb", "librispeech_conformer")


@pytest.mark.slow
@pytest.mark.skipif(ahead_of_time_jax.why_not() is not None, reason=str(ahead_of_time_jax.why_not()))
@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_training_step_compiles_for_h100s_and_updates_its_state_in_place(workload, devices):
    done = subprocess.run(
        [sys.executable, STEP, workload, str(devices)],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    found = json.loads(done.stdout.splitlines()[-1])
    peak = (found["arguments"] + found["kept"]) / 2**20
    sent = ", ".join(found["collectives"]) or "nothing sent"
    print(f"\n{workload}, {devices} devices: {peak:.0f} MiB each, {sent}")
    assert found["aliased"] == found["state"]
    assert ("all-reduce" in found["collectives"]) == (devices > 1)
