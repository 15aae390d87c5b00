"""A version in one file: from one registry to another, over whatever lies between.

version.json     what is moved, from where
journal.jsonl    the whole journal of its name, so that its chain can be followed
key.pem          who signed; nobody trusts it for being here
bundle/…         the bundle
bundle.sig       its signature
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from raytrain.errors import DataError, IntegrityError, PlatformError, RefusedError
from raytrain.release.keys import KeyRing
from raytrain.release.registry.journal import Entry, chained
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.state import Released, state_of
from raytrain.release.registry.versions import Version
from raytrain.release.signing import SIGNATURE_SUFFIX, Signed, verify
from raytrain.storage.location import sync_folder, translated_errors

_FORMAT = 1
_VERSION, _JOURNAL, _KEY, _BUNDLE = "version.json", "journal.jsonl", "key.pem", "bundle"
_LARGEST_DOCUMENT = 1 << 28


def export_version(registry: Registry, reference: str, file: Path, ring: KeyRing) -> Signed:
    """Write a version, once it is verified, to a file that stands whole or not at all.

    Raises ConfigError, RefusedError or IntegrityError where there is nothing to move, StorageError where the file
    cannot be written.
    """
    name = reference.partition("@")[0]
    released = registry.find(reference)
    signed = registry.verified(reference, ring)
    contents = registry.journal(name).contents()
    told = {"format": _FORMAT, "name": name, "version": str(released.version), "digest": released.digest}
    documents = {
        _VERSION: json.dumps({**told, "registry": registry.place}, indent=1, sort_keys=True).encode() + b"\n",
        _JOURNAL: b"".join(contents),
        _KEY: signed.key.pem.encode(),
    }
    folder = signed.artifact.path
    staged = file.with_name(f".{file.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    with translated_errors(file, "write"):
        try:
            with staged.open("wb") as stream:
                with tarfile.open(fileobj=stream, mode="w") as tar:
                    for one, content in documents.items():
                        tar.addfile(_member(one, len(content)), io.BytesIO(content))
                    for path in [
                        *sorted(folder.rglob("*")),
                        folder.with_name(folder.name + SIGNATURE_SUFFIX),
                    ]:
                        if path.is_file():
                            _add(tar, path, folder)
                stream.flush()
                os.fsync(stream.fileno())
            staged.replace(file)
            sync_folder(file.parent)
        finally:
            staged.unlink(missing_ok=True)
    return signed


def _add(tar: tarfile.TarFile, path: Path, folder: Path) -> None:
    inside = path.is_relative_to(folder)
    name = f"{_BUNDLE}/{path.relative_to(folder).as_posix()}" if inside else _BUNDLE + SIGNATURE_SUFFIX
    with path.open("rb") as stream:
        tar.addfile(_member(name, path.stat().st_size), stream)


def _member(name: str, size: int) -> tarfile.TarInfo:
    """No clock, no owner: the same version, the same file."""
    found = tarfile.TarInfo(name)
    found.size, found.mode = size, 0o644
    return found


def import_version(registry: Registry, file: Path, ring: KeyRing, *, why: str) -> tuple[str, Released]:
    """Release what a file holds under the name and version that it had; aliases stay where they are.

    Raises DataError where it is no such file, IntegrityError or RefusedError where its journal, its digest or its
    signature does not hold, or the version is taken; the registry is then as it was.
    """
    with tempfile.TemporaryDirectory(prefix="raytrain-import-") as scratch:
        folder = Path(scratch)
        _unpack(file, folder)
        told, entries = _read(file, folder)
        released = _released(file, told, entries)
        with _key_told(file, folder):
            signed = verify(folder / _BUNDLE, ring)
        if signed.artifact.digest != released.digest:
            raise _broken(
                file, f"its bundle is {signed.artifact.digest}, its journal released {released.digest}"
            )
        name = str(told["name"])
        details = _carried(released, told, entries)
        bundle = folder / _BUNDLE
        made = registry.register(
            name, released.version, bundle, ring, made_from=released.made_from, why=why, details=details
        )
    return name, made


def _carried(released: Released, told: dict[str, Any], entries: list[Entry]) -> dict[str, Any]:
    """What the entry says beside version and digest: tags, evidence, and what happened to it where it came from."""
    of_version = [vars(one) for one in entries if one.details.get("version") == str(released.version)]
    kept = {
        key: value
        for key, value in released.entry.details.items()
        if key in ("subject", "evaluations", "metrics")
    }
    return {
        **kept,
        "tags": sorted(state_of(entries).tags[released.version]),
        "imported": {
            "registry": str(told.get("registry")),
            "num_entries": len(entries),
            "entries": of_version,
        },
    }


def _unpack(file: Path, folder: Path) -> None:
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
    if member.name not in known and name.parts[0] != _BUNDLE:
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
