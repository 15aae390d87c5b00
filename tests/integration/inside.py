"""A workbench without a process for each command: `raytrain` is called in the test's own, where that shows the same."""

from __future__ import annotations

import io
import json
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from bench import Bench, Outcome

from raytrain.cli.main import run


class Inside(Bench):
    """Joins its cluster once for all its commands, which saves each the imports of Ray and torch."""

    def run(self, *words: str | Path, timeout_s: float = 180) -> Outcome:
        started = time.monotonic()
        stdout, stderr = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
            patch.setenv("RAYTRAIN_HOME", str(self.home))
            code = run([str(word) for word in words])
        found: dict[str, Any] = json.loads(stdout.getvalue()) if "--json" in words else {}
        return Outcome(code, found, stdout.getvalue(), stderr.getvalue(), time.monotonic() - started)

    def train(self, recipe: Path, *words: str, timeout_s: float = 180) -> Outcome:
        assert self.address is not None
        return self.run("train", recipe, *words, "--json", "--address", self.address)
