"""What a shelf must keep in every store of a registry: one suite, which each back end's test module runs over its own.

A module subclasses `ShelfContract` and gives the fixture `place`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from registry_places import Place

from raytrain.errors import IntegrityError, RefusedError
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

    def test_what_cannot_be_read_may_be_about_anything(
        self, shelf: Shelf, place: Place, ring: KeyRing
    ) -> None:
        """Whoever verifies it says why it does not count; what else is there is found nevertheless."""
        whole, broken = put(shelf, ring).digest, "0" * 64
        place.write(f"{shelf.place}/{broken}/manifest.json", b"{")
        place.write(f"{shelf.place}/{broken}.sig", place.read(f"{shelf.place}/{whole[7:]}.sig"))
        assert [one.name for one in shelf.about(BUNDLE)] == [broken, whole[7:]]
        with pytest.raises(IntegrityError, match="is not a manifest"):
            shelf.get(f"sha256:{broken}", ring)

    def test_what_is_damaged_is_put_anew(self, shelf: Shelf, place: Place, ring: KeyRing) -> None:
        first = put(shelf, ring)
        for name, content in (("record.json", b"{}"), ("record.json", None), ("manifest.json", b"{")):
            place.write(f"{shelf.place}/{first.digest[7:]}/{name}", content)
            assert put(shelf, ring).digest == first.digest
            assert shelf.get(first.digest, ring).artifact.digest == first.digest

    def test_who_reads_while_it_is_written_has_it_afterwards(
        self, shelf: Shelf, place: Place, ring: KeyRing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On another machine than the writer's."""
        digest = put(shelf_of(Registry(tmp_path / "elsewhere"), "sums", "records"), ring).digest
        assert shelf.about(BUNDLE) == []
        for name, content in (("record.json", b"GO"), ("checklist.md", b"all is well")):
            place.write(f"{shelf.place}/{digest[7:]}/{name}", content)
            assert shelf.about(BUNDLE) == []
        with monkeypatch.context() as elsewhere:
            elsewhere.setenv("RAYTRAIN_HOME", str(tmp_path / "home of the writer"))
            assert put(shelf, ring).digest == digest
        assert [one.name for one in shelf.about(BUNDLE)] == [digest[7:]]
        assert shelf.get(digest, ring).key.name == "release"

    def test_a_damaged_copy_on_this_machine_changes_nothing(
        self, shelf: Shelf, ring: KeyRing, home: Path
    ) -> None:
        digest = put(shelf, ring).digest
        shelf.get(digest, ring)
        for file in (home / "cache").rglob("*"):
            if file.is_file():
                file.write_bytes(b"x" * file.stat().st_size)
        (found,) = shelf.about(BUNDLE)
        assert (found / "record.json").read_bytes() == b"GO"
        for file in (home / "cache").rglob("record.json"):
            file.write_bytes(b"OG")
        (found,) = shelf.about(BUNDLE)
        assert (found / "record.json").read_bytes() == b"GO"
        for file in (home / "cache").rglob("record.json"):
            file.write_bytes(b"OG")
        assert (shelf.get(digest, ring).artifact.path / "record.json").read_bytes() == b"GO"

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
