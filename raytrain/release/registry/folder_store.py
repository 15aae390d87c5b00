"""A registry in a folder, on this machine or a file system that several share.

NAME/journal/00000001.json …    entries
NAME/bundles/<digest>/          a bundle
NAME/bundles/<digest>.sig       its signature
"""

from __future__ import annotations

import errno
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from raytrain.release.registry.store import IsNeeded, Seal, checked, has_digest_form
from raytrain.release.signing import SIGNATURE_SUFFIX, signature_place
from raytrain.storage.artifact import copy_artifact
from raytrain.storage.location import (
    Location,
    storage_error,
    sync_folder,
    translated_errors,
    write_atomically,
)
from raytrain.storage.manifest import MANIFEST_NAME

_STAGED = ".staged-"


class FolderStore:
    """Of several who write one number, the file system lets one have it: a link takes no other file's place."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def place(self) -> str:
        return str(self.folder)

    def is_there(self) -> bool:
        return self.folder.exists()

    def names(self) -> list[str]:
        with translated_errors(self.folder, "read"):
            return _listed(self.folder, folders=True)

    def entries(self, name: str, *, fresh: bool = False) -> list[tuple[int, bytes]]:  # noqa: ARG002
        # A registry may hold tens of thousands of names and entries: pathlib would cost more than the reading.
        folder = f"{self.folder}/{name}/journal"
        try:
            files = [one for one in _listed(folder) if one.endswith(".json") and one[:-5].isdecimal()]
            return [(int(one[:-5]), _content(f"{folder}/{one}")) for one in files]
        except OSError as error:
            raise storage_error(error, Path(folder), "read") from error

    def has_entry(self, name: str, number: int) -> bool:
        try:
            Path(self.entry_place(name, number)).stat()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise storage_error(error, self._journal(name), "read") from error
        return True

    def create_entry(self, name: str, number: int, content: bytes) -> bool:
        folder, place = self._journal(name), self.entry_place(name, number)
        is_ours = True
        with translated_errors(folder, "write"):
            folder.mkdir(parents=True, exist_ok=True)
            staged = folder / f"{_STAGED}{os.getpid()}-{uuid.uuid4().hex[:8]}"
            try:
                with staged.open("wb") as stream:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
                Path(place).hardlink_to(staged)
            except FileExistsError:
                # A network file system asks again where an answer was lost: what it meets then may be our own link.
                is_ours = _read_whole(place) == content
            finally:
                staged.unlink(missing_ok=True)
            if is_ours:
                sync_folder(folder)
        return is_ours

    def entry_place(self, name: str, number: int) -> str:
        return str(self._journal(name) / f"{number:08d}.json")

    def bundles(self, name: str) -> list[str]:
        with translated_errors(self._bundles(name), "read"):
            there = _listed(self._bundles(name))
        return sorted(filter(has_digest_form, {one.removesuffix(SIGNATURE_SUFFIX) for one in there}))

    def put_bundle(self, name: str, digest: str, bundle: Path) -> bool:
        place = self._bundle(name, digest)
        if place.exists():
            copy_artifact(Location(str(bundle)), Location(str(place)))  # what is whole stays
        else:
            self._put_first(bundle, place)
        if self.seal(name, digest)[0] != (bundle / MANIFEST_NAME).read_bytes():
            return False
        self.put_signature(name, digest, signature_place(bundle).read_bytes())
        return True

    def _put_first(self, bundle: Path, place: Path) -> None:
        """Of several who put the same digest, one: a folder takes no other's place that has anything in it."""
        staged = _beside(place)
        try:
            copy_artifact(Location(str(bundle)), Location(str(staged)))
            with translated_errors(place, "write"):
                with _unless_taken():
                    staged.rename(place)
                sync_folder(place.parent)
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def put_signature(self, name: str, digest: str, content: bytes) -> None:
        place = signature_place(self._bundle(name, digest))
        with translated_errors(place, "write"):
            write_atomically(place, content)

    def seal(self, name: str, digest: str) -> Seal:
        place = self._bundle(name, digest)
        with translated_errors(place, "read"):
            return _seal(place)

    def open_bundle(self, name: str, digest: str, scratch: Path | None = None) -> Path:  # noqa: ARG002
        return self._bundle(name, digest)

    def drop_copy(self, folder: Path) -> bool:  # noqa: ARG002
        return False

    def bundle_place(self, name: str, digest: str) -> str:
        return str(self._bundles(name) / digest)

    def delete_bundle(self, name: str, digest: str, is_needed: IsNeeded) -> bool:
        place = self._bundle(name, digest)
        aside = _beside(place)
        with translated_errors(place, "delete"):
            for there, away in ((signature_place(place), signature_place(aside)), (place, aside)):
                with suppress(FileNotFoundError):
                    there.rename(away)
            seal = _seal(aside)
        was_needed = True
        try:
            was_needed = is_needed(seal)
        finally:
            if was_needed:
                _put_back(place, aside)
        Location(str(signature_place(aside))).delete()
        Location(str(aside)).delete()
        return not was_needed

    def age_s(self, name: str, digest: str) -> float:
        place = self._bundle(name, digest)
        with translated_errors(place, "read"):
            return _age_s(place, signature_place(place))

    def strays(self, name: str) -> dict[str, float]:
        bundles, journal = self._bundles(name), self._journal(name)
        with translated_errors(bundles, "read"):
            found = [bundles / one for one in _listed(bundles) if one.startswith(".")]
            found += [journal / one for one in _listed(journal) if one.startswith(_STAGED)]
            return {str(one): _age_s(one) for one in found}

    def delete_stray(self, name: str, place: str) -> None:  # noqa: ARG002
        Location(place).delete()

    def _journal(self, name: str) -> Path:
        return self.folder / name / "journal"

    def _bundle(self, name: str, digest: str) -> Path:
        return self._bundles(name) / checked(digest, self.place)

    def _bundles(self, name: str) -> Path:
        return self.folder / name / "bundles"


def _listed(folder: Path | str, *, folders: bool = False) -> list[str]:
    try:
        with os.scandir(folder) as found:
            return sorted(one.name for one in found if not folders or one.is_dir())
    except FileNotFoundError:
        return []


def _beside(place: Path) -> Path:
    """For what is not there yet, or no more."""
    return place.with_name(f"{_STAGED}{place.name[:12]}-{os.getpid()}-{uuid.uuid4().hex[:8]}")


def _seal(place: Path) -> Seal:
    return _content_if_there(place / MANIFEST_NAME), _content_if_there(signature_place(place))


def _put_back(place: Path, aside: Path) -> None:
    """Unless somebody has put it there anew."""
    manifest = _seal(aside)[0]
    with translated_errors(place, "write"):
        with _unless_taken(), suppress(FileNotFoundError):
            aside.rename(place)
        if _seal(place)[0] == manifest:
            with suppress(FileNotFoundError, FileExistsError):
                signature_place(place).hardlink_to(signature_place(aside))
        sync_folder(place.parent)


@contextmanager
def _unless_taken() -> Iterator[None]:
    """Another's folder stands there already."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def _age_s(*places: Path) -> float:
    """Since the newest change of what is there. A copy's files keep the times of the original, but not of this."""
    files = [one for place in places for one in (place, *place.rglob("*"))]
    changed = []
    for one in files:
        with suppress(FileNotFoundError, NotADirectoryError):  # a writer is at it
            changed.append(one.lstat().st_ctime)
    return max(0.0, time.time() - max(changed, default=0.0))


def _content_if_there(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _content(path: str) -> bytes:
    """Empty, as no entry is, where a folder or a link to nothing has the name of one."""
    try:
        return _read_whole(path)
    except (IsADirectoryError, FileNotFoundError):
        return b""


def _read_whole(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        content = b""
        while part := os.read(descriptor, 1 << 14):
            content += part
        return content
    finally:
        os.close(descriptor)
