"""What stands beside an artifact's digest: where, when and with what it was made."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import socket
import subprocess
from datetime import UTC, datetime
from functools import cache
from typing import Any

_PACKAGES = (
    "raytrain",
    "ray",
    "torch",
    "transformers",
    "peft",
    "numpy",
    "pyarrow",
    "safetensors",
    "tokenizers",
)


@cache
def _git_state() -> dict[str, Any]:
    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *arguments], capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    return {"commit": commit, "dirty": bool(git("status", "--porcelain")) if commit else None}


@cache
def _package_versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def collect_provenance(
    *, config: dict[str, Any] | None = None, seed: int | None = None, **more: Any
) -> dict[str, Any]:
    """Resolved config, git commit and dirty flag, package versions, seed, host and time (UTC) of now."""
    return {
        "config": config,
        "seed": seed,
        "git": _git_state(),
        "packages": _package_versions(),
        "host": socket.gethostname(),
        "user": os.environ.get("USER"),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **more,
    }
