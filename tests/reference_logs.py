"""The public logs of the first AlgoPerf competition, where they are at hand.

TIMETRIAL_REFERENCE_LOGS names the folder that holds them; tests that need them are skipped where they are absent.
"""

import json
import os
import tarfile
from pathlib import Path

import pytest

FOLDER = Path(
    os.environ.get(
        "TIMETRIAL_REFERENCE_LOGS", Path(__file__).resolve().parents[1].parent / "shared" / "reference"
    )
)
LOGS = FOLDER / "algoperf_v05_external_logs.tar.xz"
EXPECTED = FOLDER / "expected_v05_external.json"

needs_reference_logs = pytest.mark.skipif(
    not (LOGS.exists() and EXPECTED.exists()),
    reason=f"the competition's logs are not in {FOLDER}; set TIMETRIAL_REFERENCE_LOGS to a folder with them",
)


def unpack(folder):
    """Unpack the logs below `folder`."""
    with tarfile.open(LOGS) as archive:
        archive.extractall(folder, filter="data")
    return folder


def expected():
    """Published and recomputed scores and times, by submission."""
    return json.loads(EXPECTED.read_text())["v05_external_tuning"]
