"""Whether the records that a journal names are there as they were signed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from raytrain.errors import IntegrityError, PlatformError
from raytrain.release.keys import KeyRing
from raytrain.release.registry.findings import Fault
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.shelf import shelf_of
from raytrain.release.registry.state import state_of


def audit(registry: Registry, ring: KeyRing) -> Iterator[tuple[str, list[Fault]]]:
    """`Registry.audit`, and the records."""
    for name, found in registry.audit(ring):
        yield name, found + list(_record_faults(registry, name, ring))


def _record_faults(registry: Registry, name: str, ring: KeyRing) -> Iterator[Fault]:
    """Of each move. A key that does not count is a fault only where an alias stands on the record: nobody can sign
    anew what was decided long ago. A journal that is broken is `Registry.audit`'s to tell."""
    try:
        entries = registry.journal(name).read(fresh=True)
        stands_on = {one.details.get("decision") for one in state_of(entries).moved.values()}
    except PlatformError:
        return
    moves = [one for one in entries if one.action == "move" and one.details.get("decision")]
    for digest, number in {str(one.details["decision"]): one.number for one in moves}.items():
        try:
            with tempfile.TemporaryDirectory(prefix="raytrain-") as scratch:
                shelf_of(registry, name, "records").get(digest, ring, Path(scratch))
        except PlatformError as error:
            if digest in stands_on or isinstance(error, IntegrityError):
                yield Fault(name, f"record of entry {number}", error.line)
