"""What every store of a registry must keep: one suite, which each back end's test module runs over its own.

A module subclasses `RegistryContract` and gives the fixture `place`.
"""

from __future__ import annotations

import json
import multiprocessing
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bundles import make_bundle
from registry_places import Place

from raytrain.errors import ConfigError, IntegrityError, NotRegisteredError, RefusedError, StorageError
from raytrain.release.keys import KeyRing
from raytrain.release.registry.findings import Fault, Orphan
from raytrain.release.registry.following import Following
from raytrain.release.registry.journal import Entry, Journal, content_of
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.shelf import shelf_of
from raytrain.release.registry.store import IsNeeded, Seal
from raytrain.release.registry.versions import Version
from raytrain.release.signing import sign, signature_place
from raytrain.storage.artifact import copy_artifact
from raytrain.storage.location import Location
from raytrain.storage.manifest import MANIFEST_NAME, read_manifest

V1, V2 = Version(1, 0, 0), Version(1, 1, 0)


def release(registry: Registry, ring: KeyRing, version: Version, bundle: Path) -> None:
    registry.register("sums", version, bundle, ring, made_from={"dataset": bundle.name}, why="a test")


def move(registry: Registry, version: Version, expected: Version | None, alias: str = "production") -> None:
    registry.move("sums", alias, version, expected=expected, decision=None, why="a test")


def of_another_day(bundle: Path, folder: Path, ring: KeyRing) -> Path:
    """The same digest; its manifest, and so its signature, is another."""
    copy_artifact(Location(str(bundle)), Location(str(folder)))
    manifest = replace(read_manifest(Location(str(folder))), provenance={"seed": 9})
    (folder / MANIFEST_NAME).write_bytes(manifest.to_json())
    sign(folder, ring.signing_key("release"))
    return folder


def not_to_be_called(*_: object) -> Any:
    raise AssertionError("nothing is to be deleted")


def faults_of(registry: Registry, ring: KeyRing) -> list[Fault]:
    return [fault for _, faults in registry.audit(ring) for fault in faults]


def state_told(registry: Registry) -> object:
    """Everything that a step changes."""
    state = registry.state("sums")
    tags = {one: set(tags) for one, tags in state.tags.items()}
    return sorted(state.versions), dict(state.aliases), tags, sorted(state.withdrawn)


def script(registry: Registry, ring: KeyRing, bundles: list[Path]) -> list[Callable[[], object]]:
    """Steps of a registry's life, each of which is done or not."""
    return [
        lambda: release(registry, ring, V1, bundles[0]),
        lambda: move(registry, V1, None),
        lambda: release(registry, ring, V2, bundles[1]),
        lambda: move(registry, V2, V1),
        lambda: registry.tag("sums", V2, added={"golden"}),
        lambda: registry.withdraw("sums", V1, why="a test"),
    ]


def states_of(registry: Registry, ring: KeyRing, bundles: list[Path]) -> list[object]:
    """What is there after each step of the script."""
    found = []
    for step in script(registry, ring, bundles):
        step()
        found.append(state_told(registry))
    return found


def _promote(place: Place, version: Version, expected: Version, start: Any, told: Any) -> None:
    start.wait()
    try:
        move(Registry(place.open()), version, expected)
        told.put(str(version))
    except RefusedError as error:
        told.put(error.why)


class Counting:
    """A store, and how often which of its methods was called."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        self.calls[name] += 1
        return getattr(self._store, name)


class RegistryContract:
    """Versions never change, aliases move for one at a time, and whatever was changed is found."""

    start_method = "fork"

    @pytest.fixture
    def registry(self, place: Place) -> Registry:
        return Registry(place.open())

    def test_it_goes_from_nothing_to_production_and_back(
        self, registry: Registry, ring: KeyRing, bundles: list[Path], place: Place
    ) -> None:
        assert registry.names() == [] and registry.states() == {}
        for version, bundle in zip((V1, V2), bundles, strict=True):
            release(registry, ring, version, bundle)
        assert registry.names() == ["sums"]
        move(registry, V1, None)
        move(registry, V2, V1)
        state = Registry(place.open()).state("sums")
        assert state.aliases == {"production": V2, "previous": V1}
        assert registry.find("sums@production").version == V2 == registry.find("sums@1.1.0").version
        assert registry.find("sums@previous").made_from == {"dataset": "bundle-0"}
        signed = registry.verified("sums@production", ring)
        assert signed.artifact.digest == state.versions[V2].digest
        for name in ("card.md", "empty.txt", "tokenizer/tokenizer.json"):
            assert (signed.artifact.path / name).read_bytes() == (bundles[1] / name).read_bytes()
        move(registry, V1, V2)
        assert registry.state("sums").aliases == {"production": V1, "previous": V2}
        registry.tag("sums", V1, added={"golden", "small"})
        registry.tag("sums", V1, added=set(), removed={"small"})
        assert registry.state("sums").tags[V1] == {"golden"}
        actions = [one.action for one in registry.entries("sums")]
        assert actions == [*["register"] * 2, *["move"] * 3, *["tag"] * 2]
        assert registry.states() == {"sums": registry.state("sums")}
        assert faults_of(registry, ring) == [] and registry.orphans() == []

    def test_what_it_refuses_leaves_it_as_it_was(
        self, registry: Registry, ring: KeyRing, bundles: list[Path], tmp_path: Path
    ) -> None:
        release(registry, ring, V1, bundles[0])
        move(registry, V1, None)
        before = registry.entries("sums")
        unsigned = make_bundle(tmp_path / "unsigned", 7)
        refusals: list[tuple[type[Exception], str, Callable[[], object]]] = [
            (RefusedError, "is there already", lambda: release(registry, ring, V1, bundles[1])),
            (RefusedError, "is there already", lambda: release(registry, ring, V1, bundles[0])),
            (RefusedError, "is not signed", lambda: release(registry, ring, V2, unsigned)),
            (RefusedError, "was not moved", lambda: move(registry, V1, None)),
            (RefusedError, "was not moved", lambda: move(registry, V1, V1, "staging")),
            (NotRegisteredError, "not in the registry", lambda: move(registry, V2, V1)),
            (NotRegisteredError, "no alias", lambda: move(registry, V1, None, "live")),
            (ConfigError, "follows production", lambda: move(registry, V1, None, "previous")),
            (NotRegisteredError, "not in the registry", lambda: registry.find("other@1.0.0")),
            (NotRegisteredError, "not in the registry", lambda: registry.find("sums@staging")),
            (ConfigError, "names no version", lambda: registry.find("sums")),
            *(
                (ConfigError, "cannot be a name", lambda odd=odd: registry.find(f"{odd}@1.0.0"))
                for odd in ("../sums", "", "Sums", "a b", "sums/1", ".hidden", "ümlaut", "a" * 101, "a\n")
            ),
        ]
        for kind, words, action in refusals:
            with pytest.raises(kind, match=words):
                action()
        assert registry.entries("sums") == before and registry.orphans() == []

    def test_the_same_bundle_built_another_day_keeps_what_is_there(
        self, registry: Registry, ring: KeyRing, bundles: list[Path], tmp_path: Path
    ) -> None:
        release(registry, ring, V1, bundles[0])
        release(registry, ring, V2, of_another_day(bundles[0], tmp_path / "another day", ring))
        assert registry.find("sums@1.0.0").digest == registry.find("sums@1.1.0").digest
        assert faults_of(registry, ring) == []

    def test_two_who_register_one_digest_of_two_days_leave_one_that_verifies(
        self, registry: Registry, ring: KeyRing, bundles: list[Path], place: Place, tmp_path: Path
    ) -> None:
        """The second is through between the first one's look and its writing."""
        other, between = Registry(place.open()), registry.store.put_bundle
        another_day = of_another_day(bundles[0], tmp_path / "another day", ring)

        def put_bundle(name: str, digest: str, bundle: Path) -> bool:
            release(other, ring, V2, another_day)
            return between(name, digest, bundle)

        registry.store.put_bundle = put_bundle  # type: ignore[method-assign]
        release(registry, ring, V1, bundles[0])
        assert registry.find("sums@1.0.0").digest == registry.find("sums@1.1.0").digest
        assert faults_of(registry, ring) == [] and registry.orphans() == []

    def test_of_two_manifests_of_one_digest_the_first_stays(
        self, registry: Registry, ring: KeyRing, bundles: list[Path], tmp_path: Path
    ) -> None:
        """And no signature of the other one stands beside it."""
        digest, store = read_manifest(Location(str(bundles[0]))).digest[7:], registry.store
        assert store.seal("sums", digest) == (None, None)
        assert store.put_bundle("sums", digest, bundles[0])
        seal = store.seal("sums", digest)
        assert seal == tuple(
            place.read_bytes() for place in (bundles[0] / MANIFEST_NAME, signature_place(bundles[0]))
        )
        assert not store.put_bundle("sums", digest, of_another_day(bundles[0], tmp_path / "other", ring))
        assert store.seal("sums", digest) == seal
        assert store.put_bundle("sums", digest, bundles[0]), "the same once more is no other"

    @pytest.mark.parametrize("when", ["before it looks again", "after that"])
    @pytest.mark.parametrize("same", [True, False])
    def test_what_another_is_about_to_sign_is_not_deleted(
        self,
        registry: Registry,
        ring: KeyRing,
        bundles: list[Path],
        place: Place,
        tmp_path: Path,
        same: bool,
        when: str,
    ) -> None:
        """Somebody looks while the bundle stands and its signature does not; then the first is through at once."""
        other, go_on = Registry(place.open()), threading.Event()
        seal, sign_there = other.store.seal, registry.store.put_signature
        theirs = bundles[0] if same else of_another_day(bundles[0], tmp_path / "another day", ring)
        first = threading.Thread(target=release, args=(registry, ring, V1, bundles[0]))

        def put_signature(name: str, digest: str, content: bytes) -> None:
            started.set()
            assert go_on.wait(60)
            sign_there(name, digest, content)

        def looked(name: str, digest: str) -> tuple[bytes | None, bytes | None]:
            found = seal(name, digest)
            if not go_on.is_set():
                go_on.set()
                first.join()
            return found if when == "after that" else seal(name, digest)

        started = threading.Event()
        registry.store.put_signature = put_signature  # type: ignore[method-assign]
        other.store.seal = looked  # type: ignore[method-assign]
        first.start()
        assert started.wait(60)
        other.store.delete_bundle = not_to_be_called  # type: ignore[method-assign]
        release(other, ring, V2, theirs)
        assert sorted(registry.state("sums").versions) == [V1, V2]
        assert faults_of(registry, ring) == [] and registry.orphans() == []

    def test_nobody_signs_over_a_key_that_their_ring_lacks(
        self, registry: Registry, ring: KeyRing, bundles: list[Path], tmp_path: Path
    ) -> None:
        release(registry, ring, V1, bundles[0])
        before = registry.entries("sums")
        mine = KeyRing(tmp_path / "keys of another")
        mine.generate("mine")
        sign(bundles[0], mine.signing_key("mine"))
        with pytest.raises(RefusedError, match="does not verify") as told:
            release(registry, mine, V2, bundles[0])
        assert "nobody here knows" in told.value.why and "raytrain keys trust" in told.value.fix
        assert registry.entries("sums") == before and faults_of(registry, ring) == []

    def test_after_a_revoked_key_the_good_is_signed_again(
        self, registry: Registry, ring: KeyRing, bundles: list[Path]
    ) -> None:
        release(registry, ring, V1, bundles[0])
        ring.revoke(ring.known()[0].id, "a laptop was lost")
        with pytest.raises(RefusedError, match="revoked"):
            registry.verified("sums@1.0.0", ring)
        ring.generate("another")
        sign(bundles[0], ring.signing_key("another"))
        release(registry, ring, V2, bundles[0])
        assert registry.verified("sums@1.0.0", ring).key.name == "another"
        assert faults_of(registry, ring) == []

    def test_the_audit_names_what_was_changed(
        self, registry: Registry, ring: KeyRing, bundles: list[Path], place: Place
    ) -> None:
        for version, bundle in zip((V1, V2), bundles, strict=True):
            release(registry, ring, version, bundle)
        move(registry, V1, None)
        for reference in ("sums@1.0.0", "sums@1.1.0"):
            registry.verified(reference, ring)  # copies of this machine tell the audit nothing
        store = registry.store
        entries = {i: store.entry_place("sums", i) for i in (1, 2, 3)}
        digests = [registry.find(f"sums@{one}").digest[7:] for one in (V1, V2)]
        cards = [f"{store.bundle_place('sums', one)}/card.md" for one in digests]
        extra = f"{store.bundle_place('sums', digests[0])}/extra.py"
        signature = f"{store.bundle_place('sums', digests[1])}.sig"
        odd = {"version": "9.0.0", "digest": "", "made_from": []}

        def rewritten(at: int, **changes: Any) -> bytes:
            return content_of(Entry(**{**json.loads(place.read(entries[at])), **changes}))

        tampering: list[tuple[str, str, bytes | None]] = [
            (entries[2], entries[1], rewritten(1, why="another reason")),
            (entries[2], entries[2], rewritten(2, number=3)),
            (entries[3], entries[3], json.dumps(json.loads(place.read(entries[3])), indent=1).encode()),
            ("entry 3", entries[3], rewritten(3, details={"alias": "production"})),
            (f"{entries[2]}: it is missing", entries[2], None),
            (f"{entries[3]}: it is no entry, which has", entries[3], b"{}\n"),
            (f"{entries[3]}: it is no entry, which has", entries[3], rewritten(3, time=4)),
            ("entry 3", entries[3], rewritten(3, action="register", details=odd)),
            (entries[1], entries[1], b"{"),
            (entries[1], entries[1], b"\xff\x00garbage\n"),
            (entries[3], entries[3], b""),
            ("card.md", cards[1], b"another"),
            ("card.md is missing", cards[0], None),
            ("extra.py", extra, b"import os"),
            ("is not signed", signature, None),
            ("no signature", signature, b"{}"),
        ]
        for words, at, content in tampering:
            before = None if at == extra else place.read(at)
            place.write(at, content)
            faults = faults_of(registry, ring)
            place.write(at, before)
            assert any(words in one.what for one in faults), (words, faults)
            assert faults_of(registry, ring) == [], words

    def test_whoever_looks_often_reads_what_is_new(
        self, registry: Registry, ring: KeyRing, bundles: list[Path], place: Place
    ) -> None:
        counting, now = Counting(place.open()), [0.0]
        following = Following(Registry(counting), lambda: now[0])
        assert following.states(None) == {}
        with pytest.raises(NotRegisteredError):
            following.states(["sums"])
        release(registry, ring, V1, bundles[0])
        move(registry, V1, None)
        for names in (None, ["sums"]):
            assert following.states(names) == {"sums": registry.state("sums")}
            counting.calls.clear()
            for _ in range(3):
                following.states(names)
            looks = {"has_entry": 3} | ({} if names else {"names": 3})
            assert counting.calls == looks, "nothing is read of what has not changed"
        move(registry, V1, None, alias="staging")
        assert following.states(None)["sums"].aliases["staging"] == V1
        state = following.states(None)
        place.write(registry.store.entry_place("sums", 3), None)
        assert following.states(None) == state, "an older copy of it was put back"
        now[0] += 31
        assert "staging" not in following.states(None)["sums"].aliases

    def test_no_copy_stands_for_what_the_store_has_no_more(
        self, registry: Registry, ring: KeyRing, bundles: list[Path], place: Place
    ) -> None:
        release(registry, ring, V1, bundles[0])
        registry.verified("sums@1.0.0", ring)
        there = registry.store.bundle_place("sums", registry.find("sums@1.0.0").digest[7:])
        place.write(f"{there}/{MANIFEST_NAME}", None)
        with pytest.raises(IntegrityError, match="is not an artifact") as told:
            registry.verified("sums@1.0.0", ring)
        assert there in told.value.what, "not the place of a copy"
        place.write(f"{there}.sig", None)
        with pytest.raises(RefusedError, match="is not signed"):
            registry.verified("sums@1.0.0", ring)

    def test_of_many_promoters_one_wins_and_the_others_are_told(
        self, registry: Registry, ring: KeyRing, bundles: list[Path], place: Place
    ) -> None:
        versions = [Version(1, i, 0) for i in range(7)]
        for version in versions:
            release(registry, ring, version, bundles[0])
        move(registry, versions[0], None)
        context: Any = multiprocessing.get_context(self.start_method)
        start, told = context.Event(), context.Queue()
        writers = [
            context.Process(target=_promote, args=(place, version, versions[0], start, told))
            for version in versions[1:]
        ]
        for one in writers:
            one.start()
        start.set()
        answers = [told.get(timeout=200) for _ in writers]  # each imports the client first
        for one in writers:
            one.join()
        (winner,) = [one for one in answers if one in map(str, versions)]
        assert str(registry.state("sums").aliases["production"]) == winner
        losers = [one for one in answers if one != winner]
        assert len(losers) == 5 and all(f"it is {winner}, not 1.0.0: moved" in one for one in losers)

    def test_what_was_withdrawn_is_released_no_more_and_the_audit_is_whole_again(
        self, registry: Registry, ring: KeyRing, bundles: list[Path]
    ) -> None:
        release(registry, ring, V1, bundles[0])
        move(registry, V1, None)
        ring.generate("another")
        sign(bundles[1], ring.signing_key("another"))
        release(registry, ring, V2, bundles[1])
        with pytest.raises(RefusedError, match="not withdrawn") as told:
            registry.withdraw("sums", V1, why="too early")
        assert told.value.why == "it is production"
        move(registry, V2, V1)
        ring.revoke(next(one.id for one in ring.known() if one.name == "release"), "a laptop was lost")
        assert [one.thing for one in faults_of(registry, ring)] == ["1.0.0"], "its key counts no more"
        assert registry.state("sums").aliases == {"production": V2, "previous": V1}
        registry.withdraw("sums", V1, why="its key was lost")
        state = registry.state("sums")
        assert faults_of(registry, ring) == []
        assert state.aliases == {"production": V2} and list(state.withdrawn) == [V1]
        before = registry.entries("sums")
        for action in (
            lambda: move(registry, V1, V2),
            lambda: move(registry, V1, None, "staging"),
            lambda: registry.withdraw("sums", V1, why="again"),
        ):
            with pytest.raises(RefusedError, match=r"sums@1\.0\.0 was withdrawn") as told:
                action()
            assert "its key was lost" in told.value.why and before[-1].who in told.value.why
        with pytest.raises(NotRegisteredError, match="not in the registry"):
            registry.withdraw("sums", Version(9, 0, 0), why="a slip")
        assert registry.entries("sums") == before

    def test_a_tag_that_changes_nothing_is_not_written(
        self, registry: Registry, ring: KeyRing, bundles: list[Path]
    ) -> None:
        release(registry, ring, V1, bundles[0])
        assert registry.tag("sums", V1, added={"golden"}) is not None
        before = registry.entries("sums")
        assert registry.tag("sums", V1, added={"golden"}) is None
        with pytest.raises(ConfigError, match="has no tag draft") as told:
            registry.tag("sums", V1, added={"small"}, removed={"draft"})
        assert told.value.why == "its tags: golden"
        assert registry.entries("sums") == before

    def test_orphans_are_found_and_nothing_else_is_deleted(
        self, registry: Registry, ring: KeyRing, bundles: list[Path], place: Place
    ) -> None:
        release(registry, ring, V1, bundles[0])
        released = registry.find("sums@1.0.0").digest[7:]
        place.write(f"{registry.store.bundle_place('sums', '0' * 64)}/card.md", b"half")
        place.write(f"{registry.store.bundle_place('sums', '1' * 64)}.sig", b"alone")
        orphans = registry.orphans()
        assert [one.digest for one in orphans] == ["0" * 64, "1" * 64]
        assert faults_of(registry, ring) == []
        assert registry.delete(orphans) == [], "they are young"
        assert registry.delete(registry.orphans(), grace_s=0) != []
        assert registry.orphans() == [] and registry.store.bundles("sums") == [released]
        assert faults_of(registry, ring) == []

    def test_what_an_entry_names_by_now_is_not_deleted(
        self, registry: Registry, ring: KeyRing, bundles: list[Path]
    ) -> None:
        """Somebody registers between the look and the deletion."""
        release(registry, ring, V1, bundles[0])
        digest = registry.find("sums@1.0.0").digest[7:]
        place = registry.store.bundle_place("sums", digest)
        assert registry.delete([Orphan("sums", digest, place, 9999.0)], grace_s=0) == []
        assert faults_of(registry, ring) == []

    def test_what_is_deleted_while_somebody_registers_it_is_there_nevertheless(
        self, registry: Registry, ring: KeyRing, bundles: list[Path], place: Place
    ) -> None:
        """Somebody has looked for orphans before the entry, and spares nothing."""
        other, write = Registry(place.open()), registry.store.create_entry
        deleted: list[Orphan] = []

        def create_entry(name: str, number: int, content: bytes) -> bool:
            deleted.extend(other.delete(other.orphans(), grace_s=0))
            return write(name, number, content)

        registry.store.create_entry = create_entry  # type: ignore[method-assign]
        release(registry, ring, V1, bundles[0])
        assert len(deleted) == 1
        assert faults_of(registry, ring) == [] and registry.orphans() == []

    @pytest.mark.parametrize(
        "when", ["before it is taken away", "before it is asked for", "before it is gone", "never"]
    )
    def test_what_is_registered_while_it_is_deleted_stays(
        self, registry: Registry, ring: KeyRing, bundles: list[Path], place: Place, when: str
    ) -> None:
        """Who was killed before its entry left it; then somebody registers it at a moment of its deletion."""
        digest = read_manifest(Location(str(bundles[0]))).digest[7:]
        registry.store.put_bundle("sums", digest, bundles[0])
        time.sleep(1.2)  # some services tell times in whole seconds
        other = Registry(place.open())
        delete = other.store.delete_bundle

        def delete_bundle(name: str, digest: str, is_needed: IsNeeded) -> bool:
            def asked(seal: Seal) -> bool:
                if when == "before it is asked for":
                    release(registry, ring, V1, bundles[0])
                found = is_needed(seal)
                if when == "before it is gone":
                    release(registry, ring, V1, bundles[0])
                return found

            if when == "before it is taken away":
                release(registry, ring, V1, bundles[0])
            return delete(name, digest, asked)

        other.store.delete_bundle = delete_bundle  # type: ignore[method-assign]
        deleted = other.delete(other.orphans(), grace_s=0)
        assert len(deleted) == (when in ("before it is gone", "never"))
        if when == "never":
            assert registry.names() == []
        else:
            assert registry.verified("sums@1.0.0", ring) and faults_of(registry, ring) == []
        assert [one for one in registry.orphans() if one.digest] == []

    def test_what_cannot_be_asked_for_is_put_back(
        self, registry: Registry, ring: KeyRing, bundles: list[Path]
    ) -> None:
        release(registry, ring, V1, bundles[0])
        digest = registry.find("sums@1.0.0").digest[7:]
        seal = registry.store.seal("sums", digest)

        def unanswered(_: Seal) -> bool:
            raise StorageError("nobody answers", why="a test", fix="wait")

        with pytest.raises(StorageError, match="nobody answers"):
            registry.store.delete_bundle("sums", digest, unanswered)
        assert registry.store.seal("sums", digest) == seal and faults_of(registry, ring) == []

    def test_what_was_left_long_ago_is_young_again_once_somebody_registers_it(
        self, registry: Registry, ring: KeyRing, bundles: list[Path], place: Place
    ) -> None:
        release(registry, ring, V1, bundles[0])
        digest = registry.find("sums@1.0.0").digest[7:]
        place.write(registry.store.entry_place("sums", 1), None)
        age_s, write, ages = registry.store.age_s, registry.store.create_entry, []
        time.sleep(1.2)

        def create_entry(name: str, number: int, content: bytes) -> bool:
            ages.append(age_s("sums", digest))
            return write(name, number, content)

        ages.append(age_s("sums", digest))
        registry.store.create_entry = create_entry  # type: ignore[method-assign]
        release(registry, ring, V1, bundles[0])
        assert ages[1] < ages[0], ages

    def test_a_first_registration_that_was_killed_is_found(
        self, registry: Registry, ring: KeyRing, bundles: list[Path]
    ) -> None:
        digest = read_manifest(Location(str(bundles[0]))).digest[7:]
        registry.store.put_bundle("sums", digest, bundles[0])
        assert [one.digest for one in registry.orphans()] == [digest] and registry.names() == []
        registry.delete(registry.orphans(), grace_s=0)
        assert registry.orphans() == [] and registry.store.names() in ([], ["sums"])

    def test_what_is_left_on_a_shelf_is_found(self, registry: Registry, place: Place) -> None:
        """A record that nobody has signed; what was signed and is broken is told, and nobody's to delete."""
        unsigned, broken = "0" * 64, "1" * 64
        for shelf in ("_records.sums", "_approvals.sums"):
            place.write(f"{registry.store.bundle_place(shelf, unsigned)}/record.json", b"half")
            place.write(f"{registry.store.bundle_place(shelf, broken)}/manifest.json", b"{")
            place.write(f"{registry.store.bundle_place(shelf, broken)}.sig", b"{}")
        with pytest.raises(IntegrityError, match="is not a manifest"):
            registry.orphans()
        faults: list[Fault] = []
        orphans = registry.orphans(faults.append)
        assert (
            [one.name for one in orphans]
            == [one.name for one in faults]
            == [
                "_approvals.sums",
                "_records.sums",
            ]
        )
        assert registry.delete(orphans, grace_s=0) == orphans
        assert registry.orphans(lambda _: None) == []
        assert registry.store.bundles("_records.sums") == [broken]

    def test_one_broken_journal_is_told_and_the_others_are_read(
        self, registry: Registry, ring: KeyRing, bundles: list[Path], place: Place
    ) -> None:
        release(registry, ring, V1, bundles[0])
        registry.register("words", V1, bundles[0], ring, made_from={}, why="a test")
        place.write(registry.store.entry_place("sums", 1), b"{}")
        place.write(f"{registry.store.bundle_place('words', '0' * 64)}/card.md", b"half")
        for look in (registry.states, registry.orphans):
            with pytest.raises(IntegrityError, match="the journal is broken"):
                look()
            faults: list[Fault] = []
            assert len(look(faults.append)) == 1  # type: ignore[operator]
            assert [(one.name, one.thing) for one in faults] == [("sums", "journal")]

    def test_a_bundle_that_a_killed_writer_left_is_taken_up(
        self, registry: Registry, ring: KeyRing, bundles: list[Path], place: Place
    ) -> None:
        release(registry, ring, V1, bundles[0])
        left = registry.store.bundle_place("sums", registry.find("sums@1.0.0").digest[7:])
        place.write(registry.store.entry_place("sums", 1), None)
        place.write(f"{left}/card.md", None)
        release(registry, ring, V1, bundles[0])
        assert faults_of(registry, ring) == [] and registry.orphans() == []

    def test_a_journal_that_says_what_cannot_be_is_refused(
        self, registry: Registry, ring: KeyRing, bundles: list[Path], place: Place
    ) -> None:
        """Its hashes agree: whoever wrote it knew how."""
        release(registry, ring, V1, bundles[0])
        journal = Journal(registry.store, "sums")
        for action, details in (
            ("move", {"alias": "production", "version": "9.9.9", "before": None, "decision": None}),
            ("move", {"alias": "production", "version": "1.0.0", "before": "1.0.0", "decision": None}),
            ("register", {"version": "1.0.0", "digest": "sha256:0", "made_from": {}}),
            ("withdraw", {"version": "9.9.9"}),
            ("forget", {}),
        ):
            assert journal.append(journal.read(), action, details, "") is not None
            with pytest.raises(IntegrityError, match="entry 2"):
                registry.state("sums")
            place.write(registry.store.entry_place("sums", 2), None)

    def test_what_is_no_digest_becomes_no_path(
        self, registry: Registry, ring: KeyRing, bundles: list[Path], place: Place
    ) -> None:
        release(registry, ring, V1, bundles[0])
        store, journal = registry.store, Journal(registry.store, "sums")
        calls: list[Callable[[str], object]] = [
            lambda one: store.open_bundle("sums", one),
            lambda one: store.seal("sums", one),
            lambda one: store.put_bundle("sums", one, bundles[0]),
            lambda one: store.put_signature("sums", one, b""),
            lambda one: store.age_s("sums", one),
            lambda one: store.delete_bundle("sums", one, not_to_be_called),
            lambda one: shelf_of(registry, "sums", "records").get(one, ring),
        ]
        for odd in ("../../../victim", "sha256:../victim", "", ".", "a\0b", "A" * 64, "it's", 7):
            register = {"version": "2.0.0", "digest": odd, "made_from": {}}
            moved = {"alias": "production", "version": "1.0.0", "before": None, "decision": odd}
            for action, details in (("register", register), ("move", moved)):
                assert journal.append(journal.read(), action, details, "") is not None
                with pytest.raises(IntegrityError, match="entry 2"):
                    registry.find("sums@production")
                place.write(store.entry_place("sums", 2), None)
            for call in calls:
                with pytest.raises(IntegrityError, match="no digest"):
                    call(str(odd))
        assert faults_of(registry, ring) == [] and registry.orphans() == []

    def test_the_second_writer_of_a_number_is_told(
        self, registry: Registry, ring: KeyRing, bundles: list[Path]
    ) -> None:
        release(registry, ring, V1, bundles[0])
        journal = Journal(registry.store, "sums")
        entries = journal.read()
        assert (
            journal.append(entries, "tag", {"version": "1.0.0", "added": [], "removed": []}, "one")
            is not None
        )
        assert journal.append(entries, "tag", {"version": "1.0.0", "added": [], "removed": []}, "two") is None
        assert [one.why for one in journal.read(fresh=True)] == ["a test", "one"]

    def test_a_damaged_copy_on_this_machine_changes_nothing(
        self, registry: Registry, ring: KeyRing, bundles: list[Path], home: Path, place: Place
    ) -> None:
        release(registry, ring, V1, bundles[0])
        registry.verified("sums@1.0.0", ring)
        entries = registry.entries("sums")
        for file in home.rglob("*"):
            if file.is_file():
                file.write_bytes(b"x" * file.stat().st_size)
        assert Registry(place.open()).entries("sums") == entries
        assert registry.verified("sums@1.0.0", ring).artifact.digest == entries[0].details["digest"]
