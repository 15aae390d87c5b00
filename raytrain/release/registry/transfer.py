"""A version in one file: from one registry to another, over whatever lies between.

version.json     what is moved, from where
journal.jsonl    the whole journal of its name, so that its chain can be followed
key.pem          who signed; nobody trusts it for being here
bundle/…         the bundle
bundle.sig       its signature
proof/records/<digest>/…, proof/approvals/<digest>/…, each with its .sig: what was decided and approved about it
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tarfile
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from raytrain.errors import ConfigError, DataError, IntegrityError, PlatformError, RefusedError
from raytrain.release.bundle.description import ingredients_of
from raytrain.release.keys import KeyRing
from raytrain.release.registry.evidence import recorded_evaluations, recorded_metrics, subject_of
from raytrain.release.registry.journal import Entry, chained
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.shelf import SHELVES, ShelfKind, shelf_of
from raytrain.release.registry.state import Released, is_tag, state_of
from raytrain.release.registry.versions import Version
from raytrain.release.signing import SIGNATURE_SUFFIX, Signed, signature_place, verify
from raytrain.storage.artifact import Artifact
from raytrain.storage.location import sync_folder, translated_errors
from raytrain.storage.manifest import digest_hex

_FORMAT = 1
_VERSION, _JOURNAL, _KEY, _BUNDLE, _PROOF = "version.json", "journal.jsonl", "key.pem", "bundle", "proof"
_OF_PROOF = re.compile(rf"{_PROOF}/({'|'.join(SHELVES)})/[0-9a-f]{{64}}(\.sig|/.+)")
_LARGEST_DOCUMENT = 1 << 28


@dataclass(frozen=True)
class Exported:
    """What was written."""

    signed: Signed
    left_out: list[str]
    """Records and approvals that do not verify here, with the reason: whoever imports them would refuse the file."""


def export_version(registry: Registry, reference: str, file: Path, ring: KeyRing) -> Exported:
    """Write a version, once it and what was decided about it are verified, to a file that stands whole or not at all.

    Raises NotRegisteredError, RefusedError or IntegrityError where there is nothing to move, StorageError where the
    file cannot be written.
    """
    name = reference.partition("@")[0]
    released = registry.find(reference)
    registry.state(name).refuse_withdrawn(name, released.version)
    signed = registry.verified(reference, ring)
    contents = registry.journal(name).contents()
    told = {"format": _FORMAT, "name": name, "version": str(released.version), "digest": released.digest}
    documents = {
        _VERSION: json.dumps({**told, "registry": registry.place}, indent=1, sort_keys=True).encode() + b"\n",
        _JOURNAL: b"".join(contents),
        _KEY: signed.key.pem.encode(),
    }
    proof, left_out = _proof_of(registry, name, released.digest, ring)
    folders = {_BUNDLE: signed.artifact.path, **proof}
    staged = file.with_name(f".{file.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    with translated_errors(file, "write"):
        try:
            with staged.open("wb") as stream:
                with tarfile.open(fileobj=stream, mode="w") as tar:
                    for one, content in documents.items():
                        tar.addfile(_member(one, len(content)), io.BytesIO(content))
                    for one, folder in folders.items():
                        _add_signed(tar, one, folder)
                stream.flush()
                os.fsync(stream.fileno())
            staged.replace(file)
            sync_folder(file.parent)
        finally:
            staged.unlink(missing_ok=True)
    return Exported(signed, left_out)


def _proof_of(registry: Registry, name: str, digest: str, ring: KeyRing) -> tuple[dict[str, Path], list[str]]:
    """What verifies here; and what does not, with the reason."""
    found: dict[str, Path] = {}
    left: list[str] = []
    for kind in SHELVES:
        shelf = shelf_of(registry, name, kind)
        for folder in shelf.about(digest):
            try:
                shelf.get(f"sha256:{folder.name}", ring)
            except (RefusedError, IntegrityError) as error:
                left.append(f"{kind}/{folder.name}: {error.what}: {error.why}")
            else:
                found[f"{_PROOF}/{kind}/{folder.name}"] = folder
    return found, left


def _add_signed(tar: tarfile.TarFile, name: str, folder: Path) -> None:
    """An artifact, and the signature beside it."""
    signature = signature_place(folder)
    inside = {f"{name}/{one.relative_to(folder).as_posix()}": one for one in sorted(folder.rglob("*"))}
    for member, path in {**inside, name + SIGNATURE_SUFFIX: signature}.items():
        if path.is_file():
            with path.open("rb") as stream:
                tar.addfile(_member(member, path.stat().st_size), stream)


def _member(name: str, size: int) -> tarfile.TarInfo:
    """No clock, no owner: the same version, the same file."""
    found = tarfile.TarInfo(name)
    found.size, found.mode = size, 0o644
    return found


def import_version(registry: Registry, file: Path, ring: KeyRing, *, why: str) -> tuple[str, Released]:
    """Release what a file holds under the name and version that it had; aliases stay where they are.

    Raises ConfigError where nothing is there, DataError where it is no such file, IntegrityError or RefusedError where
    its journal, its digest or its signature does not hold, or the version is taken; the registry is then as it was.
    """
    with tempfile.TemporaryDirectory(prefix="raytrain-import-") as scratch:
        folder = Path(scratch)
        _unpack(file, folder)
        told, entries = _read(file, folder)
        released = _released(file, told, entries)
        with _key_told(file, folder):
            signed = verify(folder / _BUNDLE, ring)
            made_from = released.made_from | ingredients_of(signed.artifact)
        if signed.artifact.digest != released.digest:
            raise _broken(
                file, f"its bundle is {signed.artifact.digest}, its journal released {released.digest}"
            )
        name = str(told["name"])
        proof, left = _read_proof(file, folder, released.digest, ring)
        details = _carried(file, released, signed.artifact, entries)
        details["imported"] = {
            "registry": str(told.get("registry")),
            "num_entries": len(entries),
            "entries": [vars(one) for one in entries if one.details.get("version") == str(released.version)],
            "proof_left_out": left,
        }
        bundle = folder / _BUNDLE
        if released.version not in {one.version for one in registry.released(name)}:
            # Before the entry: whoever is killed here leaves what is about no version, and imports again.
            for kind, one in proof:
                shelf_of(registry, name, kind).keep(one, ring)
        made = registry.register(
            name, released.version, bundle, ring, made_from=made_from, why=why, details=details
        )
    return name, made


def _read_proof(
    file: Path, folder: Path, bundle: str, ring: KeyRing
) -> tuple[list[tuple[ShelfKind, Path]], list[str]]:
    """What came along of records and approvals, and what of it counts for nothing here, with the reason."""
    found: list[tuple[ShelfKind, Path]] = []
    left: list[str] = []
    for kind in SHELVES:
        shelf = folder / _PROOF / kind
        for one in sorted(shelf.iterdir()) if shelf.is_dir() else []:
            if not one.is_dir():
                continue
            try:
                signed = verify(one, ring)
            except RefusedError as error:
                left.append(f"{kind}/{one.name}: {error.why}".replace(f"{folder}/", ""))
                continue
            except IntegrityError as error:
                raise _broken(file, f"{error.what}: {error.why}".replace(f"{folder}/", "")) from error
            digest, about = signed.artifact.digest, signed.artifact.manifest.parents.get("bundle")
            if digest_hex(digest) != one.name or about != bundle:
                raise _broken(file, f"{_PROOF}/{kind}/{one.name} is {digest}, about {about}")
            found.append((kind, one))
    return found, left


def _carried(file: Path, released: Released, artifact: Artifact, entries: list[Entry]) -> dict[str, Any]:
    """What the entry says beside version and digest. Nobody has signed the journal: what the bundle says itself is
    taken from there, and of tags and evidence at least the form is checked."""
    tags = sorted(state_of(entries).tags[released.version])
    odd = [one for one in tags if not is_tag(one)]
    if odd:
        raise _broken(file, f"its journal has a tag that is none: {odd[0]!r:.120}")
    try:
        evaluations, metrics = recorded_evaluations(released), recorded_metrics(released)
    except IntegrityError as error:
        raise _broken(file, f"{error.what}: {error.why}") from error
    return {
        "subject": subject_of(artifact),
        "evaluations": evaluations,
        "metrics": metrics,
        "tags": tags,
    }


def _unpack(file: Path, folder: Path) -> None:
    if not file.exists():
        raise ConfigError(f"there is no file {file}", why="nothing is there", fix="check the path")
    seen: set[str] = set()
    try:
        with tarfile.open(file, mode="r:") as tar:
            for member in tar:
                _check_member(file, member, seen)
                place = folder / member.name
                place.parent.mkdir(parents=True, exist_ok=True)
                source = tar.extractfile(member)
                assert source is not None, "a regular file has content"
                with translated_errors(place, "write"), place.open("wb") as stream:
                    shutil.copyfileobj(source, stream)
    except PlatformError:
        raise
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise DataError(
            f"{file} cannot be read",
            why=f"{type(error).__name__}: {error}",
            fix="give a file that `raytrain registry export` has written, and all of it",
        ) from error


def _check_member(file: Path, member: tarfile.TarInfo, seen: set[str]) -> None:
    name = PurePosixPath(member.name)
    known = (_VERSION, _JOURNAL, _KEY, _BUNDLE + SIGNATURE_SUFFIX)
    if not member.isreg():
        raise _broken(file, f"{member.name!r} is no ordinary file")
    if name.is_absolute() or ".." in name.parts or "\0" in member.name or str(name) != member.name:
        raise _broken(file, f"{member.name!r} would be written elsewhere")
    if member.name not in known and name.parts[0] != _BUNDLE and not _OF_PROOF.fullmatch(member.name):
        raise _broken(file, f"{member.name!r} does not belong there")
    if member.name in seen or member.name == _BUNDLE:
        raise _broken(file, f"{member.name!r} is there twice")
    if member.name in known and member.size > _LARGEST_DOCUMENT:
        raise _broken(file, f"{member.name!r} has {member.size} bytes")
    seen.add(member.name)


def _read(file: Path, folder: Path) -> tuple[dict[str, Any], list[Entry]]:
    try:
        told = json.loads((folder / _VERSION).read_bytes())
        is_known = told["format"] == _FORMAT
        str(told["name"]), Version.parse(told["version"]), str(told["digest"])
        contents = (folder / _JOURNAL).read_bytes().splitlines(keepends=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _broken(file, f"it does not say what it holds: {type(error).__name__}: {error}") from error
    if not is_known:
        raise _broken(file, f"its format is {told['format']!r}, known is {_FORMAT}")
    return told, chained(contents, lambda number: f"{file}: entry {number}")


def _released(file: Path, told: dict[str, Any], entries: list[Entry]) -> Released:
    """As its journal has it."""
    released = state_of(entries).versions.get(Version.parse(told["version"]))
    if released is None or released.digest != told["digest"]:
        what = "nothing" if released is None else released.digest
        raise _broken(file, f"it says {told['version']} is {told['digest']}, its journal says {what}")
    return released


@contextmanager
def _key_told(file: Path, folder: Path) -> Iterator[None]:
    """What is wrong is told of the file; where nobody here knows the key, how to look at the one that came along."""
    try:
        yield
    except RefusedError as error:
        key = folder / _KEY
        if "nobody here knows" not in error.what or not key.is_file():
            raise
        raise RefusedError(
            f"{file} is signed by a key that nobody here knows",
            why=f"{error.why}; the key that came along proves nothing by itself",
            fix=f"tar -xOf {file} {_KEY} > their.pem, compare its id with whoever signed it, then "
            "raytrain keys trust NAME their.pem",
        ) from error
    except IntegrityError as error:
        raise _broken(file, f"{error.what}: {error.why}".replace(f"{folder}/", "")) from error


def _broken(file: Path, why: str) -> IntegrityError:
    return IntegrityError(
        f"{file} is not taken", why=why, fix="export the version again; do not use this file"
    )
