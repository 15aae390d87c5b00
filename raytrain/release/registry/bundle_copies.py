"""Copies of bundles on this machine, for stores that are elsewhere. Whoever reads one verifies it.

A copy is of one source as one manifest and one signature seal it, and never changes: another seal is another copy. It
comes to stand by one rename, and one that is damaged is dropped whole, under a name that no other has: nobody loses a
copy that somebody else has put in its place meanwhile.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from raytrain.errors import IntegrityError
from raytrain.release.registry.store import Seal, checked
from raytrain.release.signing import signature_place
from raytrain.storage.home import raytrain_home
from raytrain.storage.location import Location, translated_errors
from raytrain.storage.manifest import MANIFEST_NAME, Manifest, unlisted

_LOCK = "lock"


def open_copy(
    source: str, digest: str, seal: Seal, scratch: Path | None, fetch: Callable[[Path], None]
) -> Path:
    """A bundle's folder as it is sealed: this machine's copy, or a new one in `scratch`. Of one without a manifest
    there is nothing but the signature.

    source: where it lies. fetch: writes everything that is there into an empty folder.
    """
    checked(digest, source)
    with translated_errors(scratch or _folder(), "write"):
        if scratch is not None:
            folder = scratch / digest
            if not folder.is_dir():
                _fill(folder, seal, fetch)
            return folder
        copies = _folder() / _key(source, seal)
        return _whole(copies, digest, seal) or _fetched(copies, digest, seal, fetch)


def drop_copy(folder: Path) -> bool:
    """Forget the copy that was opened there; False where that is none of this machine's."""
    if not folder.is_relative_to(_folder()):
        return False
    aside = folder.parent.with_name(f".dropped-{folder.parent.name}")
    with suppress(FileNotFoundError):  # somebody else dropped it
        folder.parent.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)
    return True


def _fetched(copies: Path, digest: str, seal: Seal, fetch: Callable[[Path], None]) -> Path:
    """By one of all who ask at the same time; the others wait, and have it then."""
    with _alone(copies):
        whole = _whole(copies, digest, seal)
        if whole is not None:
            return whole
        for left in (one for one in copies.iterdir() if one.is_dir()):  # damaged, or by who was killed
            shutil.rmtree(left, ignore_errors=True)
        staged = Path(tempfile.mkdtemp(prefix=".staging-", dir=copies))
        try:
            _fill(staged / digest, seal, fetch)
            copy = copies / uuid.uuid4().hex
            staged.rename(copy)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    return copy / digest


def _fill(folder: Path, seal: Seal, fetch: Callable[[Path], None]) -> None:
    """With what the seal was looked up with, whatever stands there by now."""
    manifest, signature = seal
    folder.mkdir(parents=True)
    if manifest is not None:
        fetch(folder)
        (folder / MANIFEST_NAME).write_bytes(manifest)
    if signature is not None:
        signature_place(folder).write_bytes(signature)


@contextmanager
def _alone(copies: Path) -> Iterator[None]:
    copies.mkdir(parents=True, exist_ok=True)
    lock = os.open(copies / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _whole(copies: Path, digest: str, seal: Seal) -> Path | None:
    with suppress(FileNotFoundError):
        for one in copies.iterdir():
            if not one.name.startswith(".") and _is_all(one / digest, seal):
                return one / digest
    return None


def _is_all(folder: Path, seal: Seal) -> bool:
    """Whether a copy has every file that its manifest lists; what is in them, whoever reads them verifies."""
    manifest, signature = seal
    if not folder.is_dir() or _content(signature_place(folder)) != signature:
        return False
    if _content(folder / MANIFEST_NAME) != manifest or manifest is None:
        return manifest is None
    try:
        told = Manifest.from_json(manifest, Location(str(folder)))
    except IntegrityError:
        return True  # so it stands there; nobody knows what else it should have
    listed = {folder / name: one.size_bytes for name, one in told.files.items()}
    is_whole = all(file.is_file() and file.stat().st_size == size for file, size in listed.items())
    return is_whole and next(unlisted(folder, told), None) is None


def _content(file: Path) -> bytes | None:
    with suppress(FileNotFoundError, NotADirectoryError):
        return file.read_bytes()
    return None


def _key(source: str, seal: Seal) -> str:
    parts = [source.encode(), *(b"" if one is None else hashlib.sha256(one).digest() for one in seal)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]


def _folder() -> Path:
    return raytrain_home() / "cache" / "registry" / "bundles"
