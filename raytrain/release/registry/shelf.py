"""Where what was decided and approved is kept: in the registry's own store, so that it goes where bundles go.

A store keeps artifacts by name and digest. These lie under names that no release can have, `_approvals.NAME` and
`_records.NAME`: no list of releases shows them, and nothing takes them for bundles without a version.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from raytrain.errors import IntegrityError, PlatformError, RefusedError
from raytrain.release.keys import KeyRing, SigningKey
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.store import Store
from raytrain.release.signing import Signed, sign, verify
from raytrain.storage.artifact import Artifact, ArtifactWriter, copy_artifact, open_artifact
from raytrain.storage.location import Location
from raytrain.storage.manifest import MANIFEST_NAME, read_manifest
from raytrain.storage.provenance import collect_provenance

ShelfKind = Literal["approvals", "records"]
SHELVES: tuple[ShelfKind, ...] = get_args(ShelfKind)


@dataclass(frozen=True)
class Shelf:
    """Signed artifacts about the bundles of one name."""

    store: Store
    name: str

    def put(
        self,
        kind: str,
        write: Callable[[Path], None],
        key: SigningKey,
        ring: KeyRing,
        *,
        parents: Mapping[str, str],
    ) -> Artifact:
        """Keep an artifact under its digest, signed. The same content is kept as it is, with its time and signature.

        Whoever is killed before the signature stands leaves what counts for nothing, and the same call goes on with it.
        """
        with tempfile.TemporaryDirectory(prefix="raytrain-gate-") as scratch:
            staged = Path(scratch) / "staged"
            with ArtifactWriter(Location(str(staged)), kind=kind, parents=parents) as writer:
                write(writer.path)
                digest = _short(writer.commit(collect_provenance()).digest)
            if digest not in self.store.bundles(self.name):
                sign(staged, key)
                self.store.put_bundle(self.name, digest, staged)
            elif not self._counts(digest, ring):
                self._sign_anew(digest, Path(scratch), staged, key)
            return open_artifact(Location(str(self.store.open_bundle(self.name, digest))))

    def get(self, digest: str, ring: KeyRing, scratch: Path | None = None) -> Signed:
        """Raises RefusedError or IntegrityError where it is not there as it was signed by a key that counts.

        scratch: a folder, for who wants what lies there and no copy of this machine.
        """
        is_there = _short(digest) in self.store.bundles(self.name)
        place = self.store.open_bundle(self.name, _short(digest), scratch) if is_there else None
        if place is None or not place.is_dir():
            raise IntegrityError(
                f"{digest} is not in {self.place}",
                why="the journal names it, and it is not there",
                fix="put back a copy of the registry that is whole",
            )
        signed = verify(place, ring)
        if signed.artifact.digest != digest:
            raise IntegrityError(
                f"{self.place}/{_short(digest)} is another record",
                why=f"it is {signed.artifact.digest}",
                fix="put back a copy of the registry that is whole",
            )
        return signed

    def about(self, bundle: str) -> list[Path]:
        """Of everything that was put there, signed or not, what its manifest says to be about this bundle."""
        found = [self.store.open_bundle(self.name, one) for one in self.store.bundles(self.name)]
        whole = [one for one in found if (one / MANIFEST_NAME).is_file()]
        return [one for one in whole if read_manifest(Location(str(one))).parents.get("bundle") == bundle]

    def keep(self, folder: Path) -> None:
        """A copy of what another registry's shelf holds, with the signature beside it, under its digest."""
        digest = _short(read_manifest(Location(str(folder))).digest)
        if digest not in self.store.bundles(self.name):
            self.store.put_bundle(self.name, digest, folder)

    @property
    def place(self) -> str:
        """As a person finds it."""
        return self.store.bundle_place(self.name, "").rstrip("/")

    def _counts(self, digest: str, ring: KeyRing) -> bool:
        try:
            verify(self.store.open_bundle(self.name, digest), ring)
        except PlatformError:
            return False
        return True

    def _sign_anew(self, digest: str, scratch: Path, staged: Path, key: SigningKey) -> None:
        """Its signature is missing, or by a key that does not count any more; or it is not whole, and is put anew."""
        copy = scratch / "copy"
        try:
            copy_artifact(Location(str(self.store.open_bundle(self.name, digest))), Location(str(copy)))
        except (IntegrityError, RefusedError):
            self.store.delete_bundle(self.name, digest)
            self.store.drop_copy(digest)
            sign(staged, key)
            self.store.put_bundle(self.name, digest, staged)
        else:
            sign(copy, key)
            self.store.put_signature(self.name, digest, (scratch / "copy.sig").read_bytes())


def shelf_of(registry: Registry, name: str, kind: ShelfKind) -> Shelf:
    return Shelf(registry.store, f"_{kind}.{name}")


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")
