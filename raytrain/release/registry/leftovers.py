"""What takes room in a store and means nothing: found, and how old it is."""

from __future__ import annotations

import re

from raytrain.release.registry.findings import Orphan, Tell, passed_over
from raytrain.release.registry.store import Store
from raytrain.storage.location import Location
from raytrain.storage.manifest import Manifest

GRACE_S = 3600.0
"""Younger than that it may be somebody's who has not finished: a bundle stands before the entry that names it."""

_SHELF = re.compile(r"_(approvals|records)\..+")


def is_shelf(name: str) -> bool:
    """Whether approvals or records lie under this name, which no entry has to name."""
    return _SHELF.fullmatch(name) is not None


def orphan_of(store: Store, name: str, digest: str) -> Orphan:
    return Orphan(name, digest, store.bundle_place(name, digest), store.age_s(name, digest))


def strays_of(store: Store, name: str) -> list[Orphan]:
    return [Orphan(name, None, place, age_s) for place, age_s in store.strays(name).items()]


def age_of(store: Store, orphan: Orphan) -> float:
    """By now; 0 where it is not there any more."""
    if orphan.digest is None:
        return store.strays(orphan.name).get(orphan.place, 0.0)
    return store.age_s(orphan.name, orphan.digest)


def is_signed(store: Store, name: str, digest: str) -> bool:
    """Whether an artifact was put to its end: its manifest stands there, and a signature."""
    return None not in store.seal(name, digest)


def unfinished(store: Store, shelf: str, tell: Tell | None) -> list[Orphan]:
    """Of a shelf. What was signed and cannot be read is told, and is nobody's to delete."""
    found = strays_of(store, shelf)
    for digest in store.bundles(shelf):
        manifest, signature = store.seal(shelf, digest)
        if manifest is None or signature is None:
            found.append(orphan_of(store, shelf, digest))
            continue
        with passed_over(shelf, digest[:12], tell):
            Manifest.from_json(manifest, Location(store.bundle_place(shelf, digest)))
    return found
