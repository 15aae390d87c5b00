"""A version through the gate: verify, gather, decide, write the record, move the alias. Each step leaves the old state
until the last, which is one entry of the journal."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from raytrain.errors import ConfigError, IntegrityError, RefusedError
from raytrain.release.gate.about import about_bundle, read_documents
from raytrain.release.gate.approvals import Statement, check_speaks_for, read_approvals
from raytrain.release.gate.enforce import require_released
from raytrain.release.gate.evidence import Shelves, collect, gather
from raytrain.release.gate.policy import Policy
from raytrain.release.gate.record import Judged, Override, record_of, write_record
from raytrain.release.gate.reports import time_of
from raytrain.release.gate.rules import Facts, decide
from raytrain.release.keys import KeyRing, SigningKey
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
    found = gather(collect(wanted.evidence, desk.ring), about, wanted.policy, target, desk.shelves)
    statement = Statement(about.bundle, about.subject, wanted.target, wanted.policy.digest, "", "", "")
    approvals, refused = read_approvals(
        shelf_of(desk.registry, name, "approvals").about(about.bundle),
        [one.path for one in found.approvals],
        desk.ring,
        statement,
    )
    made, text = time_of(signed.artifact)
    facts = Facts(
        name=name,
        version=str(released.version),
        target=wanted.target,
        bundle=about.bundle,
        subject=about.subject,
        signer_id=signed.key.id,
        signer_name=signed.key.name,
        bundle_made=made,
        bundle_made_text=text,
        now=desk.clock(),
        readings=(*read_documents(signed.artifact, about), *found.readings),
        strays=found.strays,
        approvals=approvals,
        refused_approvals=refused,
    )
    return Judged(wanted.policy, facts, decide(wanted.policy, facts))


def promote(desk: Desk, wanted: Wanted, key: SigningKey, *, override_as: str | None = None) -> Promotion:
    """Let the alias name the version if the gate says GO, or if the key's role may override it. The record is written
    and signed whatever was decided.

    Raises RefusedError where the alias was moved by somebody else meanwhile; what `judge` raises; for an override
    RefusedError where policy or key do not allow it, ConfigError where no reason is given.
    """
    name = wanted.reference.partition("@")[0]
    before = desk.registry.state(name).aliases.get(wanted.target)
    override = None if override_as is None else _override(wanted, key, override_as)
    judged = judge(desk, wanted)
    if override is not None and judged.outcome.verdict != "GO":
        judged = replace(judged, override=override)
    record = write_record(shelf_of(desk.registry, name, "records"), judged, key, desk.ring)
    version = Version.parse(judged.facts.version)
    moved = judged.released and (before != version or not _stands(desk, f"{name}@{wanted.target}"))
    if moved:
        desk.tell(f"moving {name}@{wanted.target} to {version}")
        why = _why(judged, wanted.why)
        desk.registry.move(name, wanted.target, version, expected=before, decision=record.digest, why=why)
    return Promotion(judged, before, record, moved)


def _stands(desk: Desk, reference: str) -> bool:
    """Whether the record by which an alias came where it is still counts: its key may have been revoked since."""
    try:
        require_released(desk.registry, reference, desk.ring)
    except (RefusedError, IntegrityError):
        return False
    return True


def _override(wanted: Wanted, key: SigningKey, role: str) -> Override:
    allowed = wanted.policy.target(wanted.target).override_by
    if role not in allowed:
        raise RefusedError(
            f"{role} may not override the gate to {wanted.target}",
            why=f"the policy {wanted.policy.section.policy} lets {', '.join(allowed) or 'nobody'} do so",
            fix="bring what the gate asks for, or change `override_by` in the policy",
        )
    check_speaks_for(wanted.policy, role, key)
    if not wanted.why.strip():
        raise ConfigError("an override needs a reason", why="none is given", fix="say --why TEXT")
    return Override(role, key.public.id, key.public.name, wanted.why.strip())


def _why(judged: Judged, why: str) -> str:
    """As it stands in the journal for good."""
    if judged.override is None:
        return why or f"GO by the policy {judged.policy.title}"
    one = judged.override
    return f"OVERRIDE of {judged.outcome.verdict} by {one.who} as {one.role}: {one.why}"
