"""What a serving config says: `serve/*.yaml`, and `raytrain serve start`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from raytrain.config.section import Section
from raytrain.serving.engine.section import EngineSection
from raytrain.storage.section import StorageSection


class ReleaseSection(Section):
    """`releases:`: which versions are served, and whom they must be signed by."""

    registry: str | None = None
    """Folder or URI of the registry; null = $RAYTRAIN_HOME/registry."""
    names: list[str] | None = None
    """Names that are served; null = all whose adapters are over this base model."""
    keys: str | None = None
    """Folder of the key ring; null = $RAYTRAIN_HOME/keys. Public keys are all it needs."""
    policies: list[str] | None = None
    """Digests of the gate's policies that a version may have been let in by; null = any."""
    poll_s: float = Field(default=0.25, gt=0.0, le=60.0)
    """How often the registry is asked whether an alias has moved."""


class ServingSection(Section):
    """One base model, and the released adapters over it."""

    base_model: str
    """As in a recipe: hub id, local folder, .gguf file, artifact, or package://PACKAGE/FILE."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """The dtype that the base model's weights are held in; adapters are float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model computes; auto = a GPU where there is one."""
    threads: int | None = Field(default=None, ge=1)
    """Of a replica on a CPU; null = as many as the replica has CPUs."""
    releases: ReleaseSection = Field(default_factory=ReleaseSection)
    engine: EngineSection = Field(default_factory=EngineSection)
    storage: StorageSection = Field(default_factory=StorageSection)
    """Where a model that was converted, as from GGUF, is kept."""
