"""A disk that fills up or turns read-only in the middle of a run; a real one, mounted for the test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import Bench, run_id_of
from conftest import Straight
from inside import Inside

from raytrain.storage.artifact import open_artifact
from raytrain.storage.location import Location


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"mounting is not allowed here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path) -> Path:
    """Take the last byte."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(b"x" * 4096)
        except OSError:
            pass
    return filler


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


@pytest.mark.thorough
def test_a_full_and_a_read_only_disk_spare_the_last_checkpoint(
    joined: Bench, straight: Straight, recipe: Path, small_disk: Path
) -> None:
    run_id, storage = run_id_of(recipe), f"storage.path={small_disk}"
    for hold_at, trouble in ((6, "full"), (10, "read-only")):
        joined.hold_at(hold_at)
        running = joined.begin(recipe, storage)
        joined.wait_for_step(running, run_id, hold_at)
        joined.wait_for_checkpoint(run_id, hold_at // 4 * 4, small_disk)
        if trouble == "full":
            filler = fill(small_disk)
        else:
            remount(small_disk, "ro")
        joined.hold_at(None)
        outcome = running.ended()
        assert outcome.code == 4, outcome.told()
        error = outcome.error
        assert error["kind"] == "storage", error
        assert str(small_disk) in error["what"]
        assert (
            error["why"] == {"full": "No space left on device", "read-only": "Read-only file system"}[trouble]
        )
        assert "storage.path" in error["fix"]
        assert joined.show(run_id)["run"]["state"] == "failed"
        whole = joined.checkpoints(run_id, small_disk)
        assert whole[-1].name == f"step-{hold_at // 4 * 4:08d}"
        assert open_artifact(Location(str(whole[-1])), kind="checkpoint")
        if trouble == "full":
            filler.unlink()
            remount(small_disk, "size=32m")
        else:
            remount(small_disk, "rw")
    outcome = joined.train(recipe, storage)
    assert outcome.code == 0, outcome.told()
    assert outcome.object["digest"] == straight.digest
    assert any("resumed at step 8 " in one["message"] for one in joined.events(run_id))
    assert list(small_disk.rglob(".staging-*")) == []


def test_storage_that_is_full_or_read_only_from_the_start(
    inside: Inside, recipe: Path, small_disk: Path
) -> None:
    filler = fill(small_disk)
    full = inside.train(recipe, f"storage.path={small_disk}")
    assert full.code == 4, full.told()
    assert full.error["why"] == "No space left on device"
    filler.unlink()
    remount(small_disk, "ro")
    read_only = inside.train(recipe, f"storage.path={small_disk}")
    assert read_only.code == 4, read_only.told()
    assert read_only.error["kind"] == "storage"
    assert read_only.error["why"] == "Read-only file system"
    assert sorted(small_disk.rglob("*.parquet")) == []
