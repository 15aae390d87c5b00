"""How a signed artifact comes to stand under its digest in a store, whoever else puts or signs the same meanwhile.

The same digest may be built twice, on two days or machines: manifests, and so signatures, differ then. The manifest
that stands first stays, only a signature of that one is put beside it, and no signature is exchanged that may count for
others.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from raytrain.errors import IntegrityError, PlatformError, RefusedError
from raytrain.release.keys import KeyRing
from raytrain.release.registry.store import Seal, Store
from raytrain.release.signing import Signed, may_be_replaced, signature_place, verify
from raytrain.storage.manifest import MANIFEST_NAME, digest_hex

_PATIENCE_S = 1.0
"""How long somebody is waited for who has put a manifest and not yet its signature."""

_STEPS = ("sign", "put", "exchange", "exchange")
"""What is tried of what stands there and does not verify, one after the other."""


@dataclass(frozen=True)
class Standing:
    """One digest below one name of a store, as the keys of a ring have it."""

    store: Store
    name: str
    digest: str
    ring: KeyRing

    @property
    def place(self) -> str:
        """As a person finds it."""
        return self.store.bundle_place(self.name, self._short)

    @property
    def is_there(self) -> bool:
        """Anything of it."""
        return self._short in self.store.bundles(self.name)

    def seal(self) -> Seal:
        """Manifest and signature as they stand there."""
        return self.store.seal(self.name, self._short)

    def renewed(self) -> Seal:
        """The seal, its signature written once more: whoever deletes what nobody names spares what is young."""
        manifest, signature = self.seal()
        if signature is not None:
            self.store.put_signature(self.name, self._short, signature)
        return manifest, signature

    def verified(self, scratch: Path | None = None) -> Signed:
        """Raises RefusedError or IntegrityError where it does not stand there, signed by a key that counts.

        scratch: a folder, for who wants what lies there and no copy of this machine.
        """
        self.ring.known()  # one that is damaged says nothing of what stands here
        folder = self._opened(scratch)
        try:
            return self._verified(folder)
        except IntegrityError:
            if not self.store.drop_copy(folder):
                raise
            return self._verified(self._opened(None))  # where only the copy was damaged

    def check(self) -> None:
        """Where it lies, not in a copy of this machine."""
        self.ring.known()
        with tempfile.TemporaryDirectory(prefix="raytrain-") as scratch:
            self._verified(self._opened(Path(scratch)))

    def keep(self, bundle: Path, is_named: Callable[[], bool]) -> None:
        """Let it stand there and verify, if need be by this artifact, whose signature lies beside it.

        is_named: whether by now somebody relies on what stands there; that is never exchanged for another manifest.
        Raises RefusedError or IntegrityError where it can only be had by that, or by taking away a signature that may
        count for others.
        """
        ours = (bundle / MANIFEST_NAME).read_bytes()
        if not self.is_there:
            self.store.put_bundle(self.name, self._short, bundle)
        for step in _STEPS:
            fault = self._fault()
            if fault is None:
                return
            self._mend(step, bundle, ours, fault, is_named)
        self.check()

    def _mend(
        self, step: str, bundle: Path, ours: bytes, fault: PlatformError, is_named: Callable[[], bool]
    ) -> None:
        manifest, signature = self.seal()
        if manifest is None:
            self.store.put_bundle(self.name, self._short, bundle)
            return
        if not may_be_replaced(signature, self.ring):
            raise _refused(self, fault, "trust the key that signed it first: raytrain keys trust NAME FILE")
        if manifest == ours and step != "exchange":
            if step == "sign":
                self.store.put_signature(self.name, self._short, signature_place(bundle).read_bytes())
            else:
                self.store.put_bundle(self.name, self._short, bundle)
            return
        if (signature is None and self._is_signed_soon()) or self._fault() is None:
            return  # somebody was at it
        if is_named():
            if isinstance(fault, IntegrityError):
                raise _refused(self, fault, _mended_by(self.name))
            raise _refused(
                self, fault, "sign the copy that `raytrain registry export` makes of it, and add that"
            )
        if self.store.delete_bundle(self.name, self._short, lambda _: is_named()):  # who was at it was killed
            self.store.put_bundle(self.name, self._short, bundle)

    def _is_signed_soon(self) -> bool:
        end = time.monotonic() + _PATIENCE_S
        while time.monotonic() < end:
            time.sleep(_PATIENCE_S / 20)
            if self.seal()[1] is not None:
                return True
        return False

    def _fault(self) -> IntegrityError | RefusedError | None:
        try:
            self.check()
        except (IntegrityError, RefusedError) as fault:
            return fault
        return None

    def _opened(self, scratch: Path | None) -> Path:
        return self.store.open_bundle(self.name, self._short, scratch)

    def _verified(self, folder: Path) -> Signed:
        try:
            signed = verify(folder, self.ring)
        except IntegrityError as error:
            what, why = (one.replace(str(folder), self.place) for one in (error.what, error.why))
            raise IntegrityError(what, why=why, fix=_mended_by(self.name)) from error
        if signed.artifact.digest != self.digest:
            raise IntegrityError(
                f"{self.place} is not what was put there",
                why=f"there: {signed.artifact.digest}, named: {self.digest}",
                fix="put the right one back; find out who wrote there",
            )
        return signed

    @property
    def _short(self) -> str:
        return digest_hex(self.digest)


def _mended_by(name: str) -> str:
    return (
        f"`raytrain registry add {name} BUNDLE` with the very bundle that was registered, or a copy of it, puts anew"
        " what is damaged; a build of another day has another manifest"
    )


def _refused(standing: Standing, fault: PlatformError, fix: str) -> RefusedError:
    return RefusedError(f"{standing.place} is there already, and does not verify", why=fault.line, fix=fix)
