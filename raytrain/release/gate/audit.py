"""Whether the records that a journal names are there as they were signed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from raytrain.errors import IntegrityError, PlatformError
from raytrain.release.gate.recorded import read_turn
from raytrain.release.gate.turn import OLDER, turn_of, unlike
from raytrain.release.keys import KeyRing
from raytrain.release.registry.findings import Fault
from raytrain.release.registry.journal import Entry
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.shelf import shelf_of
from raytrain.release.registry.state import PREVIOUS, PRODUCTION, state_of


def audit(registry: Registry, ring: KeyRing) -> Iterator[tuple[str, list[Fault]]]:
    """`Registry.audit`, and the records."""
    for name, found in registry.audit(ring):
        yield name, found + list(_record_faults(registry, name, ring))


def _record_faults(registry: Registry, name: str, ring: KeyRing) -> Iterator[Fault]:
    """Of each move. A key that does not count, and a record of an older raytrain, is a fault only where an alias stands
    on it: nobody can sign anew what was decided long ago. A journal that is broken is `Registry.audit`'s to tell."""
    try:
        entries = registry.journal(name).read(fresh=True)
        stands_on = _stands_on(entries)
    except PlatformError:
        return
    named_by: dict[str, int] = {}
    for move in entries:
        if move.action != "move" or not move.details.get("decision"):
            continue
        digest, stands = str(move.details["decision"]), move.number in stands_on
        try:
            with tempfile.TemporaryDirectory(prefix="raytrain-") as scratch:
                record = shelf_of(registry, name, "records").get(digest, ring, Path(scratch))
                told = read_turn(record.artifact)
        except PlatformError as error:
            if stands or isinstance(error, IntegrityError):
                yield Fault(name, f"record of entry {move.number}", error.line)
            continue
        first = named_by.setdefault(digest, move.number)
        why = unlike(told, turn_of(name, move, entries))
        if why and (stands or why != OLDER):
            twice = f"; entry {first} names it already" if first != move.number else ""
            yield Fault(
                name, f"record of entry {move.number}", f"{digest} does not count for it: {why}{twice}"
            )


def _stands_on(entries: list[Entry]) -> set[int]:
    """Numbers of the moves by which aliases are where they are; of `previous` the one that led production there."""
    found = set()
    for alias, version in state_of(entries).aliases.items():
        led = PRODUCTION if alias == PREVIOUS else alias
        moves = [one for one in entries if one.moves(led) and one.details["version"] == str(version)]
        found |= {moves[-1].number}
    return found
