from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raytrain.errors import ConfigError, IntegrityError, StorageError
from raytrain.storage.artifact import (
    Artifact,
    ArtifactWriter,
    artifacts_in,
    copy_artifact,
    delete_artifact,
    open_artifact,
    remove_stale_staging,
)
from raytrain.storage.location import Location
from raytrain.storage.manifest import MANIFEST_NAME, short_digest
from raytrain.storage.named_places import place_for_artifact, place_of_artifact


@pytest.fixture
def place(tmp_path: Path) -> Location:
    return Location(str(tmp_path / "store"))


def write(location: Location, content: dict[str, str], **options: object) -> Artifact:
    with ArtifactWriter(location, kind="thing", parents={"dataset": "sha256:0"}) as writer:
        for name, text in content.items():
            file = writer.path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return writer.commit({"time": time.time()}, **options)  # type: ignore[arg-type]


def test_same_inputs_give_the_same_digest_whatever_the_provenance(place: Location) -> None:
    first = write(place / "a", {"x": "1", "deep/y": "2"})
    second = write(place / "b", {"deep/y": "2", "x": "1"})
    other = write(place / "c", {"x": "1", "deep/y": "3"})
    assert first.digest == second.digest != other.digest
    assert first.manifest.provenance != second.manifest.provenance
    assert open_artifact(place / "a", kind="thing").digest == first.digest
    assert len(short_digest(first.digest)) == 12


def test_without_a_commit_nothing_is_left(place: Location) -> None:
    with pytest.raises(RuntimeError, match="boom"), ArtifactWriter(place / "a", kind="thing") as writer:
        (writer.path / "x").write_text("1")
        raise RuntimeError("boom")
    assert place.children() == []


def test_an_existing_artifact_is_kept_or_refused_or_replaced(place: Location) -> None:
    first = write(place / "a", {"x": "1"})
    again = write(place / "a", {"x": "1"})
    assert again.manifest.provenance == first.manifest.provenance, "the one that stands is kept"
    renewed = write(place / "a", {"x": "1"}, renew=True)
    assert renewed.digest == first.digest and renewed.manifest.provenance != first.manifest.provenance
    assert open_artifact(place / "a").manifest == renewed.manifest, "what is as old as its last making"
    with pytest.raises(IntegrityError, match="already holds another"):
        write(place / "a", {"x": "2"}, renew=True)
    assert open_artifact(place / "a").digest == first.digest
    replaced = write(place / "a", {"x": "2"}, replace=True)
    assert open_artifact(place / "a").digest == replaced.digest
    assert [child.name for child in place.children()] == ["a"]


def damage_flip(folder: Path) -> None:
    (folder / "x").write_text("9")


def damage_truncate(folder: Path) -> None:
    (folder / "x").write_text("")


def damage_remove(folder: Path) -> None:
    (folder / "x").unlink()


def damage_add(folder: Path) -> None:
    (folder / "z").write_text("new")


def damage_manifest(folder: Path) -> None:
    text = (folder / MANIFEST_NAME).read_text()
    (folder / MANIFEST_NAME).write_text(text.replace('"size_bytes": 1', '"size_bytes": 2'))


def damage_manifest_half(folder: Path) -> None:
    (folder / MANIFEST_NAME).write_bytes((folder / MANIFEST_NAME).read_bytes()[:40])


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (damage_flip, "x was changed"),
        (damage_truncate, "x has 0 bytes"),
        (damage_remove, "x is missing"),
        (damage_add, "z is not listed"),
        (damage_manifest, "was changed"),
        (damage_manifest_half, "is not a manifest"),
    ],
)
def test_damage_is_found_and_named(place: Location, damage: object, named: str) -> None:
    write(place / "a", {"x": "1"})
    damage((place / "a").path)  # type: ignore[operator]
    with pytest.raises(IntegrityError, match=named):
        open_artifact(place / "a")


def test_wrong_kind_and_absent(place: Location) -> None:
    write(place / "a", {"x": "1"})
    with pytest.raises(IntegrityError, match="is a thing"):
        open_artifact(place / "a", kind="dataset")
    with pytest.raises(IntegrityError, match="not an artifact"):
        open_artifact(place / "nothing")


def test_copy_and_delete(place: Location) -> None:
    source = write(place / "a", {"x": "1"})
    copy_artifact(place / "a", place / "b")
    assert open_artifact(place / "b").digest == source.digest
    delete_artifact(place / "a")
    assert not (place / "a").exists()


WRITER_THAT_NEVER_COMMITS = """
import sys, time
from raytrain.storage.artifact import ArtifactWriter
from raytrain.storage.location import Location
with ArtifactWriter(Location(sys.argv[1]), kind="thing") as writer:
    (writer.path / "x").write_text("half")
    print("staged", flush=True)
    time.sleep(60)
"""


def test_a_writer_killed_in_the_middle_leaves_the_old_artifact_whole(place: Location) -> None:
    before = write(place / "a", {"x": "1"})
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER_THAT_NEVER_COMMITS, str(place / "a")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "staged\n"
    assert remove_stale_staging(place) == [], "the writer lives, so its staging folder is left alone"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert open_artifact(place / "a").digest == before.digest
    dropped = remove_stale_staging(place)
    assert len(dropped) == 1
    assert [child.name for child in place.children()] == ["a"]


WRITER_THAT_NEVER_RENAMES = """
import sys, time
from raytrain.storage.artifact import ArtifactWriter
from raytrain.storage.location import Location

def stay(writer):
    print("sealed", flush=True)
    time.sleep(60)

ArtifactWriter._commit_by_rename = stay
with ArtifactWriter(Location(sys.argv[1]), kind="thing") as writer:
    (writer.path / "x").write_text("1")
    writer.commit()
"""


def killed_before_its_rename(place: Location) -> str:
    """Name of what it left, a whole artifact beside its place."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER_THAT_NEVER_RENAMES, str(place)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "sealed\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    (left,) = (one for one in place.parent.children() if one.name.startswith(".staging-"))
    assert open_artifact(left).kind == "thing"
    return left.name


def test_what_was_left_before_its_rename_is_no_artifact_and_the_next_writer_drops_it(place: Location) -> None:
    write(place / "a", {"x": "1"})
    left = killed_before_its_rename(place / "b")
    (place / "no-artifact").path.mkdir()
    assert [one.name for one in artifacts_in(place)] == ["a"]
    write(place / "c", {"x": "1"})
    assert not (place / left).exists()
    assert [one.name for one in artifacts_in(place)] == ["a", "c"]


def test_what_others_write_is_left_alone(place: Location) -> None:
    left = killed_before_its_rename(place / "b")
    machine = left.split("-")[2]
    elsewhere = left.replace(machine, "0" * 8)
    (place / left).path.rename((place / elsewhere).path)
    with (
        ArtifactWriter(place / "a", kind="thing") as first,
        ArtifactWriter(place / "c", kind="thing") as second,
    ):
        assert first.path.is_dir()
        first.commit()
        second.commit()
    assert [one.name for one in place.children()] == [elsewhere, "a", "c"]


def test_another_process_had_our_id(place: Location) -> None:
    """As after a restart in a container, where the first process is always number 1."""
    left = killed_before_its_rename(place / "b")
    *beginning, _, last = left.split("-")
    (place / left).path.rename((place / "-".join([*beginning, str(os.getpid()), last])).path)
    assert len(remove_stale_staging(place)) == 1
    assert place.children() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_full_disk_is_named_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    if (
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", mount], check=False).returncode
        != 0
    ):
        pytest.skip("this machine lets nobody mount a tmpfs")
    try:
        store = Location(str(mount))
        before = write(store / "a", {"x": "1"})
        with pytest.raises(StorageError) as caught, ArtifactWriter(store / "b", kind="thing") as writer:
            (writer.path / "big").write_bytes(b"0" * 1_000_000)
            writer.commit()
        assert os.strerror(errno.ENOSPC) in caught.value.why
        assert "free space" in caught.value.fix
        assert [child.name for child in store.children()] == ["a"]
        assert open_artifact(store / "a").digest == before.digest
    finally:
        subprocess.run(["umount", mount], check=True)


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        ArtifactWriter(Location(str(tmp_path / "file" / "a")), kind="thing")


def test_files_get_the_usual_mode(place: Location) -> None:
    with ArtifactWriter(place / "a", kind="thing") as writer:
        (writer.path / "x").write_text("1")
        (writer.path / "x").chmod(0o600)
        (writer.path / "y").write_text("2")
        artifact = writer.commit()
    assert (artifact.path / "x").stat().st_mode == (artifact.path / "y").stat().st_mode


def test_a_damaged_artifact_is_replaced_by_the_same_one_whole(place: Location) -> None:
    write(place / "a", {"x": "1"})
    damage_flip((place / "a").path)
    write(place / "a", {"x": "1"})
    open_artifact(place / "a")


def test_what_else_lies_at_a_place_is_never_swept_away(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    assert place_for_artifact(str(tmp_path / "notes")).path == tmp_path / "notes", "an empty folder is free"
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for taken in ("notes", "file"):
        with pytest.raises(ConfigError, match="is no artifact"):
            place_for_artifact(str(tmp_path / taken))
    with ArtifactWriter(Location.parse(tmp_path / "one"), kind="thing") as writer:
        (writer.path / "x").write_text("x")
        writer.commit()
    assert place_for_artifact(str(tmp_path / "one")).name == "one"


def test_a_path_that_is_not_there_is_the_users_and_what_is_damaged_is_not(place: Location) -> None:
    with pytest.raises(ConfigError) as told:
        place_of_artifact(str(place / "nowhere"))
    assert told.value.exit_code == 2 and str(place / "nowhere") in told.value.what
    write(place / "a", {"x": "1"})
    (place / "a" / MANIFEST_NAME).delete()
    with pytest.raises(IntegrityError, match="is not an artifact"):
        open_artifact(place_of_artifact(str(place / "a")))
