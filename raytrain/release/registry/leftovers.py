"""What takes room in a store and means nothing: found, and how old it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable

from raytrain.release.registry.findings import Orphan, Tell, passed_over
from raytrain.release.registry.store import Seal, Store
from raytrain.storage.location import Location
from raytrain.storage.manifest import Manifest

GRACE_S = 3600.0
"""Younger than that it may be somebody's who has not finished: a bundle stands before the entry that names it."""

_SHELF = re.compile(r"_(approvals|records)\..+")


Named = Callable[[str], Collection[str]]
"""Bundles that entries of a name name."""


def find(store: Store, names: re.Pattern[str], named: Named, tell: Tell | None) -> list[Orphan]:
    """names: what a release may be called; what lies under others is nobody's."""
    found: list[Orphan] = []
    for name in store.names():
        if _is_shelf(name):
            found += _unfinished(store, name, tell)
        elif names.fullmatch(name):
            with passed_over(name, "journal", tell):
                by_entries = named(name)
                found += [_orphan(store, name, one) for one in store.bundles(name) if one not in by_entries]
                found += _strays(store, name)
    return found


def delete(store: Store, orphans: Iterable[Orphan], named: Named, grace_s: float) -> list[Orphan]:
    """Those that are older, and still mean nothing."""
    deleted = []
    for one in orphans:
        if _age_s(store, one) < grace_s:
            continue
        if one.digest is None:
            store.delete_stray(one.name, one.place)
        elif not _delete_bundle(store, one.name, one.digest, named):
            continue
        deleted.append(one)
    return deleted


def _delete_bundle(store: Store, name: str, digest: str, named: Named) -> bool:
    """Asked twice: somebody may register it while it is taken away, and an entry that is written later than that finds
    it gone, for whoever wrote it looks."""

    def is_needed(seal: Seal) -> bool:
        """What lies on a shelf no entry has to name: it was put there to its end where a signature is beside it."""
        return None not in seal if _is_shelf(name) else digest in named(name)

    return not is_needed(store.seal(name, digest)) and store.delete_bundle(name, digest, is_needed)


def _is_shelf(name: str) -> bool:
    return _SHELF.fullmatch(name) is not None


def _orphan(store: Store, name: str, digest: str) -> Orphan:
    return Orphan(name, digest, store.bundle_place(name, digest), store.age_s(name, digest))


def _strays(store: Store, name: str) -> list[Orphan]:
    return [Orphan(name, None, place, age_s) for place, age_s in store.strays(name).items()]


def _age_s(store: Store, orphan: Orphan) -> float:
    """By now; 0 where it is not there any more."""
    if orphan.digest is None:
        return store.strays(orphan.name).get(orphan.place, 0.0)
    return store.age_s(orphan.name, orphan.digest)


def _unfinished(store: Store, shelf: str, tell: Tell | None) -> list[Orphan]:
    """Of a shelf. What was signed and cannot be read is told, and is nobody's to delete."""
    found = _strays(store, shelf)
    for digest in store.bundles(shelf):
        manifest, signature = store.seal(shelf, digest)
        if manifest is None or signature is None:
            found.append(_orphan(store, shelf, digest))
            continue
        with passed_over(shelf, digest[:12], tell):
            Manifest.from_json(manifest, Location(store.bundle_place(shelf, digest)))
    return found
