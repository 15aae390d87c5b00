from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from raytrain.errors import StorageError
from raytrain.storage.location import Location, translated_errors, write_atomically


def test_paths_become_absolute_and_uris_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Location.parse("a/b").uri == str(tmp_path / "a" / "b")
    assert Location.parse("file:///x/y").uri == "/x/y"
    assert Location.parse("s3://bucket/key/").uri == "s3://bucket/key"
    assert (Location.parse("s3://bucket") / "a").parent.uri == "s3://bucket"
    assert (Location.parse("s3://bucket") / "a").name == "a"
    with pytest.raises(StorageError, match="not on a local disk"):
        _ = Location.parse("s3://bucket/key").path


def test_read_write_list_delete(tmp_path: Path) -> None:
    folder = Location(str(tmp_path / "f"))
    assert folder.children() == []
    (folder / "deep" / "x").write_bytes(b"1")
    (folder / "y").write_bytes(b"2")
    (folder / "y").write_bytes(b"3")
    assert [child.name for child in folder.children()] == ["deep", "y"]
    assert (folder / "y").read_bytes() == b"3"
    with pytest.raises(StorageError, match="cannot read"):
        (folder / "none").read_bytes()
    (folder / "y").delete()
    (folder / "y").delete()
    folder.delete()
    assert not folder.exists()


def test_two_who_write_one_file_at_once_are_both_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads, or two containers, have the same process number."""
    sync = os.fsync

    def another_writes(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", sync)
        sync(descriptor)
        write_atomically(tmp_path / "file", b"another")

    monkeypatch.setattr(os, "fsync", another_writes)
    write_atomically(tmp_path / "file", b"ours")
    assert (tmp_path / "file").read_bytes() == b"ours"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_what_a_folder_takes(tmp_path: Path) -> None:
    place = Location(str(tmp_path / "folder"))
    assert place.size_bytes() == 0, "not there"
    (place / "a").write_bytes(b"12345")
    (place / "below" / "b").write_bytes(b"123")
    assert place.size_bytes() == 8
    assert (place / "a").size_bytes() == 5


def test_a_folder_that_does_not_fit_is_told_as_a_full_disk(tmp_path: Path) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "from" / "deep").mkdir(parents=True)
    (tmp_path / "from" / "deep" / "x").write_bytes(b"1")
    with pytest.raises(StorageError) as caught, translated_errors(tmp_path / "to", "write"):
        shutil.copytree(tmp_path / "from", tmp_path / "to", copy_function=full)
    assert caught.value.why == "No space left on device" and "larger disk" in caught.value.fix
    assert caught.value.what == f"cannot write {tmp_path / 'to'}"


def test_unknown_scheme_is_a_storage_error() -> None:
    with pytest.raises(StorageError, match="cannot be reached"):
        Location("nosuch://x/y").children()


def test_any_pyarrow_filesystem_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The branch for object stores, over a real pyarrow filesystem reached by URI."""
    from raytrain.storage.artifact import ArtifactWriter, copy_artifact, delete_artifact, open_artifact

    remote = Location(f"file://{tmp_path}/remote")
    assert not remote.is_local
    for text in ("1", "2"):
        with ArtifactWriter(remote / "a", kind="thing") as writer:
            (writer.path / "sub").mkdir()
            (writer.path / "sub" / "x").write_text(text)
            artifact = writer.commit(replace=True)
        assert (artifact.path / "sub" / "x").read_text() == text
        assert open_artifact(remote / "a").digest == artifact.digest
    copy_artifact(remote / "a", Location(str(tmp_path / "local")))
    assert open_artifact(Location(str(tmp_path / "local"))).digest == artifact.digest
    assert [child.name for child in remote.children()] == ["a"]
    assert (remote / "a" / "sub" / "x").read_bytes() == b"2"
    delete_artifact(remote / "a")
    assert not (remote / "a").exists()


def test_a_uri_without_a_bucket_is_refused() -> None:
    from raytrain.errors import ConfigError

    with pytest.raises(ConfigError, match="names no place"):
        Location.parse("s3://")


def test_a_scheme_that_nothing_opens_is_a_config_error() -> None:
    from pydantic import ValidationError

    from raytrain.storage.section import StorageSection

    with pytest.raises(ValidationError, match="s3://"):
        StorageSection(path="ftp://host/folder")


def test_a_password_in_the_database_url_is_not_shown() -> None:
    from raytrain.storage.database import open_database

    for url in (
        "nosuchdialect://user:secret@host/db",
        "postgresql+absent://user:secret@host/db",
        "user:secret",
    ):
        with pytest.raises(StorageError) as caught:
            open_database(url)
        assert "secret" not in str(caught.value)
