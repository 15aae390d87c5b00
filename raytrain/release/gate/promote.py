"""A version through the gate: verify, gather, decide, write the record, move the alias. Each step leaves the old state
until the last, which is one entry of the journal."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from raytrain.errors import ConfigError, IntegrityError, RefusedError
from raytrain.release.gate.about import About, about_bundle, read_documents
from raytrain.release.gate.approvals import Statement, read_approvals
from raytrain.release.gate.authority import check_promotes, check_speaks_for
from raytrain.release.gate.enforce import require_released
from raytrain.release.gate.evidence import Finder, Shelves, gather, open_evidence
from raytrain.release.gate.policy import Policy
from raytrain.release.gate.record import Judged, Override, record_of, write_record
from raytrain.release.gate.rules import Facts, decide
from raytrain.release.gate.succession import changed_policy, last_promotion
from raytrain.release.gate.turn import follows_now, turn_of
from raytrain.release.keys import KeyRing, PublicKey, SigningKey
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.shelf import shelf_of
from raytrain.release.registry.versions import Version
from raytrain.storage.artifact import Artifact

Tell = Callable[[str], None]
"""Takes a line of progress for a person."""


@dataclass(frozen=True)
class Desk:
    """Where a gate works."""

    registry: Registry
    ring: KeyRing
    shelves: Shelves
    tell: Tell = lambda _: None
    clock: Callable[[], float] = time.time


@dataclass(frozen=True)
class Wanted:
    """What somebody asks of the gate."""

    reference: str
    """NAME@VERSION or NAME@ALIAS."""
    target: str
    policy: Policy
    evidence: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class Promotion:
    """How it went."""

    judged: Judged
    before: Version | None
    """What the alias named until then."""
    record: Artifact | None
    """None where it was only tried."""
    moved: bool

    def as_dict(self) -> dict[str, Any]:
        record = self.record
        return {
            **record_of(self.judged),
            "record": None if record is None else {"place": str(record.location), "digest": record.digest},
            "moved": self.moved,
            "before": None if self.before is None else str(self.before),
        }

    @property
    def refusal(self) -> RefusedError | None:
        """None where the alias may name it."""
        if self.judged.released:
            return None
        facts, outcome = self.judged.facts, self.judged.outcome
        held = outcome.held_by
        return RefusedError(
            f"{outcome.verdict}: {facts.name}@{facts.version} does not become {facts.target}",
            why="; ".join(
                f"{one.name} {one.status}: {one.value}, asked {one.limit}; {one.why}" for one in held
            ),
            fix="; ".join(dict.fromkeys(one.change for one in held)),
        )


def judge(desk: Desk, wanted: Wanted) -> Judged:
    """Verify the bundle, gather what is known of it, and decide. Writes nothing.

    Raises RefusedError where the version was withdrawn, RefusedError or IntegrityError where bundle or evidence are not
    as they were signed, ConfigError where the version, the target or a piece of evidence does not exist.
    """
    target = wanted.policy.target(wanted.target)
    name = wanted.reference.partition("@")[0]
    released = desk.registry.find(wanted.reference)
    desk.registry.state(name).refuse_withdrawn(name, released.version)
    desk.tell(f"verifying {name}@{released.version}")
    signed = desk.registry.verified(f"{name}@{released.version}", desk.ring)
    about = about_bundle(signed.artifact)
    desk.tell("reading the evidence")
    given = open_evidence(desk.shelves.places(wanted.evidence, about.bundle), desk.ring)
    found = gather(given, about, wanted.policy, target, Finder(desk.shelves, desk.ring))
    statement = Statement(name, about.bundle, about.subject, wanted.target, wanted.policy.digest, "", "", "")
    approvals, refused = read_approvals(
        shelf_of(desk.registry, name, "approvals").about(about.bundle),
        [one.path for one in found.approvals],
        desk.ring,
        statement,
    )
    facts = Facts(
        name=name,
        version=str(released.version),
        target=wanted.target,
        bundle=about.bundle,
        subject=about.subject,
        signer_id=signed.key.id,
        signer_name=signed.key.name,
        now=desk.clock(),
        readings=(*read_documents(signed.artifact, about, target.export_limits), *found.readings),
        strays=found.strays,
        approvals=approvals,
        refused_approvals=refused,
    )
    read = tuple(one.artifact for one in given)
    return Judged(wanted.policy, facts, decide(wanted.policy, facts), evidence=read)


@dataclass(frozen=True)
class Insisted:
    """What somebody takes upon himself, and the reason in `Wanted.why`. A role, or None where he does not."""

    override_as: str | None = None
    """Lets through what the gate holds; a role of the policy."""
    change_policy_as: str | None = None
    """Puts another policy in the place of the one that the alias was last moved under; a role of that one, or "" where
    it knows none."""


NOTHING = Insisted()


def consider(desk: Desk, wanted: Wanted, speaker: PublicKey | None, insisted: Insisted = NOTHING) -> Judged:
    """What `promote` would do if this key signed; None = one that nothing depends on. Writes nothing.

    Raises what `promote` raises.
    """
    if speaker is not None:
        check_promotes(wanted.policy, wanted.target, speaker)
    wanted.policy.target(wanted.target)
    name = wanted.reference.partition("@")[0]
    entries = desk.registry.entries(name)
    before = last_promotion(desk.registry, name, wanted.target, entries)
    said = (insisted.change_policy_as, wanted.why)
    change = changed_policy(before, wanted.policy, wanted.target, speaker, said)
    override = None if insisted.override_as is None else _override(wanted, speaker, insisted.override_as)
    follows = follows_now(entries, wanted.target)
    judged = replace(judge(desk, wanted), policy_change=change, follows=follows)
    is_held = judged.outcome.verdict != "GO"
    return replace(judged, override=override) if is_held else judged


def check_beforehand(desk: Desk, wanted: Wanted, about: About, speaker: PublicKey) -> None:
    """Raises what `promote` would for the policy, the key or the evidence: for whoever registers the version first, and
    for good. The name may be new. Writes nothing."""
    target = wanted.policy.target(wanted.target)
    check_promotes(wanted.policy, wanted.target, speaker)
    name = wanted.reference.partition("@")[0]
    before = last_promotion(desk.registry, name, wanted.target, desk.registry.journal(name).read())
    changed_policy(before, wanted.policy, wanted.target, speaker, (None, wanted.why))
    desk.tell("reading the evidence")
    finder = Finder(desk.shelves, desk.ring)
    gather(open_evidence(wanted.evidence, desk.ring), about, wanted.policy, target, finder)


def promote(desk: Desk, wanted: Wanted, key: SigningKey, insisted: Insisted = NOTHING) -> Promotion:
    """Let the alias name the version if the gate says GO, or if the key's role may override it. The record is written
    and signed whatever was decided.

    Raises RefusedError where the alias was moved by somebody else meanwhile, where the policy does not let the key
    promote, and where the alias is under another policy and nobody who may says so; what `judge` raises; for an
    override RefusedError where policy or key do not allow it, ConfigError where no reason is given.
    """
    name = wanted.reference.partition("@")[0]
    before = desk.registry.state(name).aliases.get(wanted.target)
    judged = consider(desk, wanted, key.public, insisted)
    version = Version.parse(judged.facts.version)
    stands = judged.released and before == version and _stands(desk, f"{name}@{wanted.target}", judged)
    if stands:
        judged = _as_it_stands(desk, judged)
    record = write_record(shelf_of(desk.registry, name, "records"), judged, key, desk.ring)
    desk.shelves.note(judged.evidence)
    moved = judged.released and not stands
    if moved:
        desk.tell(f"moving {name}@{wanted.target} to {version}")
        why, follows = _why(judged, wanted.why), None if judged.follows is None else judged.follows.entry
        desk.registry.move(
            name, wanted.target, version, expected=before, decision=record.digest, why=why, follows=follows
        )
    return Promotion(judged, before, record, moved)


def _as_it_stands(desk: Desk, judged: Judged) -> Judged:
    """Decided once more, for the move that was: the same record where the facts are the same, and for no other move."""
    facts = judged.facts
    entries = desk.registry.entries(facts.name)
    move = next(one for one in reversed(entries) if one.moves(facts.target))
    return replace(judged, follows=turn_of(facts.name, move, entries).follows)


def _stands(desk: Desk, reference: str, judged: Judged) -> bool:
    """Whether the record by which an alias came where it is still counts, under this policy, and says no less than
    this one: its key may have been revoked since, and what was overridden then may be GO now."""
    try:
        admitted = require_released(desk.registry, reference, desk.ring)
    except (RefusedError, IntegrityError):
        return False
    is_better = admitted.overridden and judged.override is None
    return admitted.policy == judged.policy.digest and not is_better


def _override(wanted: Wanted, key: PublicKey | None, role: str) -> Override:
    allowed = wanted.policy.target(wanted.target).override_by
    if role not in allowed:
        raise RefusedError(
            f"{role} may not override the gate to {wanted.target}",
            why=f"the policy {wanted.policy.section.policy} lets {', '.join(allowed) or 'nobody'} do so",
            fix="bring what the gate asks for, or change `override_by` in the policy",
        )
    if key is None:
        raise ConfigError("an override needs a key", why="nobody speaks here", fix="name whose it is")
    check_speaks_for(wanted.policy, role, key)
    if not wanted.why.strip():
        raise ConfigError("an override needs a reason", why="none is given", fix="say --why TEXT")
    return Override(role, key.id, key.name, wanted.why.strip())


def _why(judged: Judged, why: str) -> str:
    """As it stands in the journal for good."""
    change, one = judged.policy_change, judged.override
    told = [] if change is None else [f"POLICY CHANGED {change.told()}"]
    if one is not None:
        told.append(f"OVERRIDE of {judged.outcome.verdict} by {one.who} as {one.role}: {one.why}")
    return "; ".join(told) or why or f"GO by the policy {judged.policy.title}"
