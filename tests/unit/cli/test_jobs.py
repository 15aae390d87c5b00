"""The files that `ray job submit` starts are commands of raytrain and nothing more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent.parent


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "command"), [("train", "train"), ("evaluate", "evaluate"), ("tune", "tune"), ("pipeline", "run")]
)
def test_an_entry_file_is_its_command(name: str, command: str, tmp_path: Path) -> None:
    words = ["no such thing.yaml", "--json"] + (["--suite", "absent.yaml"] if name == "evaluate" else [])
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    answers = [
        subprocess.run(
            [sys.executable, *start, *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        for start in ([ROOT / "jobs" / f"{name}.py"], ["-m", "raytrain", command])
    ]
    assert [one.returncode for one in answers] == [2, 2]
    assert json.loads(answers[0].stdout) == json.loads(answers[1].stdout)
    assert "error" in json.loads(answers[0].stdout)
