"""A registry on an object store: S3 and what speaks its language, Google Cloud Storage, Azure.

    journals/NAME/00000001.json …      entries
    bundles/NAME/<digest>/…            a bundle, its manifest last
    bundles/NAME/<digest>.sig          its signature

An entry is created on the condition that there is none (`If-None-Match: *`), which the service itself decides.
pyarrow's file systems cannot ask for that, obstore can; it is the only client here: every fault is told in one form.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from raytrain.errors import IntegrityError
from raytrain.release.registry.bundle_copies import drop_copy, open_copy
from raytrain.release.registry.entry_copies import EntryCopies
from raytrain.release.registry.object_client import ObjectClient
from raytrain.release.registry.store import IsNeeded, Seal, checked, has_digest_form
from raytrain.release.signing import SIGNATURE_SUFFIX, signature_place
from raytrain.storage.artifact import open_artifact
from raytrain.storage.location import Location
from raytrain.storage.manifest import MANIFEST_NAME

_NUM_CONNECTIONS = 16


class ObjectStore:
    """One prefix of one bucket. Bundles are read through copies below RAYTRAIN_HOME."""

    def __init__(self, client: ObjectClient) -> None:
        self._client = client
        self._store = client.store
        self._copies = EntryCopies(client.place, client.endpoint)

    @property
    def place(self) -> str:
        return self._client.place

    def is_there(self) -> bool:
        with self._client.told("list"):
            found = self._store.list_with_delimiter()
        return bool(found["common_prefixes"] or found["objects"])

    def names(self) -> list[str]:
        folders = [one for kind in ("journals", "bundles") for one in self._listed(kind)[0]]
        return sorted({PurePosixPath(one).name for one in folders})

    def entries(self, name: str, *, fresh: bool = False) -> list[tuple[int, bytes]]:
        files = (PurePosixPath(one).name for one in self._listed(f"journals/{name}")[1])
        numbers = sorted(int(one[:-5]) for one in files if one[:-5].isdecimal() and one.endswith(".json"))
        known = [] if fresh else self._copies.read(name)
        if known and (
            numbers[: len(known)] != list(range(1, len(known) + 1))
            or self._entry(name, len(known)) != known[-1]
        ):
            known = []
        asked = [one for one in numbers if one > len(known)]
        with ThreadPoolExecutor(_NUM_CONNECTIONS) as pool:
            found = list(zip(asked, pool.map(lambda one: self._entry(name, one), asked), strict=True))
        entries = [*enumerate(known, 1), *((number, one) for number, one in found if one is not None)]
        if asked and numbers == list(range(1, len(entries) + 1)):
            self._copies.write(name, [content for _, content in entries])
        return entries

    def has_entry(self, name: str, number: int) -> bool:
        with self._client.told("read"):
            try:
                self._store.head(_entry_key(name, number))
            except FileNotFoundError:
                return False
        return True

    def create_entry(self, name: str, number: int, content: bytes) -> bool:
        with self._client.told(f"write to the journal of {name}", _fix_of_entry(name)):
            return self._create(_entry_key(name, number), content)

    def _create(self, key: str, content: bytes) -> bool:
        """What is not there yet; False where another content is there."""
        from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

        for is_last in (False, False, True):
            try:
                self._store.put(key, content, mode="create", use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                return self._get(key) == content
            except (BaseError, OSError):
                # No client tries by itself again what is conditional; here a second try meets at worst the first.
                if is_last:
                    raise
            else:
                return True
        raise AssertionError("the last try returns or raises")

    def entry_place(self, name: str, number: int) -> str:
        return f"{self._client.place}/{_entry_key(name, number)}"

    def bundles(self, name: str) -> list[str]:
        folders, files = self._listed(f"bundles/{name}")
        found = {PurePosixPath(one).name for one in [*folders, *files]}
        return sorted(filter(has_digest_form, {one.removesuffix(SIGNATURE_SUFFIX) for one in found}))

    def put_bundle(self, name: str, digest: str, bundle: Path) -> bool:
        key = self._bundle_key(name, digest)
        artifact = open_artifact(Location(str(bundle)), verify=False)
        for one in sorted(artifact.manifest.files):
            with self._client.told("write a bundle"):
                self._store.put(f"{key}/{one}", bundle / one)
        with self._client.told("write a manifest"):
            if not self._create(f"{key}/{MANIFEST_NAME}", (bundle / MANIFEST_NAME).read_bytes()):
                return False
        self.put_signature(name, digest, signature_place(bundle).read_bytes())
        return True

    def put_signature(self, name: str, digest: str, content: bytes) -> None:
        with self._client.told("write a signature"):
            self._store.put(f"{self._bundle_key(name, digest)}{SIGNATURE_SUFFIX}", content)

    def seal(self, name: str, digest: str) -> Seal:
        key = self._bundle_key(name, digest)
        return self._get(f"{key}/{MANIFEST_NAME}"), self._get(f"{key}{SIGNATURE_SUFFIX}")

    def open_bundle(self, name: str, digest: str, scratch: Path | None = None) -> Path:
        key = self._bundle_key(name, digest)
        source = f"{self.bundle_place(name, digest)} {self._client.endpoint}"
        return open_copy(
            source, digest, self.seal(name, digest), scratch, lambda folder: self._fetch(key, folder)
        )

    def drop_copy(self, folder: Path) -> bool:
        return drop_copy(folder)

    def bundle_place(self, name: str, digest: str) -> str:
        return f"{self._client.place}/bundles/{name}/{digest}"

    def delete_bundle(self, name: str, digest: str, is_needed: IsNeeded) -> bool:
        """Without its manifest it is nothing, whatever becomes of the rest."""
        key = self._bundle_key(name, digest)
        its_seal = f"{key}/{MANIFEST_NAME}", f"{key}{SIGNATURE_SUFFIX}"
        before, seal = self._written(key), self.seal(name, digest)
        self._delete(its_seal)
        was_needed = True
        try:
            was_needed = is_needed(seal)
        finally:
            if was_needed:
                self._put_back(its_seal, seal)
        if not was_needed:
            now = self._written(key).items() - {(its_seal[0], before.get(its_seal[0]))}
            self._delete(sorted(one for one, written in now if before.get(one) == written))
        return not was_needed

    def _written(self, key: str) -> dict[str, Any]:
        """Each file of a bundle, and when it was written."""
        with self._client.told("list"):
            found = [one for part in self._store.list(f"{key}/") for one in part]
        return {one["path"]: one["last_modified"] for one in found}

    def _delete(self, keys: Iterable[str]) -> None:
        with self._client.told("delete a bundle"):
            for one in keys:
                with suppress(FileNotFoundError):
                    self._store.delete(one)

    def _put_back(self, keys: tuple[str, str], seal: Seal) -> None:
        """Unless another manifest stands there by now."""
        with self._client.told("write a manifest"):
            for key, content in zip(keys, seal, strict=True):
                if content is None or not self._create(key, content):
                    return

    def age_s(self, name: str, digest: str) -> float:
        key = self._bundle_key(name, digest)
        with self._client.told("list"):
            found = [one for part in self._store.list(f"{key}/") for one in part]
            with suppress(FileNotFoundError):
                found.append(self._store.head(f"{key}{SIGNATURE_SUFFIX}"))
        newest = max((one["last_modified"].timestamp() for one in found), default=0.0)
        return max(0.0, time.time() - newest)

    def strays(self, name: str) -> dict[str, float]:  # noqa: ARG002
        return {}  # an object stands whole or not at all

    def delete_stray(self, name: str, place: str) -> None:
        """There is none."""

    def _fetch(self, key: str, folder: Path) -> None:
        with self._client.told("read a bundle"):
            inside = [one["path"] for part in self._store.list(f"{key}/") for one in part]
        for one in inside:
            name = PurePosixPath(one.removeprefix(f"{key}/"))
            if name.is_absolute() or ".." in name.parts:
                raise IntegrityError(
                    f"{self._client.place}/{key} names a file outside of it",
                    why=f"unsafe path: {name}",
                    fix="do not use this bundle; find out who wrote it",
                )
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("wb") as stream, self._client.told("read a bundle"):
                for part in self._store.get(one).stream():
                    stream.write(part)

    def _bundle_key(self, name: str, digest: str) -> str:
        return f"bundles/{name}/{checked(digest, self.place)}"

    def _entry(self, name: str, number: int) -> bytes | None:
        return self._get(_entry_key(name, number))

    def _get(self, key: str) -> bytes | None:
        with self._client.told("read"):
            try:
                return bytes(self._store.get(key).bytes())
            except FileNotFoundError:
                return None

    def _listed(self, prefix: str) -> tuple[list[str], list[str]]:
        """Folders and files directly below."""
        with self._client.told("list"):
            found = self._store.list_with_delimiter(f"{prefix}/")
        return list(found["common_prefixes"]), [one["path"] for one in found["objects"]]


def _entry_key(name: str, number: int) -> str:
    return f"journals/{name}/{number:08d}.json"


def _fix_of_entry(name: str) -> str:
    return (
        f"whether it was written may not be known: `raytrain registry log {name}` tells. If it is not there, run the "
        "same command again; what was there before is whole"
    )
