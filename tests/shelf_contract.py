"""What a shelf must keep in every store of a registry: one suite, which each back end's test module runs over its own.

A module subclasses `ShelfContract` and gives the fixture `place`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from registry_contract import Place

from raytrain.errors import RefusedError
from raytrain.release.keys import KeyRing
from raytrain.release.registry import shelf as shelf_module
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.shelf import Shelf, shelf_of
from raytrain.storage.artifact import Artifact

BUNDLE = "sha256:" + "b" * 64


def shelf_in(place: Place) -> Shelf:
    return shelf_of(Registry(place.open()), "sums", "records")


def put(shelf: Shelf, ring: KeyRing, key: str = "release", text: str = "GO") -> Artifact:
    def write(folder: Path) -> None:
        (folder / "checklist.md").write_text("all is well")
        (folder / "record.json").write_text(text)

    return shelf.put("promotion", write, ring.signing_key(key), ring, parents={"bundle": BUNDLE})


class ShelfContract:
    """Whoever else puts, signs or reads the same meanwhile: what stands there verifies."""

    @pytest.fixture(autouse=True)
    def several_machines(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each who puts something has a manifest of its own."""
        times = iter(range(1000))
        monkeypatch.setattr(shelf_module, "collect_provenance", lambda: {"created_at": str(next(times))})

    @pytest.fixture
    def shelf(self, place: Place) -> Shelf:
        return shelf_in(place)

    def test_of_two_who_put_the_same_both_have_what_verifies(
        self, shelf: Shelf, place: Place, ring: KeyRing
    ) -> None:
        """The second is through between the first one's look and its writing."""
        ring.generate("grace")
        there, other, found = shelf.store.put_bundle, shelf_in(place), []

        def put_bundle(name: str, digest: str, folder: Path) -> bool:
            found.append(put(other, ring, "grace"))
            return there(name, digest, folder)

        shelf.store.put_bundle = put_bundle  # type: ignore[method-assign]
        found.append(put(shelf, ring))
        assert found[0].manifest == found[1].manifest
        assert shelf.get(found[0].digest, ring).key.name == "grace"

    def test_the_same_is_kept_with_its_time_and_signature(self, shelf: Shelf, ring: KeyRing) -> None:
        ring.generate("grace")
        first, second = put(shelf, ring), put(shelf, ring, "grace")
        assert first.manifest == second.manifest
        assert shelf.get(first.digest, ring).key.name == "release"

    def test_what_nobody_signed_or_a_revoked_key_is_signed_as_it_stands(
        self, shelf: Shelf, place: Place, ring: KeyRing
    ) -> None:
        first = put(shelf, ring)
        place.write(f"{shelf.place}/{first.digest[7:]}.sig", None)
        assert put(shelf, ring).manifest == first.manifest
        ring.revoke(ring.known()[0].id, "a laptop was lost")
        ring.generate("grace")
        assert put(shelf, ring, "grace").manifest == first.manifest
        assert shelf.get(first.digest, ring).key.name == "grace"

    def test_what_is_damaged_is_put_anew(self, shelf: Shelf, place: Place, ring: KeyRing) -> None:
        first = put(shelf, ring)
        for name, content in (("record.json", b"{}"), ("record.json", None), ("manifest.json", b"{")):
            place.write(f"{shelf.place}/{first.digest[7:]}/{name}", content)
            assert put(shelf, ring).digest == first.digest
            assert shelf.get(first.digest, ring).artifact.digest == first.digest

    def test_nobody_signs_over_a_key_that_their_ring_lacks(
        self, shelf: Shelf, ring: KeyRing, tmp_path: Path
    ) -> None:
        first = put(shelf, ring)
        mine = KeyRing(tmp_path / "keys of another")
        mine.generate("mine")
        with pytest.raises(RefusedError, match="does not verify") as told:
            put(shelf, mine, "mine")
        assert "nobody here knows" in told.value.why and "raytrain keys trust" in told.value.fix
        assert shelf.get(first.digest, ring).key.name == "release"
