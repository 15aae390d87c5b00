"""Evidence that came along with a bundle, over what lies there of the same digest."""

from __future__ import annotations

from pathlib import Path

from releases import Evidence

from raytrain.release.keys import KeyRing
from raytrain.release.registry.cited_evidence import arrived_folder, keep_evidence, open_evidence
from raytrain.release.signing import sign
from raytrain.storage.location import Location
from raytrain.storage.manifest import digest_hex

BUNDLE = f"sha256:{'ab' * 32}"
OLD, NEW = "2026-01-01T00:00:00+00:00", "2026-11-20T00:00:00+00:00"


def report(folder: Path, created_at: str, ring: KeyRing | None = None) -> Path:
    """The same, but for its time and its signature."""
    made = Evidence(folder).report("x", "check_report", {"passed": True}, {"a": "b"}, created_at=created_at)
    place = folder / digest_hex(made.digest)
    (folder / "x").rename(place)
    if ring is not None:
        sign(place, ring.signing_key("release"))
    return place


def arrived(one: Path) -> Location:
    return Location(str(arrived_folder(BUNDLE) / one.name))


def test_manifest_and_signature_come_together_over_an_older_copy(tmp_path: Path, ring: KeyRing) -> None:
    keep_evidence([report(tmp_path / "old", OLD)], BUNDLE)
    signed = report(tmp_path / "new", NEW, ring)
    assert open_evidence(arrived(signed), ring).manifest.provenance["created_at"] == OLD
    keep_evidence([signed], BUNDLE)
    assert open_evidence(arrived(signed), ring).manifest.provenance["created_at"] == NEW


def test_a_signed_one_does_not_give_way_to_one_that_is_not(tmp_path: Path, ring: KeyRing) -> None:
    signed = report(tmp_path / "old", OLD, ring)
    keep_evidence([signed], BUNDLE)
    keep_evidence([report(tmp_path / "new", NEW)], BUNDLE)
    assert open_evidence(arrived(signed), ring).manifest.provenance["created_at"] == OLD
