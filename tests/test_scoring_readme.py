"""The Python in scoring/README.md runs as it stands."""

import re
from pathlib import Path

import pytest
from trial_writer import write_pocket_run

README = Path(__file__).resolve().parents[1] / "scoring" / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_example(tmp_path, monkeypatch, capsys, number):
    write_pocket_run(tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[number], str(README), "exec"), {})
    assert ("adamw" if "runs" in BLOCKS[number] else "mine") in capsys.readouterr().out
