"""A registry on a disk that is full or read-only; a real one, mounted for the test."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import signed_bundle
from registry_contract import V1, V2, faults_of, move, release, state_told

from raytrain.errors import StorageError
from raytrain.release.keys import KeyRing
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.transfer import export_version, import_version


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"mounting is not allowed here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path, *, spare: int) -> Path:
    """Take the last byte, but for so many pages."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(b"x" * 4096)
        except OSError as error:
            assert error.errno == errno.ENOSPC
        stream.truncate(max(0, stream.tell() - spare * 4096))
    return filler


def test_a_full_and_a_read_only_disk(small_disk: Path, tmp_path: Path, ring: KeyRing) -> None:
    bundles = [signed_bundle(tmp_path / f"bundle-{seed}", ring, seed) for seed in range(2)]
    registry = Registry(small_disk / "registry")
    release(registry, ring, V1, bundles[0])
    move(registry, V1, None)
    before = state_told(registry)
    elsewhere, moved = Registry(tmp_path / "elsewhere"), tmp_path / "sums.tar"
    release(elsewhere, ring, V2, bundles[1])
    export_version(elsewhere, f"sums@{V2}", moved, ring)

    def stage() -> None:
        registry.move("sums", "staging", V1, expected=None, decision=None, why="a test")

    def take_in() -> None:
        import_version(registry, moved, ring, why="a test")

    for spare in range(6):
        filler = fill(small_disk, spare=spare)
        with pytest.raises(StorageError) as told:
            release(registry, ring, V2, bundles[1])
        assert (told.value.exit_code, told.value.why) == (4, "No space left on device"), spare
        assert str(small_disk) in told.value.what
        if spare == 0:
            for action in (
                stage,
                take_in,
                lambda: export_version(registry, "sums@1.0.0", small_disk / "sums.tar", ring),
            ):
                with pytest.raises(StorageError, match="No space left"):
                    action()
            assert sorted(one.name for one in small_disk.iterdir()) == ["filler", "registry"]
        filler.unlink()
        assert state_told(registry) == before and faults_of(registry, ring) == [], spare
        registry.delete(registry.orphans(), grace_s=0)
        assert registry.orphans() == []
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for action in (
        lambda: release(registry, ring, V2, bundles[1]),
        lambda: registry.tag("sums", V1, added={"golden"}),
        stage,
        take_in,
        lambda: export_version(registry, "sums@1.0.0", small_disk / "sums.tar", ring),
    ):
        with pytest.raises(StorageError, match="Read-only file system") as told:
            action()
        assert told.value.exit_code == 4
    assert state_told(registry) == before and faults_of(registry, ring) == []
