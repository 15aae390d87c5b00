"""Where a registry lies. What it means is the journal's and the registry's affair; a store keeps bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from raytrain.errors import ConfigError, IntegrityError
from raytrain.storage.manifest import is_digest

Seal = tuple[bytes | None, bytes | None]
"""Manifest and signature of a bundle; None: there is none."""

IsNeeded = Callable[[Seal], bool]
"""Whether a bundle that had this seal is needed, as of now."""

KINDS = "a folder, s3://bucket/folder, gs://bucket/folder, az://container/folder or mlflow+http://host:port"


class Store(Protocol):
    """Entries of journals under a number that is given once, and bundles by their digest.

    Several processes on several machines may use one at the same time. Whatever a method does, a reader sees the state
    before it or the one after; every fault of the place is a StorageError that names it. A digest is 64 hex digits
    here; what is none is read and written by no method: IntegrityError.
    """

    @property
    def place(self) -> str:
        """As a person names it."""

    def is_there(self) -> bool:
        """Whether anything is at this place."""

    def names(self) -> list[str]:
        """Of which anything is there, an entry or a bundle, sorted."""

    def entries(self, name: str, *, fresh: bool = False) -> list[tuple[int, bytes]]:
        """What was written under each number, in order; `fresh`: read where it lies, from no copy of this machine."""

    def has_entry(self, name: str, number: int) -> bool:
        """Whether a journal has come so far: of entries that do not change, nobody need read those before."""

    def create_entry(self, name: str, number: int, content: bytes) -> bool:
        """Write what is not there yet; False where another has written that number, once for all."""

    def entry_place(self, name: str, number: int) -> str:
        """As a person finds it."""

    def bundles(self, name: str) -> list[str]:
        """Digests of which anything is there. What lies beside them under another name no store has put there."""

    def put_bundle(self, name: str, digest: str, bundle: Path) -> bool:
        """Copy an artifact and the signature beside it, the signature last.

        The same digest may have been built twice, with two manifests, and a signature is of one: where another manifest
        stands it stays, no signature is put beside it, and False says so.
        """

    def put_signature(self, name: str, digest: str, content: bytes) -> None:
        """Put another signature beside a bundle that is there."""

    def seal(self, name: str, digest: str) -> Seal:
        """What lies there now."""

    def open_bundle(self, name: str, digest: str, scratch: Path | None = None) -> Path:
        """A folder on this machine with what is there, its signature beside it: neither is verified.

        A store that is elsewhere takes the copy of this machine that has the seal which lies there now, or with
        `scratch` makes a new one in that folder.
        """

    def drop_copy(self, folder: Path) -> bool:
        """Forget this machine's copy, which `open_bundle` gave; False where the folder is none."""

    def bundle_place(self, name: str, digest: str) -> str:
        """As a person finds it."""

    def delete_bundle(self, name: str, digest: str, is_needed: IsNeeded) -> bool:
        """With its signature; nothing happens where it is not there.

        It is taken away from readers, then it is asked whether it is needed: if so, or if that cannot be said, it is
        put back, unless somebody has put it there anew, and False says so. What somebody puts there later stays.
        """

    def age_s(self, name: str, digest: str) -> float:
        """How long ago anything of a bundle or its signature was written, as far as the clocks agree."""

    def strays(self, name: str) -> dict[str, float]:
        """Places of files that no writer has finished, which mean nothing, and how long ago they were written to."""

    def delete_stray(self, name: str, place: str) -> None:
        """One that `strays` names; nothing happens where it is not there."""


def has_digest_form(name: str) -> bool:
    """Whether a store may have put something there under this name."""
    return is_digest(f"sha256:{name}")


def checked(digest: str, place: str) -> str:
    """The digest; raises IntegrityError where it is none, for it becomes part of a path."""
    if not has_digest_form(digest):
        raise IntegrityError(
            f"{place} names a bundle by what is no digest",
            why=f"{digest!r:.120} is not 64 hex digits",
            fix="do not use what names it; find out who wrote there",
        )
    return digest


def open_store(place: str) -> Store:
    """By its path or URI. Raises ConfigError where it is no place for a registry. Nothing is touched."""
    from raytrain.release.registry import mlflow_client
    from raytrain.release.registry.folder_store import FolderStore
    from raytrain.release.registry.mlflow_store import MlflowStore
    from raytrain.release.registry.object_client import SCHEMES, connect
    from raytrain.release.registry.object_store import ObjectStore

    name = place.removeprefix("file://")
    scheme, found, rest = name.partition("://")
    if not found:
        return FolderStore(Path(name).expanduser().absolute())
    if scheme in mlflow_client.SCHEMES:
        return MlflowStore(mlflow_client.connect(name))
    if scheme not in SCHEMES or not rest.partition("?")[0].strip("/"):
        raise ConfigError(
            f"`{place}` is no place for a registry",
            why="the bucket behind :// is missing"
            if scheme in SCHEMES
            else f"nothing is known of {scheme}://",
            fix=f"name {KINDS}",
        )
    return ObjectStore(connect(name))
