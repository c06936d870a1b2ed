"""The racer's process cannot open the evaluation data, by whatever road, and cannot take the fence down."""

import subprocess
import sys
from pathlib import Path

import pytest

ROADS = {
    "open": "open(path)",
    "os.open": "import os; os.open(path, os.O_RDONLY)",
    "pathlib": "import pathlib; pathlib.Path(path).read_bytes()",
    "numpy": "import numpy; numpy.load(path)",
    "memmap": "import numpy; numpy.memmap(path)",
    "relative": "import os; os.chdir(os.path.dirname(os.path.dirname(path))); open('evaluation/secret.npy')",
    "link": "import os; os.symlink(path, path.replace('evaluation/secret', 'link')); "
    "open(path.replace('evaluation/secret', 'link'))",
    "list": "import os; os.listdir(os.path.dirname(path))",
    "swallowed": "try:\n    open(path)\nexcept BaseException:\n    pass",
}


@pytest.mark.parametrize("road", ROADS.values(), ids=ROADS.keys())
def test_every_road_is_closed_and_every_attempt_is_known(tmp_path: Path, road: str) -> None:
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "secret.npy").write_bytes(b"secret")
    (tmp_path / "training.npy").write_bytes(b"public")
    script = (
        f"from timetrial.engine.fence import Fence\nfence = Fence([{str(tmp_path / 'evaluation')!r}])\n"
        f"assert open({str(tmp_path / 'training.npy')!r}).read() == 'public' and fence.breach is None\n"
        f"path = {str(tmp_path / 'evaluation' / 'secret.npy')!r}\n"
        "try:\n    " + road.replace("\n", "\n    ") + "\n    swallowed = True\n"
        "except Exception as error:\n    assert 'evaluation data' in str(error), error\n"
        "assert fence.breach is not None and 'evaluation' in fence.breach\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
