"""An image of a bundle holds the versions that its inventory lists: pip itself is asked."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from raytrain.release.inventory.packages import constraints_of, environment_of

pytestmark = pytest.mark.whole


def install(folder: Path) -> subprocess.CompletedProcess[str]:
    """As the Dockerfile does, but that nothing is fetched or changed."""
    words = ["install", "--no-index", "--dry-run", "-r", "requirements.txt", "-c", "constraints.txt"]
    return subprocess.run(
        [sys.executable, "-m", "pip", *words], cwd=folder, capture_output=True, text=True, check=False
    )


def test_pip_takes_the_constraints_and_holds_what_is_not_named_to_them(tmp_path: Path) -> None:
    environment = environment_of(["pydantic", "torch"])
    text = constraints_of(environment)
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    versions = {one.name: one.version.partition("+")[0] for one in environment.packages}
    assert dict(line.split("==") for line in lines) == versions
    assert {"pydantic-core", "sympy"} <= versions.keys()
    (tmp_path / "requirements.txt").write_text("pydantic\ntorch\n")
    (tmp_path / "constraints.txt").write_text(text)
    done = install(tmp_path)
    assert done.returncode == 0, done.stderr
    installed = importlib.metadata.version("sympy")
    (tmp_path / "constraints.txt").write_text(text.replace(f"sympy=={installed}", "sympy==0.1"))
    done = install(tmp_path)
    assert done.returncode != 0 and "(constraint) sympy==0.1" in done.stdout
