"""A bundle under the version that follows from what has changed in it."""

from __future__ import annotations

from pathlib import Path

from raytrain.release.bundle.description import ingredients_of
from raytrain.release.keys import KeyRing
from raytrain.release.registry.evidence import details_of
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.versions import Version, next_version
from raytrain.storage.artifact import open_artifact
from raytrain.storage.location import Location


def register_next(
    registry: Registry, name: str, folder: Path, ring: KeyRing, *, why: str, evaluations: tuple[str, ...] = ()
) -> Version:
    """Its version, under which it is registered where it has none that still counts.

    Raises what `Registry.register` raises, RefusedError where an evaluation is of another artifact.
    """
    artifact = open_artifact(Location(str(folder)), verify=False)
    released = registry.released(name)
    for one in released:
        if one.digest == artifact.digest and one.version not in registry.state(name).withdrawn:
            return one.version
    made_from, details = ingredients_of(artifact), details_of(artifact, evaluations)
    version = next_version([(one.version, one.made_from) for one in released], made_from)
    found = registry.register(name, version, folder, ring, made_from=made_from, why=why, details=details)
    return found.version
