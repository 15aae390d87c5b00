"""Manifests: what an artifact is made of, file by file, and the digests that give it its identity.

A digest is taken over an artifact's kind, its parents and its file digests: the same inputs give the same digest on any
machine at any time.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from raytrain.errors import IntegrityError
from raytrain.storage.location import Location

MANIFEST_NAME = "manifest.json"
_FORMAT = 1
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class FileEntry:
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Manifest:
    """What an artifact is made of. `parents` maps a role (`dataset`, `base_model`, …) to that artifact's digest."""

    kind: str
    files: dict[str, FileEntry]
    parents: dict[str, str]
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """`sha256:` over kind, parents and file digests; provenance stands beside it."""
        identity = {
            "format": _FORMAT,
            "kind": self.kind,
            "parents": dict(sorted(self.parents.items())),
            "files": {name: asdict(entry) for name, entry in sorted(self.files.items())},
        }
        return digest_of(identity)

    @property
    def size_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.files.values())

    def to_json(self) -> bytes:
        body = {"format": _FORMAT, "digest": self.digest, **asdict(self)}
        return json.dumps(body, indent=1, sort_keys=True, default=str).encode() + b"\n"

    @classmethod
    def from_json(cls, content: bytes, location: Location) -> Manifest:
        try:
            body = json.loads(content)
            manifest = cls(
                kind=body["kind"],
                files={name: FileEntry(**entry) for name, entry in body["files"].items()},
                parents=body["parents"],
                provenance=body["provenance"],
            )
            stated = body["digest"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise IntegrityError(
                f"{location / MANIFEST_NAME} is not a manifest",
                why=f"it cannot be read: {error}",
                fix="the artifact is damaged; take another copy of it",
            ) from error
        if stated != manifest.digest:
            raise IntegrityError(
                f"{location / MANIFEST_NAME} was changed",
                why=f"it states {stated}, its entries give {manifest.digest}",
                fix="the artifact is damaged; take another copy of it",
            )
        unsafe = [
            name for name in manifest.files if PurePosixPath(name).is_absolute() or ".." in Path(name).parts
        ]
        if unsafe:
            raise IntegrityError(
                f"{location / MANIFEST_NAME} names a file outside the artifact",
                why=f"unsafe path: {unsafe[0]}",
                fix="do not use this artifact; find out who wrote it",
            )
        return manifest


def digest_of(value: object) -> str:
    """`sha256:` of a JSON value, independent of key order and spacing."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return "sha256:" + hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def is_digest(text: object) -> bool:
    """Whether it has the form of one: whatever names a folder is held against that before."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def digest_hex(digest: str) -> str:
    """A digest without its algorithm, as it names folders."""
    return digest.removeprefix("sha256:")


def short_digest(digest: str) -> str:
    """Twelve hex digits of a digest, for names and tables."""
    return digest_hex(digest)[:12]


def file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_manifest(location: Location) -> Manifest:
    """The manifest at `location`; IntegrityError where there is none or where it does not agree with itself."""
    place = location / MANIFEST_NAME
    if not place.exists():
        raise IntegrityError(
            f"{location} is not an artifact",
            why=f"it has no {MANIFEST_NAME}" if location.exists() else "nothing is there",
            fix="check the path; `raytrain runs show RUN` prints the artifacts of a run",
        )
    return Manifest.from_json(place.read_bytes(), location)


def differences(
    folder: Path, manifest: Manifest, sha256_of: Callable[[Path], str] = file_sha256
) -> Iterator[tuple[str, str]]:
    """Each listed file below `folder` that differs from its entry, and how."""
    for name, entry in manifest.files.items():
        file = folder / name
        if not file.is_file():
            yield name, "is missing"
        elif file.stat().st_size != entry.size_bytes:
            yield name, f"has {file.stat().st_size} bytes instead of {entry.size_bytes}"
        elif sha256_of(file) != entry.sha256:
            yield name, "was changed (its SHA-256 differs)"


def first_difference(
    folder: Path, manifest: Manifest, sha256_of: Callable[[Path], str] = file_sha256
) -> tuple[str, str] | None:
    """The first of `differences`; None where all agree."""
    return next(differences(folder, manifest, sha256_of), None)


def unlisted(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Files below `folder` that the manifest does not name."""
    for file in folder.rglob("*"):
        name = file.relative_to(folder).as_posix()
        if file.is_file() and name != MANIFEST_NAME and name not in manifest.files:
            yield name
