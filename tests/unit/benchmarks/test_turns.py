"""Programs take turns to their ends; one that fails is named with its own words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.turns import ENVIRONMENT, Round

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent.parent
PROGRAM = """
import os, sys
from benchmarks.turns import ENVIRONMENT, Turns
turns = Turns(*os.environ[ENVIRONMENT].split("#"))
for step in range(3):
    turns.step_ended(is_last=step == 2, step=step)
print("said at the end")
sys.exit(int(sys.argv[1]))
"""


@pytest.mark.parametrize("code", [0, 3])
def test_programs_take_turns_to_their_ends(tmp_path: Path, code: int) -> None:
    socket = tmp_path / "turns"

    def start(name: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, ENVIRONMENT: f"{socket}#{name}", "PYTHONPATH": str(ROOT)}
        ending = str(code if name == "second" else 0)
        command = [sys.executable, "-c", PROGRAM, ending]
        return subprocess.Popen(command, env=environment, stdout=(tmp_path / name).open("wb"))

    with Round(socket) as turns:
        if code:
            with pytest.raises(SystemExit, match="second failed: said at the end"):
                turns.play(["first", "second"], start, lambda name: tmp_path / name)
            return
        told = turns.play(["first", "second"], start, lambda name: tmp_path / name)
    assert {name: [step["step"] for step in steps] for name, steps in told.items()} == {
        "first": [0, 1, 2],
        "second": [0, 1, 2],
    }
