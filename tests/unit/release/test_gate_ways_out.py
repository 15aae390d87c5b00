"""Whatever the gate holds, something can be done about: none of its answers is a dead end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gates import held, promoted, wanted
from releases import Evidence, Trained, release

from raytrain.release.gate.evidence import Shelves
from raytrain.release.gate.promote import Desk
from raytrain.release.keys import KeyRing
from raytrain.release.registry.registry import Registry
from raytrain.storage.location import Location


def test_a_version_that_waited_for_long_wants_new_reports_and_nothing_else(
    tmp_path: Path, ring: KeyRing, evidence: Evidence
) -> None:
    """A bundle that is made anew has the same digest, and the registry keeps the first one with its time."""
    registry = Registry(tmp_path / "other-registry")
    release(registry, ring, tmp_path / "old", Trained(), "1.0.0", created_at="2020-01-01T00:00:00+00:00")
    desk = Desk(registry, ring, Shelves(Location(str(tmp_path / "storage"))))
    stale = replace(desk, clock=lambda: desk.clock() + 31 * 86_400)
    assert list(held(stale, wanted(evidence))) == ["fresh"]
    assert promoted(desk, wanted(evidence)).moved
