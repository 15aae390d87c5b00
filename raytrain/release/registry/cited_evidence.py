"""Reports that a promotion's records cite: they go with the version, and lie where the gate of the other side looks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from raytrain.errors import IntegrityError, PlatformError, RefusedError
from raytrain.release.keys import KeyRing
from raytrain.release.registry.state import State
from raytrain.release.registry.versions import Version
from raytrain.release.signing import signature_place, verify
from raytrain.storage.artifact import Artifact, copy_artifact, open_artifact
from raytrain.storage.home import raytrain_home
from raytrain.storage.location import Location, translated_errors, write_atomically
from raytrain.storage.manifest import MANIFEST_NAME, digest_hex, read_manifest

Find = Callable[[str], Location | None]
"""Where an artifact of this digest is said to lie; None where nobody knows."""


def arrived_folder(bundle: str) -> Path:
    """Where evidence that came along with a bundle lies on this machine, each below its digest."""
    return raytrain_home() / "evidence" / digest_hex(bundle)


def promoting_records(state: State, version: Version) -> list[str]:
    """Digests of the records by which aliases last came to this version, a rollback's among them."""
    moves = [one for one in state.moved.values() if one.details.get("version") == str(version)]
    return sorted({str(one.details["decision"]) for one in moves if one.details.get("decision")})


def cited_by(records: Iterable[Path]) -> set[str]:
    """Digests of the artifacts that these records rest on. Approvals go with the records themselves.

    Raises IntegrityError where a record is not as a gate writes it.
    """
    found: set[str] = set()
    for folder in records:
        try:
            told: Mapping[str, Any] = json.loads((folder / "record.json").read_bytes())
            parents = read_manifest(Location(str(folder))).parents
            found |= {digest for role, digest in parents.items() if role.startswith("evidence_")}
            found -= {str(one["digest"]) for one in told.get("approvals", ())}
            found |= {str(digest) for one in told.get("readings", ()) for digest, _ in one["rests_on"]}
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise IntegrityError(
                f"{folder} cannot be read as a record of the gate",
                why=f"{type(error).__name__}: {error}"[:300],
                fix="put back a copy of the registry that is whole; find out who wrote there",
            ) from error
    return found


def found_evidence(digests: Iterable[str], find: Find, ring: KeyRing) -> tuple[dict[str, Path], list[str]]:
    """Folder of each that is at hand, whole and, where it has a signature, signed by a key that counts; of the others
    the reason."""
    found: dict[str, Path] = {}
    missing: list[str] = []
    for digest in sorted(digests):
        place = find(digest)
        try:
            if place is None:
                why = "nobody here knows where it lies; name its folder with --evidence"
            elif (artifact := open_evidence(place, ring)).digest != digest:
                why = f"{place} holds {artifact.digest} by now"
            else:
                found[digest] = artifact.path
                continue
        except PlatformError as error:
            why = error.line
        missing.append(f"evidence/{digest_hex(digest)}: {why}")
    return found, missing


def open_evidence(place: Location, ring: KeyRing) -> Artifact:
    """Verified with all its files, and with the signature beside it where there is one."""
    if place.is_local and signature_place(place.path).is_file():
        return verify(place.path, ring).artifact
    return open_artifact(place)


def read_evidence(
    folder: Path, cited: set[str], ring: KeyRing, broken: Callable[[str], IntegrityError]
) -> tuple[list[Path], list[str]]:
    """What came along, and what of it is not taken, with the reason. Raises what `broken` gives where one is not what
    its name says."""
    found: list[Path] = []
    left: list[str] = []
    for one in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not one.is_dir():
            continue
        try:
            artifact = open_evidence(Location(str(one)), ring)
        except RefusedError as error:
            left.append(f"evidence/{one.name}: {error.why}".replace(f"{folder}/", ""))
            continue
        except IntegrityError as error:
            raise broken(error.line.replace(f"{folder}/", "evidence/")) from error
        if digest_hex(artifact.digest) != one.name:
            raise broken(f"evidence/{one.name} is {artifact.digest}")
        if artifact.digest in cited:
            found.append(one)
        else:
            left.append(f"evidence/{one.name}: no record that counts here cites it")
    return found, left


def keep_evidence(folders: Iterable[Path], bundle: str) -> None:
    """Each whole or not at all, with its signature. Of one that is there already the manifest and the signature, which
    belong together, are written anew; a signed one does not give way to one that is not."""
    for one in folders:
        place = arrived_folder(bundle) / one.name
        signature, beside = signature_place(one), signature_place(place)
        if beside.is_file() and not signature.is_file():
            continue
        copy_artifact(Location(str(one)), Location(str(place)))
        with translated_errors(Location(str(beside)), "write"):
            manifest = (one / MANIFEST_NAME).read_bytes()
            if (place / MANIFEST_NAME).read_bytes() != manifest:
                beside.unlink(missing_ok=True)  # it was over the other
                write_atomically(place / MANIFEST_NAME, manifest)
            if signature.is_file():
                write_atomically(beside, signature.read_bytes())
