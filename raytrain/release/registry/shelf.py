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

from raytrain.errors import IntegrityError, RefusedError
from raytrain.release.keys import KeyRing, SigningKey
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.standing import Standing
from raytrain.release.registry.store import Store
from raytrain.release.signing import Signed, sign
from raytrain.storage.artifact import Artifact, ArtifactWriter, copy_artifact, open_artifact
from raytrain.storage.location import Location
from raytrain.storage.manifest import MANIFEST_NAME, digest_hex, read_manifest
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
                digest = writer.commit(collect_provenance()).digest
            standing = Standing(self.store, self.name, digest, ring)
            if not standing.is_there or not _counts(standing):
                signed = self._copied(digest, Path(scratch)) or staged
                sign(signed, key)
                standing.keep(signed, _nobody)
            return standing.verified().artifact

    def get(self, digest: str, ring: KeyRing, scratch: Path | None = None) -> Signed:
        """Raises RefusedError or IntegrityError where it is not there as it was signed by a key that counts.

        scratch: a folder, for who wants what lies there and no copy of this machine.
        """
        standing = Standing(self.store, self.name, digest, ring)
        if self.store.seal(self.name, digest_hex(digest))[0] is None:
            raise IntegrityError(
                f"{digest} is not in {self.place}",
                why="the journal names it, and it is not there",
                fix="put back a copy of the registry that is whole",
            )
        return standing.verified(scratch)

    def about(self, bundle: str) -> list[Path]:
        """Of everything that was put there, signed or not, what its manifest says to be about this bundle.

        So may be what has a manifest that cannot be read: whoever verifies it says why it does not count.
        """
        found = [self._opened(one) for one in self.store.bundles(self.name)]
        whole = [one for one in found if (one / MANIFEST_NAME).is_file()]
        return [one for one in whole if _is_about(one, bundle)]

    def keep(self, folder: Path, ring: KeyRing) -> None:
        """A copy of what another registry's shelf holds, with the signature beside it, under its digest."""
        digest = read_manifest(Location(str(folder))).digest
        Standing(self.store, self.name, digest, ring).keep(folder, _nobody)

    @property
    def place(self) -> str:
        """As a person finds it."""
        return self.store.bundle_place(self.name, "").rstrip("/")

    def _opened(self, digest: str) -> Path:
        """What is there, whole or not; from no copy on this machine that is damaged."""
        place = self.store.open_bundle(self.name, digest)
        try:
            open_artifact(Location(str(place)))
        except IntegrityError:
            if self.store.drop_copy(place):
                return self.store.open_bundle(self.name, digest)
        return place

    def _copied(self, digest: str, scratch: Path) -> Path | None:
        """What stands there of this content, without its signature; None where nothing whole does."""
        there, copy = self.store.open_bundle(self.name, digest_hex(digest), scratch), scratch / "copy"
        try:
            copy_artifact(Location(str(there)), Location(str(copy)))
        except IntegrityError:
            return None
        return copy if read_manifest(Location(str(copy))).digest == digest else None


def _is_about(folder: Path, bundle: str) -> bool:
    try:
        return read_manifest(Location(str(folder))).parents.get("bundle") == bundle
    except IntegrityError:
        return True


def _counts(standing: Standing) -> bool:
    try:
        standing.verified()
    except (IntegrityError, RefusedError):
        return False
    return True


def _nobody() -> bool:
    """Nobody relies on one manifest of what was decided: who signed it and when stands beside its content."""
    return False


def shelf_of(registry: Registry, name: str, kind: ShelfKind) -> Shelf:
    return Shelf(registry.store, f"_{kind}.{name}")
