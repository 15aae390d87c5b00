"""Copies of bundles on this machine, for stores that are elsewhere. Whoever reads one verifies it.

A copy that does not hold all that its manifest lists is fetched again.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from raytrain.errors import IntegrityError
from raytrain.release.signing import signature_place
from raytrain.storage.home import raytrain_home
from raytrain.storage.location import Location, translated_errors, write_atomically
from raytrain.storage.manifest import read_manifest, unlisted


def open_copy(
    digest: str, signature: bytes | None, scratch: Path | None, fetch: Callable[[Path], None]
) -> Path:
    """A bundle's folder with this signature beside it: this machine's copy, or a new one in `scratch`.

    fetch: writes everything that is there into an empty folder.
    """
    folder = (scratch or _folder()) / digest
    with translated_errors(folder, "write"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        if scratch is None and not _is_all(folder):
            drop_copy(digest)  # it was fetched while somebody wrote it
        if not folder.is_dir():
            _fetch_whole(folder, fetch)
        if signature is None:
            signature_place(folder).unlink(missing_ok=True)
        else:
            write_atomically(signature_place(folder), signature)
    return folder


def drop_copy(digest: str) -> bool:
    """Forget this machine's copy; False where there is none."""
    folder = _folder() / digest
    if not folder.is_dir():
        return False
    aside = Path(tempfile.mkdtemp(prefix=".dropped-", dir=folder.parent))
    with suppress(FileNotFoundError):  # another process was as quick
        folder.rename(aside / digest)
    shutil.rmtree(aside, ignore_errors=True)
    return True


def _fetch_whole(folder: Path, fetch: Callable[[Path], None]) -> None:
    staged = Path(tempfile.mkdtemp(prefix=".staging-", dir=folder.parent))
    try:
        fetch(staged)
        try:
            staged.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was as quick
                raise
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _is_all(folder: Path) -> bool:
    """Whether a copy has a manifest and every file that it lists; what is in them, whoever reads them verifies."""
    try:
        manifest = read_manifest(Location(str(folder)))
    except IntegrityError:
        return False
    listed = {folder / name: one.size_bytes for name, one in manifest.files.items()}
    is_whole = all(file.is_file() and file.stat().st_size == size for file, size in listed.items())
    return is_whole and next(unlisted(folder, manifest), None) is None


def _folder() -> Path:
    return raytrain_home() / "cache" / "registry" / "bundles"
