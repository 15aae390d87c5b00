"""The bundles of one name in a store: put there once, and verified where they lie."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from raytrain.errors import IntegrityError, PlatformError, RefusedError
from raytrain.release.keys import KeyRing
from raytrain.release.registry.store import Store
from raytrain.release.signing import Signed, signature_place, verify
from raytrain.storage.manifest import MANIFEST_NAME


@dataclass(frozen=True)
class Bundles:
    """Each under its digest, held against the keys of a ring."""

    store: Store
    name: str
    ring: KeyRing

    def put(self, digest: str, bundle: Path, *, is_named: bool) -> None:
        """Let a bundle be there whose signature counts. One that a version names is never exchanged."""
        short = short_name(digest)
        if short in self.store.bundles(self.name):
            try:
                self.check(digest)
                return
            except PlatformError as error:
                if not is_named:
                    self.store.delete_bundle(self.name, short)  # somebody was killed here
                else:
                    self._sign_anew(digest, bundle, error)
        if not is_named:
            self.store.put_bundle(self.name, short, bundle)
        self.check(digest)  # what is released is what lies there, whatever became of the other

    def check(self, digest: str) -> None:
        """Where it lies, not in a copy of this machine. Raises RefusedError or IntegrityError."""
        with tempfile.TemporaryDirectory(prefix="raytrain-") as scratch:
            self._held_against(digest, self._verified(digest, Path(scratch)))

    def verified(self, digest: str) -> Signed:
        """Where its signature counts and it is the bundle of this digest. Raises RefusedError or IntegrityError."""
        try:
            signed = self._verified(digest)
        except IntegrityError:
            if not self.store.drop_copy(short_name(digest)):
                raise
            signed = self._verified(digest)  # only the copy was damaged
        return self._held_against(digest, signed)

    def _verified(self, digest: str, scratch: Path | None = None) -> Signed:
        return verify(self.store.open_bundle(self.name, short_name(digest), scratch), self.ring)

    def _held_against(self, digest: str, signed: Signed) -> Signed:
        if signed.artifact.digest != digest:
            raise IntegrityError(
                f"{self.store.bundle_place(self.name, short_name(digest))} is not the bundle that was released",
                why=f"there: {signed.artifact.digest}, released: {digest}",
                fix="put the right one back; find out who wrote there",
            )
        return signed

    def _sign_anew(self, digest: str, bundle: Path, fault: PlatformError) -> None:
        """What is known to be good is signed again, after its key was revoked."""
        short = short_name(digest)
        with tempfile.TemporaryDirectory(prefix="raytrain-") as scratch:
            theirs = self.store.open_bundle(self.name, short, Path(scratch)) / MANIFEST_NAME
            is_same = theirs.is_file() and theirs.read_bytes() == (bundle / MANIFEST_NAME).read_bytes()
        if not is_same:
            raise RefusedError(
                f"the bundle {digest} is there already, and does not verify",
                why=f"{fault.what}: {fault.why}",
                fix=f"sign the copy that `raytrain registry export {self.name}@VERSION` makes, and add that",
            )
        self.store.put_signature(self.name, short, signature_place(bundle).read_bytes())


def short_name(digest: str) -> str:
    """As a store names a bundle."""
    return digest.removeprefix("sha256:")
