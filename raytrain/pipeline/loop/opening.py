"""What a loop works with: its registry, its keys, its storage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from raytrain.pipeline.loop.section import Loop
from raytrain.pipeline.steps import Release
from raytrain.release.gate.evidence import Shelves
from raytrain.release.gate.promote import Desk
from raytrain.release.keys import KeyRing
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.store import open_store
from raytrain.runs.records import Records
from raytrain.storage.home import raytrain_home
from raytrain.storage.location import Location


def release_of(loop: Loop, records: Records, tell: Callable[[str], None] = lambda _: None) -> Release:
    """Raises ConfigError where the registry's place is none, or the key is not there."""
    section = loop.section
    ring = KeyRing(None if section.keys is None else Path(section.keys).expanduser())
    registry = Registry(open_store(section.registry or str(raytrain_home() / "registry")))
    storage = section.storage.location
    desk = Desk(registry, ring, Shelves(storage, records), tell)
    key = ring.signing_key(section.key)
    return Release(section.release, desk, key, loop.policy, storage, section.export_check)


def retrainings_of(release: Release) -> Location:
    """Where orders leave what they make, each in a folder of its id."""
    return release.storage / "retrainings"
