"""Artifacts: directories that must survive. This module alone writes and reads them.

A reader sees a whole artifact or none: files are staged, synced, hashed, listed in `manifest.json`, and committed by
one rename (on an object store: the manifest is uploaded last). What a manifest holds: `manifest.py`.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from raytrain.errors import IntegrityError, StorageError
from raytrain.storage.home import raytrain_home
from raytrain.storage.location import Location, sync_folder, translated_errors
from raytrain.storage.manifest import (
    MANIFEST_NAME,
    FileEntry,
    Manifest,
    file_sha256,
    first_difference,
    read_manifest,
    short_digest,
    unlisted,
)

_STAGING_PREFIX = ".staging-"
_STAGING_NAME = re.compile(r"\.staging-.*-(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}", re.DOTALL)
_OWN_STAGING: set[str] = set()
"""Of writers in this process: a process that was killed may have had its id, as in a container that was restarted."""


@dataclass(frozen=True)
class Artifact:
    """A committed artifact. `path` is a local folder that holds its files (a cached copy for an object store)."""

    location: Location
    manifest: Manifest
    path: Path

    @property
    def digest(self) -> str:
        return self.manifest.digest

    @property
    def kind(self) -> str:
        return self.manifest.kind


class ArtifactWriter:
    """Write an artifact: put files below `path`, then `commit()`. Leaving the block without a commit drops all.

        with ArtifactWriter(destination, kind="adapter", parents={"dataset": digest}) as writer:
            (writer.path / "weights.safetensors").write_bytes(...)
            artifact = writer.commit(provenance)

    Raises StorageError where the place is full, read-only or not reachable; nothing half-written is left visible.
    """

    def __init__(self, destination: Location, *, kind: str, parents: Mapping[str, str] | None = None) -> None:
        self.destination = destination
        self.kind = kind
        self.parents = dict(parents or {})
        staging_name = _staging_name(destination.name)
        with translated_errors(destination, "write"):
            if destination.is_local:
                # The staging folder lies beside the destination: a rename is atomic on one file system only.
                destination.path.parent.mkdir(parents=True, exist_ok=True)
                remove_stale_staging(destination.parent)
                _OWN_STAGING.add(staging_name)
                self.path = destination.path.parent / staging_name
                self.path.mkdir()
            else:
                self.path = Path(tempfile.mkdtemp(prefix=staging_name))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        _OWN_STAGING.discard(self.path.name)
        if isinstance(error, OSError) and not isinstance(error, StorageError):
            with translated_errors(self.destination, "write"):
                raise error

    def commit(
        self, provenance: dict[str, Any] | None = None, *, replace: bool = False, renew: bool = False
    ) -> Artifact:
        """Sync, hash and publish the staged files.

        An artifact with the same digest that is there and whole is kept, and returned; with `renew` it gets this one's
        provenance, for what is as old as its last making. A damaged one is replaced. One
        with another digest is an IntegrityError, or with `replace` is moved aside and dropped after the new one stands.
        """
        with translated_errors(self.destination, "write"):
            files = {}
            for file in sorted(self.path.rglob("*")):
                if file.is_file():
                    name = file.relative_to(self.path).as_posix()
                    _grant_usual_mode(file)
                    _sync_file(file)
                    files[name] = FileEntry(file_sha256(file), file.stat().st_size)
            manifest = Manifest(self.kind, files, self.parents, provenance or {})
            existing = self._existing()
            if existing is not None and existing.digest == manifest.digest:
                try:
                    whole = open_artifact(self.destination)
                except IntegrityError:
                    replace = True
                else:
                    if not renew:
                        return whole
                    (self.destination / MANIFEST_NAME).write_bytes(manifest.to_json())
                    return Artifact(self.destination, manifest, whole.path)
            if not replace and (existing is not None or self.destination.children()):
                there = (
                    "nothing whose manifest can be read"
                    if existing is None
                    else short_digest(existing.digest)
                )
                raise IntegrityError(
                    f"{self.destination} already holds another artifact",
                    why=f"there: {there}, to be written: {short_digest(manifest.digest)}",
                    fix="choose another destination or remove the old one",
                )
            manifest_path = self.path / MANIFEST_NAME
            manifest_path.write_bytes(manifest.to_json())
            _sync_file(manifest_path)
            if self.destination.is_local:
                self._commit_by_rename()
                return Artifact(self.destination, manifest, self.destination.path)
            self._commit_by_upload()
        return open_artifact(self.destination, verify=False)

    def _existing(self) -> Manifest | None:
        try:
            return read_manifest(self.destination)
        except (IntegrityError, StorageError):
            return None

    def _commit_by_rename(self) -> None:
        target = self.destination.path
        for folder in [self.path, *(one for one in self.path.rglob("*") if one.is_dir())]:
            sync_folder(folder)
        aside = None
        if target.exists():
            aside = target.with_name(_staging_name(f"old-{target.name}"))
            _OWN_STAGING.add(aside.name)
            target.rename(aside)
        self.path.rename(target)
        sync_folder(target.parent)
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
            _OWN_STAGING.discard(aside.name)

    def _commit_by_upload(self) -> None:
        manifest_path = self.path / MANIFEST_NAME
        content = manifest_path.read_bytes()
        manifest_path.unlink()
        if self._existing() is not None:
            # Without its manifest the old artifact is gone for readers before the first of its files changes.
            (self.destination / MANIFEST_NAME).delete()
        Location(str(self.path)).copy_files_to(self.destination)
        (self.destination / MANIFEST_NAME).write_bytes(content)


def _staging_name(name: str) -> str:
    """Names the machine and the process that writes, so that `remove_stale_staging` can tell whether it lives."""
    return f"{_STAGING_PREFIX}{name}-{_this_machine()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


@cache
def _this_machine() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


@cache
def _usual_mode() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def _grant_usual_mode(path: Path) -> None:
    """What any other program would have written: safetensors makes its files readable for their owner alone."""
    path.chmod(_usual_mode())


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_artifact(location: Location, *, kind: str | None = None, verify: bool = True) -> Artifact:
    """Open the artifact at `location`, checking every file's size and SHA-256 unless `verify` is false.

    One on an object store is first copied into a cache below RAYTRAIN_HOME, keyed by digest.
    Raises IntegrityError that names the first file which is missing, changed or not listed.
    """
    manifest = read_manifest(location)
    if kind is not None and manifest.kind != kind:
        raise IntegrityError(
            f"{location} is a {manifest.kind}",
            why=f"a {kind} was expected",
            fix=f"give the place of a {kind}",
        )
    path = location.path if location.is_local else _fetch(location, manifest)
    if verify:
        _verify_files(path, manifest, str(location))
    return Artifact(location, manifest, path)


def _verify_files(path: Path, manifest: Manifest, name: str) -> None:
    different = first_difference(path, manifest)
    if different is None and (stray := next(unlisted(path, manifest), None)) is not None:
        different = stray, "is not listed in the manifest"
    if different is not None:
        file, why = different
        raise IntegrityError(
            f"{name}: {file} {why}",
            why="the files do not agree with the manifest that was written with them",
            fix="the artifact is damaged; take another copy of it, or make it again",
        )


def _fetch(location: Location, manifest: Manifest) -> Path:
    target = raytrain_home() / "cache" / "artifacts" / manifest.digest.removeprefix("sha256:")
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=_STAGING_PREFIX, dir=target.parent))
        try:
            location.copy_files_to(Location(str(staging)))
            try:
                staging.rename(target)
            except OSError:
                if not target.is_dir():  # else somebody was as quick
                    raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return target


def copy_artifact(source: Location, target: Location) -> None:
    """Copy an artifact so that at `target`, too, a reader sees all of it or nothing."""
    artifact = open_artifact(source, verify=False)
    with ArtifactWriter(target, kind=artifact.kind, parents=artifact.manifest.parents) as writer:
        for file in sorted(artifact.path.rglob("*")):
            if file.is_file() and file != artifact.path / MANIFEST_NAME:
                _copy_file(file, writer.path / file.relative_to(artifact.path), target)
        written = writer.commit(artifact.manifest.provenance, replace=True)
    if written.digest != artifact.digest:
        raise IntegrityError(
            f"{target} is not a copy of {source}",
            why="the source changed while it was copied",
            fix="copy it again",
        )


def _copy_file(file: Path, staged: Path, target: Location) -> None:
    try:
        staged.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, staged)
    except OSError as error:
        # A full disk is named by the file that was read, or by none.
        raise OSError(error.errno, error.strerror, str(target)) from error


def delete_artifact(location: Location) -> None:
    """Delete an artifact; its manifest goes first, so that no reader takes a half-deleted one for whole."""
    (location / MANIFEST_NAME).delete()
    location.delete()


def artifacts_in(folder: Location) -> list[Location]:
    """Places of the artifacts that lie directly in a folder, by name. What is being written beside them, or was left
    by a writer that was killed before its rename, is none, however whole it looks."""
    return [one for one in folder.children() if not is_staging(one) and (one / MANIFEST_NAME).exists()]


def is_staging(place: Location) -> bool:
    """Whether a writer's folder, which is no artifact yet."""
    return place.name.startswith(_STAGING_PREFIX)


def remove_stale_staging(folder: Location) -> list[str]:
    """Drop what killed writers on this machine left in `folder`; returns the names that were dropped. Every writer
    does so before it begins.

    A staging folder names the machine and the process that writes it; one whose process lives is left alone, and so is
    one of another machine, on a disk that several share.
    """
    dropped = []
    for child in folder.children() if folder.is_local else []:
        its = _STAGING_NAME.fullmatch(child.name)
        if its is None or its["machine"] != _this_machine():
            continue
        pid = int(its["pid"])
        lives = child.name in _OWN_STAGING if pid == os.getpid() else psutil.pid_exists(pid)
        if not lives:
            shutil.rmtree(child.path, ignore_errors=True)
            dropped.append(child.name)
    return dropped
