"""Two gloo ranks on the CPU: shipped and AlgoPerf-style torch submissions take the step of one process."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import submission_rank

from timetrial.submissions import SUBMISSIONS

HERE = Path(__file__).parent
PATHS = [str(path) for path in (*SUBMISSIONS.values(), HERE / "algoperf_style" / "momentum_torch")]


@pytest.fixture(scope="module")
def ranks():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    command = [sys.executable, HERE / "submission_rank.py", *PATHS]
    processes = [
        subprocess.Popen(
            command,
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=180)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0]
    return [json.loads(output) for output in outputs]


@pytest.mark.parametrize("path", PATHS)
def test_two_ranks_take_the_steps_of_one(ranks, path):
    first, second = (rank[path] for rank in ranks)
    alone = submission_rank.train(path, 0, 1)
    assert first["weights"] == second["weights"]
    np.testing.assert_allclose(first["weights"], alone["weights"], rtol=2e-5, atol=1e-6)
    assert second["log"] == []
    [[step, logged]], [(_, expected)] = first["log"], alone["log"]
    assert step == 0
    assert logged == pytest.approx(expected, rel=1e-5)
