"""The gate once more, for whoever is about to load a version: is it signed, and was it let in here?"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from raytrain.errors import RefusedError
from raytrain.release.gate.about import About, about_bundle, read_documents
from raytrain.release.gate.record import PROMOTION_KIND, ROLLBACK_KIND
from raytrain.release.gate.recorded import (
    Recorded,
    check_bundle_signer,
    check_own_policy,
    kind_of_move,
    read_record,
    read_turn,
)
from raytrain.release.gate.succession import check_succession, last_promotion
from raytrain.release.gate.turn import Turn, turn_of, unlike
from raytrain.release.keys import KeyRing
from raytrain.release.registry.journal import Entry
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.shelf import shelf_of
from raytrain.release.registry.state import ALIASES, PREVIOUS, PRODUCTION
from raytrain.release.signing import Signed
from raytrain.storage.manifest import short_digest


@dataclass(frozen=True)
class Admitted:
    """A version that may be loaded."""

    signed: Signed
    about: About
    record: str
    """Digest of the record that let it in."""
    overridden: bool
    """Somebody let it through that the gate held."""
    policy: str
    """Digest of the policy under which it was let in."""


def require_released(
    registry: Registry,
    reference: str,
    ring: KeyRing,
    *,
    alias: str | None = None,
    policies: Collection[str] | None = None,
) -> Admitted:
    """The bundle of NAME@ALIAS or NAME@VERSION, where its signature counts, it is the bundle that was released, and a
    signed record let it become that alias by the very move for which the journal names it. alias: of NAME@VERSION; None
    = any. Where the alias came back to it by a rollback, that record is asked for as well.

    policies: digests of those that count; None = any. What the record says of documents in the bundle is looked at
    again, and so are both signers, by the record's own policy. Raises RefusedError or IntegrityError that says which of
    this does not hold, or that it was withdrawn.
    """
    name, _, wanted = reference.partition("@")
    released = registry.find(reference).version
    registry.state(name).refuse_withdrawn(name, released)
    version = str(released)
    signed = registry.verified(f"{name}@{version}", ring)
    about = about_bundle(signed.artifact)
    if wanted in ALIASES:
        alias = PRODUCTION if wanted == PREVIOUS else wanted
    entries = registry.entries(name)
    moves = [one for one in entries if one.action == "move" and one.details["version"] == version]
    moves = [one for one in moves if alias is None or one.details["alias"] == alias]
    if not moves:
        raise _refused(reference, "the journal has no entry that lets it become one", "raytrain promote")
    if wanted in ALIASES and kind_of_move(registry, name, moves[-1]) == ROLLBACK_KIND:
        back = _record(registry, name, moves[-1], ring)
        _check_rollback(reference, back, about, turn_of(name, moves[-1], entries))
    let_in = next(
        (one for one in reversed(moves) if kind_of_move(registry, name, one) != ROLLBACK_KIND), None
    )
    if let_in is None:
        raise _refused(reference, "it came back by a rollback, and was never promoted", "raytrain promote")
    record = _record(registry, name, let_in, ring)
    before = last_promotion(registry, name, let_in.details["alias"], entries[: let_in.number - 1])
    admitted = _admitted(reference, (record, before), turn_of(name, let_in, entries), signed, about)
    if policies is not None and admitted.policy not in policies:
        why = f"it was let in by another policy than {', '.join(short_digest(one) for one in policies)}"
        raise _refused(reference, why, "promote it under one of these")
    return admitted


def _record(registry: Registry, name: str, move: Entry, ring: KeyRing) -> Signed:
    digest = move.details.get("decision")
    if digest is None:
        why = f"entry {move.number} of the journal, by {move.who}, names no decision"
        raise _refused(f"{name}@{move.details['alias']}", why, "raytrain promote; find out who moved it")
    return shelf_of(registry, name, "records").get(digest, ring)


def _check_rollback(reference: str, record: Signed, about: About, turn: Turn) -> None:
    if record.artifact.manifest.parents.get("bundle") != about.bundle:
        why = f"the rollback {record.artifact.digest} is about another bundle"
        raise _refused(reference, why, "roll back again")
    _check_turn(reference, record.artifact.digest, read_turn(record.artifact), turn)


def _check_turn(reference: str, record: str, told: Turn, taken: Turn) -> None:
    why = unlike(told, taken)
    if why:
        fix = f"raytrain promote {taken.name}@{taken.version} --to {taken.alias}"
        raise _refused(
            reference,
            f"the record {record}: {why}",
            fix if told.follows is None else f"{fix}; find out who moved it",
        )


def _admitted(
    reference: str, records: tuple[Signed, Recorded | None], turn: Turn, signed: Signed, about: About
) -> Admitted:
    """records: what let it in, and the promotion to the same alias before."""
    record, before = records
    if record.artifact.kind != PROMOTION_KIND:
        why = f"{record.artifact.digest} is a {record.artifact.kind}, no promotion"
        raise _refused(reference, why, "raytrain promote")
    told = read_record(record.artifact)
    held = {
        "bundle": (told.bundle, about.bundle),
        "subject": (told.subject, about.subject),
    }
    for thing, (theirs, ours) in held.items():
        if theirs != ours:
            why = f"the record {told.digest} is about another {thing}: {theirs}, not {ours}"
            raise _refused(reference, why, "raytrain promote; find out who moved it")
    _check_turn(reference, told.digest, told.turn, turn)
    try:
        check_own_policy(told, record.key)
        check_succession(before, told, record.key)
        check_bundle_signer(told, signed.key)
    except RefusedError as error:
        raise _refused(reference, error.line, error.fix) from error
    limits = told.policy.target(told.target).export_limits
    for one in read_documents(signed.artifact, about, limits):
        if one.thing.replace("_", " ") in told.passed and one.status != "passed":
            raise _refused(reference, f"{one.thing} of the bundle: {one.why}", "export and promote again")
    return Admitted(signed, about, told.digest, told.override is not None, told.policy.digest)


def _refused(reference: str, why: str, fix: str) -> RefusedError:
    return RefusedError(f"{reference} may not be loaded", why=why, fix=fix)
