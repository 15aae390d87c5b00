"""A version in one file: from one registry to another, over whatever lies between.

version.json     what is moved, from where
journal.jsonl    the whole journal of its name, so that its chain can be followed
key.pem          who signed; nobody trusts it for being here
bundle/…         the bundle
bundle.sig       its signature
proof/records/<digest>/…, proof/approvals/<digest>/…, each with its .sig: what was decided and approved about it
evidence/<digest>/…, with its .sig where it has one: the reports that these records cite
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raytrain.errors import IntegrityError, RefusedError
from raytrain.release.bundle.description import ingredients_of
from raytrain.release.keys import KeyRing
from raytrain.release.registry.cited_evidence import (
    Find,
    cited_by,
    found_evidence,
    keep_evidence,
    promoting_records,
    read_evidence,
)
from raytrain.release.registry.evidence import recorded_evaluations, recorded_metrics, subject_of
from raytrain.release.registry.journal import Entry, chained
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.shelf import SHELVES, ShelfKind, shelf_of
from raytrain.release.registry.state import Released, is_tag, state_of
from raytrain.release.registry.transfer_file import (
    BUNDLE,
    EVIDENCE,
    JOURNAL,
    KEY,
    PROOF,
    VERSION,
    add_signed,
    broken,
    member_of,
    unpack,
)
from raytrain.release.registry.versions import Version
from raytrain.release.signing import Signed, verify
from raytrain.storage.artifact import Artifact
from raytrain.storage.location import sync_folder, translated_errors
from raytrain.storage.manifest import digest_hex

_FORMAT = 1


@dataclass(frozen=True)
class Exported:
    """What was written."""

    signed: Signed
    left_out: list[str]
    """Records and approvals that do not verify here, with the reason: whoever imports them would refuse the file."""
    evidence: list[str]
    """Digests of the reports that went along."""
    evidence_missing: list[str]
    """Those that its records cite and that did not, with the reason."""


def export_version(
    registry: Registry, reference: str, file: Path, ring: KeyRing, find: Find = lambda _: None
) -> Exported:
    """Write a version, once it and what was decided about it are verified, to a file that stands whole or not at all.

    find: where evidence lies that the records of its promotions cite.
    Raises NotRegisteredError, RefusedError or IntegrityError where there is nothing to move, StorageError where the
    file cannot be written.
    """
    name = reference.partition("@")[0]
    released = registry.find(reference)
    state = registry.state(name)
    state.refuse_withdrawn(name, released.version)
    signed = registry.verified(reference, ring)
    contents = registry.journal(name).contents()
    told = {"format": _FORMAT, "name": name, "version": str(released.version), "digest": released.digest}
    documents = {
        VERSION: json.dumps({**told, "registry": registry.place}, indent=1, sort_keys=True).encode() + b"\n",
        JOURNAL: b"".join(contents),
        KEY: signed.key.pem.encode(),
    }
    proof, left_out = _proof_of(registry, name, released.digest, ring)
    records = [f"{PROOF}/records/{digest_hex(one)}" for one in promoting_records(state, released.version)]
    cited = cited_by(proof[one] for one in records if one in proof)
    evidence, missing = found_evidence(cited, find, ring)
    folders = {BUNDLE: signed.artifact.path, **proof}
    folders |= {f"{EVIDENCE}/{digest_hex(digest)}": place for digest, place in evidence.items()}
    staged = file.with_name(f".{file.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    with translated_errors(file, "write"):
        try:
            with staged.open("wb") as stream:
                with tarfile.open(fileobj=stream, mode="w") as tar:
                    for one, content in documents.items():
                        tar.addfile(member_of(one, len(content)), io.BytesIO(content))
                    for one, folder in folders.items():
                        add_signed(tar, one, folder)
                stream.flush()
                os.fsync(stream.fileno())
            staged.replace(file)
            sync_folder(file.parent)
        finally:
            staged.unlink(missing_ok=True)
    return Exported(signed, left_out, list(evidence), missing)


def _proof_of(registry: Registry, name: str, digest: str, ring: KeyRing) -> tuple[dict[str, Path], list[str]]:
    """What verifies here; and what does not, with the reason."""
    found: dict[str, Path] = {}
    left: list[str] = []
    for kind in SHELVES:
        shelf = shelf_of(registry, name, kind)
        for folder in shelf.about(digest):
            try:
                shelf.get(f"sha256:{folder.name}", ring)
            except (RefusedError, IntegrityError) as error:
                left.append(f"{kind}/{folder.name}: {error.line}")
            else:
                found[f"{PROOF}/{kind}/{folder.name}"] = folder
    return found, left


def import_version(registry: Registry, file: Path, ring: KeyRing, *, why: str) -> tuple[str, Released]:
    """Release what a file holds under the name and version that it had; aliases stay where they are.

    Raises ConfigError where nothing is there, DataError where it is no such file, IntegrityError or RefusedError where
    its journal, its digest or its signature does not hold, or the version is taken; the registry is then as it was.
    """
    with tempfile.TemporaryDirectory(prefix="raytrain-import-") as scratch:
        folder = Path(scratch)
        unpack(file, folder)
        told, entries = _read(file, folder)
        released = _released(file, told, entries)
        with _key_told(file, folder):
            signed = verify(folder / BUNDLE, ring)
            made_from = released.made_from | ingredients_of(signed.artifact)
        if signed.artifact.digest != released.digest:
            raise broken(
                file, f"its bundle is {signed.artifact.digest}, its journal released {released.digest}"
            )
        name = str(told["name"])
        proof, left = _read_proof(file, folder, released.digest, ring)
        cited = cited_by(one for kind, one in proof if kind == "records")
        evidence, left_evidence = read_evidence(
            folder / EVIDENCE, cited, ring, lambda why: broken(file, why.replace(f"{folder}/", ""))
        )
        details = _carried(file, released, signed.artifact, entries)
        details["imported"] = {
            "registry": str(told.get("registry")),
            "num_entries": len(entries),
            "entries": [vars(one) for one in entries if one.details.get("version") == str(released.version)],
            "proof_left_out": left + left_evidence,
            "evidence": [f"sha256:{one.name}" for one in evidence],
        }
        bundle = folder / BUNDLE
        if released.version not in {one.version for one in registry.released(name)}:
            # Before the entry: whoever is killed here leaves what is about no version, and imports again.
            for kind, one in proof:
                shelf_of(registry, name, kind).keep(one, ring)
            keep_evidence(evidence, released.digest)
        made = registry.register(
            name, released.version, bundle, ring, made_from=made_from, why=why, details=details
        )
    return name, made


def _read_proof(
    file: Path, folder: Path, bundle: str, ring: KeyRing
) -> tuple[list[tuple[ShelfKind, Path]], list[str]]:
    """What came along of records and approvals, and what of it counts for nothing here, with the reason."""
    found: list[tuple[ShelfKind, Path]] = []
    left: list[str] = []
    for kind in SHELVES:
        shelf = folder / PROOF / kind
        for one in sorted(shelf.iterdir()) if shelf.is_dir() else []:
            if not one.is_dir():
                continue
            try:
                signed = verify(one, ring)
            except RefusedError as error:
                left.append(f"{kind}/{one.name}: {error.why}".replace(f"{folder}/", ""))
                continue
            except IntegrityError as error:
                raise broken(file, error.line.replace(f"{folder}/", "")) from error
            digest, about = signed.artifact.digest, signed.artifact.manifest.parents.get("bundle")
            if digest_hex(digest) != one.name or about != bundle:
                raise broken(file, f"{PROOF}/{kind}/{one.name} is {digest}, about {about}")
            found.append((kind, one))
    return found, left


def _carried(file: Path, released: Released, artifact: Artifact, entries: list[Entry]) -> dict[str, Any]:
    """What the entry says beside version and digest. Nobody has signed the journal: what the bundle says itself is
    taken from there, and of tags and evidence at least the form is checked."""
    tags = sorted(state_of(entries).tags[released.version])
    odd = [one for one in tags if not is_tag(one)]
    if odd:
        raise broken(file, f"its journal has a tag that is none: {odd[0]!r:.120}")
    try:
        evaluations, metrics = recorded_evaluations(released), recorded_metrics(released)
    except IntegrityError as error:
        raise broken(file, error.line) from error
    return {
        "subject": subject_of(artifact),
        "evaluations": evaluations,
        "metrics": metrics,
        "tags": tags,
    }


def _read(file: Path, folder: Path) -> tuple[dict[str, Any], list[Entry]]:
    try:
        told = json.loads((folder / VERSION).read_bytes())
        is_known = told["format"] == _FORMAT
        str(told["name"]), Version.parse(told["version"]), str(told["digest"])
        contents = (folder / JOURNAL).read_bytes().splitlines(keepends=True)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise broken(file, f"it does not say what it holds: {type(error).__name__}: {error}") from error
    if not is_known:
        raise broken(file, f"its format is {told['format']!r}, known is {_FORMAT}")
    return told, chained(contents, lambda number: f"{file}: entry {number}")


def _released(file: Path, told: dict[str, Any], entries: list[Entry]) -> Released:
    """As its journal has it."""
    released = state_of(entries).versions.get(Version.parse(told["version"]))
    if released is None or released.digest != told["digest"]:
        what = "nothing" if released is None else released.digest
        raise broken(file, f"it says {told['version']} is {told['digest']}, its journal says {what}")
    return released


@contextmanager
def _key_told(file: Path, folder: Path) -> Iterator[None]:
    """What is wrong is told of the file; where nobody here knows the key, how to look at the one that came along."""
    try:
        yield
    except RefusedError as error:
        key = folder / KEY
        if "nobody here knows" not in error.what or not key.is_file():
            raise
        raise RefusedError(
            f"{file} is signed by a key that nobody here knows",
            why=f"{error.why}; the key that came along proves nothing by itself",
            fix=f"tar -xOf {file} {KEY} > their.pem, compare its id with whoever signed it, then "
            "raytrain keys trust NAME their.pem",
        ) from error
    except IntegrityError as error:
        raise broken(file, error.line.replace(f"{folder}/", "")) from error
