"""RAYTRAIN_HOME: the folder that holds the records database, the run folders and, by default, all artifacts."""

from __future__ import annotations

import os
from pathlib import Path


def raytrain_home() -> Path:
    """`$RAYTRAIN_HOME`, or `~/.raytrain`."""
    return Path(os.environ.get("RAYTRAIN_HOME") or Path.home() / ".raytrain").expanduser().absolute()


def run_folder(run_id: str) -> Path:
    """The folder on this machine with a run's resolved recipe, metrics, TensorBoard files and plots."""
    return raytrain_home() / "runs" / run_id
