"""A registry in MLflow: journals and bundles as versions of registered models that no release can be called like.

    _journal.NAME       a version an entry: tags raytrain.entry, its number, and raytrain.content
    _bundles.NAME       a version a bundle: tags raytrain.bundle, its digest, and raytrain.signature; the artifacts of
                        its run are the files

A bundle is there from the moment a version claims its digest, which is after all files: a run without such a version is
what somebody left.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from raytrain.errors import StorageError
from raytrain.release.registry.bundle_copies import drop_copy, open_copy
from raytrain.release.registry.entry_copies import EntryCopies
from raytrain.release.registry.mlflow_claims import Claim, Claims
from raytrain.release.registry.mlflow_client import MlflowServer
from raytrain.release.registry.mlflow_files import MlflowFiles
from raytrain.release.registry.store import IsNeeded, Seal, checked, has_digest_form
from raytrain.release.signing import signature_place
from raytrain.storage.manifest import MANIFEST_NAME

ENTRY, CONTENT, BUNDLE, SIGNATURE = (f"raytrain.{one}" for one in ("entry", "content", "bundle", "signature"))
_JOURNAL, _BUNDLES = "_journal.", "_bundles."
_LONGEST_TAG = 16_000
"""Characters, of which MLflow takes 100,000, and a TEXT of MySQL 65,535 bytes."""


class MlflowStore:
    """One server. Journals and bundles are read through copies below RAYTRAIN_HOME."""

    def __init__(self, server: MlflowServer) -> None:
        self.server = server
        self._files = MlflowFiles(server)
        self._copies = EntryCopies(server.place, "")

    @property
    def place(self) -> str:
        return self.server.place

    def is_there(self) -> bool:
        return bool(self.names())

    def names(self) -> list[str]:
        found = set()
        for prefix in (_JOURNAL, _BUNDLES):
            page = None
            while True:
                with self.server.told("list"):
                    part = self.server.client.search_registered_models(
                        f"name LIKE '{prefix}%'", max_results=1000, order_by=["name ASC"], page_token=page
                    )
                found |= {one.name.removeprefix(prefix) for one in part if one.name.startswith(prefix)}
                page = part.token
                if not page:
                    break
        return sorted(found)

    def entries(self, name: str, *, fresh: bool = False) -> list[tuple[int, bytes]]:
        known = [] if fresh else self._copies.read(name)
        found = self._entries_from(name, len(known))
        if known and found.get(len(known)) != known[-1]:
            known, found = [], self._entries_from(name, 0)
        new = sorted(number for number in found if number > len(known))
        entries = [*enumerate(known, 1), *((number, found[number]) for number in new)]
        if new and new[-1] == len(entries):
            self._copies.write(name, [content for _, content in entries])
        return entries

    def _entries_from(self, name: str, first: int) -> dict[int, bytes]:
        """By their numbers. None was written before those with lower ones, so no version has a lower number than its
        entry."""
        found: dict[int, bytes] = {}
        journal = self._journal(name)
        for claim in journal.read(after=max(0, first - 1)):
            number = journal.what(claim)
            if number.isdecimal():
                found.setdefault(int(number), content_of(claim))
        return found

    def has_entry(self, name: str, number: int) -> bool:
        return self._journal(name).first(str(number)) is not None

    def create_entry(self, name: str, number: int, content: bytes) -> bool:
        source = f"raytrain:/{_JOURNAL}{name}/{number}"  # MLflow wants one, and takes no + in it
        claim = self._journal(name).make(str(number), _tags_of(content), source)
        return content_of(claim) == content

    def entry_place(self, name: str, number: int) -> str:
        return f"{self.place}/{_JOURNAL}{name}/{number}"

    def bundles(self, name: str) -> list[str]:
        bundles = self._bundles(name)
        claimed = {bundles.what(one) for one in bundles.read()}
        found = claimed | {one.digest for one in self._files.runs(name)}
        return sorted(filter(has_digest_form, found))

    def put_bundle(self, name: str, digest: str, bundle: Path) -> bool:
        self._files.check_names(bundle)
        ours = (bundle / MANIFEST_NAME).read_bytes()
        claim = self._standing(name, digest)
        if claim is not None and not self._files.is_there(claim.run_id, deleted_too=False):
            self._bundles(name).delete(claim.number)  # its run was deleted in MLflow
            claim = None
        if claim is None:
            claim = self._put_first(name, digest, bundle)
        elif self._files.manifest(claim.run_id) in (None, ours):
            self._files.upload(claim.run_id, bundle)
        if self._files.manifest(claim.run_id) != ours:
            return False
        self.put_signature(name, digest, signature_place(bundle).read_bytes())
        return True

    def _put_first(self, name: str, digest: str, bundle: Path) -> Claim:
        """All files, then the claim; returns the one that has the digest."""
        bundles = self._bundles(name)
        bundles.prepare()
        run_id, source = self._files.create(name, digest)
        self._files.upload(run_id, bundle)
        claim = bundles.make(digest, {}, source, run_id)
        if claim.run_id != run_id:
            with suppress(StorageError):  # what is left of ours is found later
                self._delete_run(name, run_id)
        elif not self._files.is_there(run_id, deleted_too=False):
            bundles.delete(claim.number)
            raise StorageError(
                f"{self.bundle_place(name, digest)} was deleted while it was written",
                why="somebody took its run for one that was left long ago",
                fix="run the same command again, and `raytrain registry gc` with a longer --grace-minutes",
            )
        return claim

    def put_signature(self, name: str, digest: str, content: bytes) -> None:
        """Nothing happens where the bundle is not there."""
        bundles = self._bundles(name)
        claim = self._standing(name, digest)
        if claim is not None:
            bundles.change(claim, f"{name} {digest}, signed", SIGNATURE, content.decode())

    def seal(self, name: str, digest: str) -> Seal:
        return self._seal(self._standing(name, digest))

    def open_bundle(self, name: str, digest: str, scratch: Path | None = None) -> Path:
        claim = self._standing(name, digest)

        def fetch(folder: Path) -> None:
            assert claim is not None, "it has a manifest"
            self._files.download(claim.run_id, folder)

        return open_copy(self.bundle_place(name, digest), digest, self._seal(claim), scratch, fetch)

    def drop_copy(self, folder: Path) -> bool:
        return drop_copy(folder)

    def bundle_place(self, name: str, digest: str) -> str:
        return f"{self.place}/{_BUNDLES}{name}/{digest}"

    def delete_bundle(self, name: str, digest: str, is_needed: IsNeeded) -> bool:
        bundles = self._bundles(name)
        claims = list(bundles.read(checked(digest, self.place)))
        seal, runs = self._seal(claims[0] if claims else None), self._files.runs(name, digest)
        for claim in reversed(claims):  # until the last is gone the same one stands
            bundles.delete(claim.number)
        was_needed = True
        try:
            was_needed = is_needed(seal)
        finally:
            if was_needed and claims and seal[0] is not None:
                tags = {} if seal[1] is None else {SIGNATURE: seal[1].decode()}
                run_id = claims[0].run_id
                bundles.make(digest, tags, self._files.source(run_id), run_id)
        for run in [] if was_needed else runs:
            self._delete_run(name, run.run_id)
        return not was_needed

    def age_s(self, name: str, digest: str) -> float:
        written = [one.changed_s for one in self._bundles(name).read(checked(digest, self.place))]
        written += [one.started_s for one in self._files.runs(name, digest)]
        return max(0.0, time.time() - max(written, default=0.0))

    def strays(self, name: str) -> dict[str, float]:
        """Runs of bundles that stand with the files of another run; where none stands yet `bundles` has them."""
        bundles = self._bundles(name)
        claims = list(bundles.read())
        claimed, used = {bundles.what(one) for one in claims}, {one.run_id for one in claims}
        now = time.time()
        return {
            f"{self.place}/runs/{one.run_id}": max(0.0, now - one.started_s)
            for one in self._files.runs(name)
            if one.digest in claimed and one.run_id not in used
        }

    def delete_stray(self, name: str, place: str) -> None:
        run_id = place.rpartition("/")[2]
        if self._files.is_there(run_id, deleted_too=False):
            self._delete_run(name, run_id)

    def _delete_run(self, name: str, run_id: str) -> None:
        """Its writer looks after the claim whether the run was deleted, and we after that whether it is claimed: of two
        at a time one at least sees the other."""
        self._files.mark_deleted(run_id, deleted=True)
        if next(self._bundles(name).read(run_id=run_id), None) is None:
            self._files.delete_files(run_id)
        else:
            self._files.mark_deleted(run_id, deleted=False)

    def _seal(self, claim: Claim | None) -> Seal:
        if claim is None:
            return None, None
        return self._files.manifest(claim.run_id), signature_of(claim)

    def _standing(self, name: str, digest: str) -> Claim | None:
        """The one that has this digest."""
        return self._bundles(name).first(checked(digest, self.place))

    def _journal(self, name: str) -> Claims:
        about = f"raytrain's journal of {name}, a version an entry; `raytrain registry log {name}` reads it."
        return Claims(self.server, f"{_JOURNAL}{name}", ENTRY, about)

    def _bundles(self, name: str) -> Claims:
        about = f"What raytrain keeps of {name}, a version a bundle; its run has the files."
        return Claims(self.server, f"{_BUNDLES}{name}", BUNDLE, about)


def _tags_of(content: bytes) -> dict[str, str]:
    text = content.decode()
    parts = [text[i : i + _LONGEST_TAG] for i in range(0, len(text), _LONGEST_TAG)]
    return {_part(i): one for i, one in enumerate(parts)}


def content_of(claim: Claim) -> bytes:
    """What was written under the number that it claims."""
    parts: list[str] = []
    while _part(len(parts)) in claim.tags:
        parts.append(claim.tags[_part(len(parts))])
    return "".join(parts).encode()


def _part(i: int) -> str:
    return CONTENT if i == 0 else f"{CONTENT}.{i + 1}"


def signature_of(claim: Claim) -> bytes | None:
    found = claim.tags.get(SIGNATURE)
    return None if found is None else found.encode()
