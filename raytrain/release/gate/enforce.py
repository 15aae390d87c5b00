"""The gate once more, for whoever is about to load a version: is it signed, and was it let in here?"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass

from raytrain.errors import RefusedError
from raytrain.release.gate.about import About, about_bundle, read_documents
from raytrain.release.gate.record import PROMOTION_KIND, read_record
from raytrain.release.keys import KeyRing
from raytrain.release.registry.journal import Entry
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.shelf import shelf_of
from raytrain.release.registry.state import ALIASES, PREVIOUS, PRODUCTION
from raytrain.release.signing import Signed
from raytrain.storage.artifact import Artifact

ROLLBACK_KIND = "rollback"


@dataclass(frozen=True)
class Admitted:
    """A version that may be loaded."""

    signed: Signed
    about: About
    record: str
    """Digest of the record that let it in."""
    overridden: bool
    """Somebody let it through that the gate held."""


def require_released(
    registry: Registry,
    reference: str,
    ring: KeyRing,
    *,
    alias: str | None = None,
    policies: Collection[str] | None = None,
) -> Admitted:
    """The bundle of NAME@ALIAS or NAME@VERSION, where its signature counts, it is the bundle that was released, and a
    signed record that the journal names let it become that alias. alias: of NAME@VERSION; None = any.

    policies: digests of those that count; None = any. What the record says of documents in the bundle is looked at
    again. Raises RefusedError or IntegrityError that says which of this does not hold, or that it was withdrawn.
    """
    name, _, wanted = reference.partition("@")
    released = registry.find(reference).version
    registry.state(name).refuse_withdrawn(name, released)
    version = str(released)
    signed = registry.verified(f"{name}@{version}", ring)
    about = about_bundle(signed.artifact)
    if wanted in ALIASES:
        alias = PRODUCTION if wanted == PREVIOUS else wanted
    moves = [
        one for one in registry.entries(name) if one.action == "move" and one.details["version"] == version
    ]
    moves = [one for one in moves if alias is None or one.details["alias"] == alias]
    if not moves:
        raise _refused(reference, "the journal has no entry that lets it become one", "raytrain promote")
    admitted: Admitted | None = None
    for move in reversed(moves):
        record = _record(registry, name, move, ring)
        if record.kind == ROLLBACK_KIND:
            _check_rollback(reference, record, about)
            continue
        admitted = _admitted(reference, record, move, signed, about)
        break
    if admitted is None:
        raise _refused(reference, "it came back by a rollback, and was never promoted", "raytrain promote")
    if policies is not None and _policy(registry, name, admitted, ring) not in policies:
        why = f"it was let in by another policy than {', '.join(one[7:19] for one in policies)}"
        raise _refused(reference, why, "promote it under one of these")
    return admitted


def _record(registry: Registry, name: str, move: Entry, ring: KeyRing) -> Artifact:
    digest = move.details.get("decision")
    if digest is None:
        why = f"entry {move.number} of the journal, by {move.who}, names no decision"
        raise _refused(f"{name}@{move.details['alias']}", why, "raytrain promote; find out who moved it")
    return shelf_of(registry, name, "records").get(digest, ring).artifact


def _check_rollback(reference: str, record: Artifact, about: About) -> None:
    if record.manifest.parents.get("bundle") != about.bundle:
        raise _refused(reference, f"the rollback {record.digest} is about another bundle", "roll back again")


def _admitted(reference: str, record: Artifact, move: Entry, signed: Signed, about: About) -> Admitted:
    if record.kind != PROMOTION_KIND:
        raise _refused(reference, f"{record.digest} is a {record.kind}, no promotion", "raytrain promote")
    told = read_record(record)
    held = {
        "bundle": (told["bundle"], about.bundle),
        "subject": (told["subject"], about.subject),
        "alias": (told["target"], move.details["alias"]),
    }
    for thing, (theirs, ours) in held.items():
        if theirs != ours:
            why = f"the record {record.digest} is about another {thing}: {theirs}, not {ours}"
            raise _refused(reference, why, "raytrain promote; find out who moved it")
    if told["released"] is not True:
        raise _refused(
            reference, f"the record {record.digest} says {told['verdict']}", "find out who moved it"
        )
    passed = {one["name"].replace(" ", "_") for one in told["rules"] if one["status"] == "passed"}
    for one in read_documents(signed.artifact, about):
        if one.thing in passed and one.status != "passed":
            raise _refused(reference, f"{one.thing} of the bundle: {one.why}", "export and promote again")
    return Admitted(signed, about, record.digest, told["override"] is not None)


def _policy(registry: Registry, name: str, admitted: Admitted, ring: KeyRing) -> str:
    record = shelf_of(registry, name, "records").get(admitted.record, ring).artifact
    return str(json.loads((record.path / "record.json").read_text(encoding="utf-8"))["policy"]["digest"])


def _refused(reference: str, why: str, fix: str) -> RefusedError:
    return RefusedError(f"{reference} may not be loaded", why=why, fix=fix)
