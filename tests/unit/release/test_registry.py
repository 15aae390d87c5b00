"""A registry in a folder: the contract (`test_of_many_promoters_one_wins_and_the_others_are_told` is of it), and a
process that is killed at each of its changes on the disk."""

from __future__ import annotations

import itertools
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from killed_at_a_change import run_until
from registry_contract import V1, RegistryContract, faults_of, move, release, script, state_told, states_of
from registry_places import OnDisk
from shelf_contract import ShelfContract

from raytrain.errors import StorageError
from raytrain.release.keys import KeyRing
from raytrain.release.registry.folder_store import FolderStore
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.store import open_store
from raytrain.release.registry.transfer import export_version, import_version
from raytrain.storage.location import Location
from raytrain.storage.manifest import digest_hex, read_manifest

pytestmark = pytest.mark.whole


@dataclass(frozen=True)
class Folder(OnDisk):
    def open(self) -> FolderStore:
        return FolderStore(self.path)


@pytest.fixture
def place(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "registry")


class TestFolder(RegistryContract):
    pass


class TestShelfInAFolder(ShelfContract):
    pass


def test_a_path_and_a_file_uri_name_a_folder(tmp_path: Path) -> None:
    for text in (str(tmp_path / "one"), f"file://{tmp_path / 'one'}"):
        assert open_store(text).place == str(tmp_path / "one")


@pytest.mark.slow
def test_killed_at_any_change_it_is_the_old_state_or_the_new(
    place: Folder, ring: KeyRing, bundles: list[Path]
) -> None:
    registry = Registry(place.open())
    expected = states_of(registry, ring, bundles)
    num_points, num_with_orphans = 0, 0
    while True:
        shutil.rmtree(place.path)
        code = run_until(num_points + 1, place.path, *script(registry, ring, bundles))
        if code == 0:
            break
        num_points += 1
        assert code == -signal.SIGKILL, f"point {num_points}: exit {code}"
        done = expected.index(state_told(registry)) + 1 if registry.names() else 0
        assert faults_of(registry, ring) == [], f"point {num_points}"
        orphans = registry.orphans()
        num_with_orphans += bool(orphans)
        if num_points % 2:
            registry.delete(orphans, grace_s=0)
            assert registry.orphans() == [], f"point {num_points}"
        rest = script(registry, ring, bundles)[done:]
        assert run_until(0, place.path, *rest) == 0, f"point {num_points}: it does not go on"
        assert state_told(registry) == expected[-1]
        assert faults_of(registry, ring) == []
    assert num_points >= 50, f"only {num_points} points were found"
    assert num_with_orphans >= 20, f"only {num_with_orphans} points left anything that the doctor finds"


@pytest.mark.slow
def test_killed_at_any_change_a_collection_takes_nothing_that_is_named(
    place: Folder, ring: KeyRing, bundles: list[Path]
) -> None:
    """Two bundles that no entry names beside one that is released; the third call of it finds nothing to do."""
    registry = Registry(place.open())

    def digest_of(bundle: Path) -> str:
        return digest_hex(read_manifest(Location(str(bundle))).digest)

    def collect() -> object:
        return registry.delete(registry.orphans(), grace_s=0)

    num_points = 0
    while True:
        shutil.rmtree(place.path, ignore_errors=True)
        release(registry, ring, V1, bundles[0])
        for bundle in bundles:
            registry.store.put_bundle("assistant", digest_of(bundle), bundle)
        registry.store.put_bundle("sums", digest_of(bundles[1]), bundles[1])
        code = run_until(num_points + 1, place.path, collect)
        assert sorted(registry.state("sums").versions) == [V1]
        assert faults_of(registry, ring) == [], f"point {num_points + 1}"
        collect()
        assert registry.orphans() == [] and registry.verified("sums@1.0.0", ring), f"point {num_points + 1}"
        if code == 0:
            break
        assert code == -signal.SIGKILL, f"point {num_points + 1}: exit {code}"
        num_points += 1
    assert num_points >= 20, f"only {num_points} points were found"


@pytest.mark.thorough
@pytest.mark.slow
def test_a_killed_import_or_export_leaves_the_old_or_the_new(
    place: Folder, ring: KeyRing, bundles: list[Path], tmp_path: Path
) -> None:
    source, goal = Registry(tmp_path / "source"), Registry(place.open())
    release(source, ring, V1, bundles[0])
    file = tmp_path / "out" / "sums.tar"
    file.parent.mkdir()
    steps: dict[Path, Callable[[], object]] = {
        file.parent: lambda: export_version(source, "sums@1.0.0", file, ring),
        place.path: lambda: import_version(goal, file, ring, why="a test"),
    }
    num_points = 0
    for folder, step in steps.items():
        for point in itertools.count(1):
            for one in folder.rglob("*") if folder == file.parent else []:
                one.unlink()
            shutil.rmtree(place.path, ignore_errors=True)
            code = run_until(point, folder, step)
            if folder == file.parent and file.exists():
                assert import_version(goal, file, ring, why="whole")[1].version == V1, f"point {point}"
            elif goal.names():
                assert sorted(goal.state("sums").versions) == [V1]
            assert faults_of(goal, ring) == [], f"point {point}"
            if code == 0:
                break
            assert code == -signal.SIGKILL
            num_points += 1
            if folder == place.path and not goal.names():
                assert run_until(0, folder, step) == 0
                assert faults_of(goal, ring) == []
    assert num_points >= 15, f"only {num_points} points were found"


def test_a_folder_that_cannot_be_written_to(place: Folder, ring: KeyRing, bundles: list[Path]) -> None:
    place.path.write_text("a file stands there")
    with pytest.raises(StorageError):
        release(Registry(place.open()), ring, V1, bundles[0])


def test_files_that_were_not_finished_are_strays(place: Folder, ring: KeyRing, bundles: list[Path]) -> None:
    registry = Registry(place.open())
    release(registry, ring, V1, bundles[0])
    for stray in ("journal/.staged-1-abc", "bundles/.staging-abc-1-0/card.md"):
        place.write(str(place.path / "sums" / stray), b"{")
    assert [Path(one.place).name for one in registry.orphans()] == [".staging-abc-1-0", ".staged-1-abc"]
    registry.delete(registry.orphans(), grace_s=0)
    assert registry.orphans() == [] and faults_of(registry, ring) == []


def test_a_link_whose_answer_was_lost_is_found_to_be_ours(
    place: Folder, ring: KeyRing, bundles: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS, where the client asks a second time and is told that the name is taken: by its own first try."""
    link = Path.hardlink_to

    def asked_twice(file: Path, target: Path) -> None:
        link(file, target)
        link(file, target)

    registry = Registry(place.open())
    monkeypatch.setattr(Path, "hardlink_to", asked_twice)
    release(registry, ring, V1, bundles[0])
    move(registry, V1, None)
    assert [one.action for one in registry.entries("sums")] == ["register", "move"]
    assert faults_of(registry, ring) == [] and registry.orphans() == []
    monkeypatch.undo()
    store = place.open()
    assert not store.create_entry("sums", 2, b"of somebody else"), "that one is not"
    assert store.create_entry("sums", 3, b"ours")
