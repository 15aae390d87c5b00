"""Versions never change, aliases move for one at a time, and whoever is killed leaves the old state or the new."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from bundles import make_bundle, signed_bundle

from raytrain.errors import ConfigError, IntegrityError, RefusedError, StorageError
from raytrain.release.keys import KeyRing
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.versions import Version
from raytrain.release.signing import signature_place

V1, V2 = Version(1, 0, 0), Version(1, 1, 0)


@pytest.fixture
def bundles(tmp_path: Path, ring: KeyRing) -> list[Path]:
    return [signed_bundle(tmp_path / f"bundle-{seed}", ring, seed) for seed in range(2)]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


def release(registry: Registry, ring: KeyRing, version: Version, bundle: Path) -> None:
    registry.register("sums", version, bundle, ring, made_from={"dataset": bundle.name}, why="a test")


def move(registry: Registry, version: Version, expected: Version | None, alias: str = "production") -> None:
    registry.move("sums", alias, version, expected=expected, decision=None, why="a test")


def test_it_goes_from_nothing_to_production_and_back(
    registry: Registry, ring: KeyRing, bundles: list[Path]
) -> None:
    assert registry.names() == []
    for version, bundle in zip((V1, V2), bundles, strict=True):
        release(registry, ring, version, bundle)
    assert registry.names() == ["sums"]
    move(registry, V1, None)
    move(registry, V2, V1)
    state = registry.state("sums")
    assert state.aliases == {"production": V2, "previous": V1}
    assert registry.find("sums@production").version == V2 == registry.find("sums@1.1.0").version
    assert registry.find("sums@previous").made_from == {"dataset": "bundle-0"}
    signed = registry.verified("sums@production", ring)
    assert signed.artifact.digest == state.versions[V2].digest
    assert (signed.artifact.path / "card.md").read_bytes() == (bundles[1] / "card.md").read_bytes()
    move(registry, V1, V2)
    assert registry.state("sums").aliases == {"production": V1, "previous": V2}
    registry.tag("sums", V1, added={"golden", "small"})
    registry.tag("sums", V1, added=set(), removed={"small"})
    assert registry.state("sums").tags[V1] == {"golden"}
    assert [one.action for one in registry.entries("sums")] == [
        *["register"] * 2,
        *["move"] * 3,
        *["tag"] * 2,
    ]
    assert registry.audit(ring) == [] and registry.orphans() == []


def test_what_it_refuses_leaves_it_as_it_was(
    registry: Registry, ring: KeyRing, bundles: list[Path], tmp_path: Path
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
        (ConfigError, "not in the registry", lambda: move(registry, V2, V1)),
        (ConfigError, "no alias", lambda: move(registry, V1, None, "live")),
        (ConfigError, "follows production", lambda: move(registry, V1, None, "previous")),
        (ConfigError, "not in the registry", lambda: registry.find("other@1.0.0")),
        (ConfigError, "not in the registry", lambda: registry.find("sums@staging")),
        (ConfigError, "names no version", lambda: registry.find("sums")),
        (ConfigError, "cannot be a name", lambda: registry.find("../sums@1.0.0")),
    ]
    for kind, words, action in refusals:
        with pytest.raises(kind, match=words):
            action()
    assert registry.entries("sums") == before and registry.orphans() == []


def test_the_audit_names_what_was_changed(registry: Registry, ring: KeyRing, bundles: list[Path]) -> None:
    for version, bundle in zip((V1, V2), bundles, strict=True):
        release(registry, ring, version, bundle)
    move(registry, V1, None)
    whole = registry.folder.with_name("whole")
    shutil.copytree(registry.folder, whole)
    journal = registry.folder / "sums" / "journal"
    places = [
        Path(f"{registry.folder}/sums/bundles/{registry.find(f'sums@{v}').digest[7:]}") for v in (V1, V2)
    ]

    def rewrite(place: Path, **changes: object) -> None:
        place.write_text(json.dumps({**json.loads(place.read_text()), **changes}))

    def swap_bundles() -> None:
        for suffix in ("", ".sig"):
            one, other = (place.with_name(place.name + suffix) for place in places)
            aside = one.with_name("aside")
            one.rename(aside)
            other.rename(one)
            aside.rename(other)

    tampering: list[tuple[str, Callable[[], object]]] = [
        ("00000001.json", lambda: rewrite(journal / "00000002.json", why="another reason")),
        ("00000002.json", lambda: (journal / "00000002.json").unlink()),
        ("00000001.json", lambda: (journal / "00000001.json").write_text("{")),
        ("entry 3", lambda: rewrite(journal / "00000003.json", details={"alias": "production"})),
        ("card.md", lambda: (places[1] / "card.md").write_bytes(b"another")),
        ("is not signed", lambda: signature_place(places[0]).unlink()),
        ("not the bundle that was released", swap_bundles),
        ("a laptop was lost", lambda: ring.revoke(ring.known()[0].id, "a laptop was lost")),
    ]
    for i, (words, action) in enumerate(tampering):
        action()
        faults = registry.audit(ring)
        assert faults, f"{i}: {words} was not found"
        if i:
            assert any(words in one.what for one in faults), faults
        else:
            assert "00000003.json" in faults[0].what, "the one after it does not follow"
        shutil.rmtree(registry.folder)
        shutil.copytree(whole, registry.folder)


def _promote(folder: Path, version: Version, expected: Version, start: object, told: object) -> None:
    start.wait()  # type: ignore[attr-defined]
    try:
        move(Registry(folder), version, expected)
        told.put(str(version))  # type: ignore[attr-defined]
    except RefusedError as error:
        told.put(error.why)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_of_many_promoters_one_wins_and_the_others_are_told(
    registry: Registry, ring: KeyRing, bundles: list[Path]
) -> None:
    versions = [Version(1, i, 0) for i in range(7)]
    for version in versions:
        release(registry, ring, version, bundles[0])
    move(registry, versions[0], None)
    context = multiprocessing.get_context("fork")
    start, told = context.Event(), context.Queue()
    writers = [
        context.Process(target=_promote, args=(registry.folder, version, versions[0], start, told))
        for version in versions[1:]
    ]
    for one in writers:
        one.start()
    start.set()
    answers = [told.get(timeout=60) for _ in writers]
    for one in writers:
        one.join()
    (winner,) = [one for one in answers if one in map(str, versions)]
    assert str(registry.state("sums").aliases["production"]) == winner
    losers = [one for one in answers if one != winner]
    assert len(losers) == 5 and all(f"it is {winner}, not 1.0.0: moved" in one for one in losers)


CHANGES = {"open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.chmod", "os.rmdir", "shutil.copyfile"}


def _script(registry: Registry, ring: KeyRing, bundles: list[Path]) -> list[Callable[[], object]]:
    return [
        lambda: release(registry, ring, V1, bundles[0]),
        lambda: move(registry, V1, None),
        lambda: release(registry, ring, V2, bundles[1]),
        lambda: move(registry, V2, V1),
        lambda: registry.tag("sums", V2, added={"golden"}),
    ]


def _run_until(point: int, registry: Registry, ring: KeyRing, bundles: list[Path], done: int) -> int:
    """The script from its step `done` on in a process of its own that dies at its change number `point`; its exit."""
    child = os.fork()
    if child == 0:
        count = 0

        def watch(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal count
            if event not in CHANGES or str(registry.folder) not in str(arguments[0]):
                return
            if event == "open" and not (
                isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            ):
                return
            count += 1
            if count == point:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        try:
            for step in _script(registry, ring, bundles)[done:]:
                step()
        finally:
            os._exit(1 if sys.exc_info()[0] else 0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.slow
def test_killed_at_any_change_it_is_the_old_state_or_the_new(
    registry: Registry, ring: KeyRing, bundles: list[Path]
) -> None:
    steps = _script(registry, ring, bundles)
    expected: list[object] = []
    for step in steps:
        step()
        state = registry.state("sums")
        expected.append(
            (sorted(state.versions), dict(state.aliases), {k: set(v) for k, v in state.tags.items()})
        )
    num_points = 0
    while True:
        shutil.rmtree(registry.folder)
        code = _run_until(num_points + 1, registry, ring, bundles, 0)
        if code == 0:
            break
        num_points += 1
        assert code == -signal.SIGKILL, f"point {num_points}: exit {code}"
        done = 0
        if registry.names():
            state = registry.state("sums")
            now = (sorted(state.versions), state.aliases, state.tags)
            done = expected.index(now) + 1
        assert registry.audit(ring) == [], f"point {num_points}"
        assert _run_until(0, registry, ring, bundles, done) == 0, f"point {num_points}: it does not go on"
        state = registry.state("sums")
        assert (sorted(state.versions), state.aliases, state.tags) == expected[-1]
        assert registry.audit(ring) == []
    assert num_points >= 50, f"only {num_points} points were found"


def test_a_folder_that_cannot_be_written_to(registry: Registry, ring: KeyRing, bundles: list[Path]) -> None:
    registry.folder.parent.joinpath("registry").write_text("a file stands there")
    with pytest.raises(StorageError):
        release(registry, ring, V1, bundles[0])


def test_orphans_are_found(registry: Registry, ring: KeyRing, bundles: list[Path]) -> None:
    release(registry, ring, V1, bundles[0])
    for suffix in ("", ".sig"):
        source = bundles[1].with_name(bundles[1].name + suffix)
        goal = registry.folder / "sums" / "bundles" / f"{'0' * 64}{suffix}"
        (shutil.copytree if source.is_dir() else shutil.copy)(source, goal)
    (registry.folder / "sums" / "journal" / ".staged-1-abc").write_text("{")
    assert [one.name for one in registry.orphans()] == ["0" * 64, f"{'0' * 64}.sig", ".staged-1-abc"]
    assert registry.audit(ring) == []


def test_a_journal_that_says_what_cannot_be_is_refused(
    registry: Registry, ring: KeyRing, bundles: list[Path]
) -> None:
    """Its hashes agree: whoever wrote it knew how."""
    release(registry, ring, V1, bundles[0])
    journal = registry._journal("sums")
    for action, details in (
        ("move", {"alias": "production", "version": "9.9.9", "before": None, "decision": None}),
        ("move", {"alias": "production", "version": "1.0.0", "before": "1.0.0", "decision": None}),
        ("register", {"version": "1.0.0", "digest": "sha256:0", "made_from": {}}),
        ("forget", {}),
    ):
        entries = journal.read()
        assert journal.append(entries, action, details, "") is not None
        with pytest.raises(IntegrityError, match="entry 2"):
            registry.state("sums")
        (journal.folder / "00000002.json").unlink()
