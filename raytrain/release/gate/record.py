"""The record of a promotion, an artifact: for programs, for people, and what it was decided by. No clock is in it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from raytrain.release.gate.checklist import render_checklist
from raytrain.release.gate.policy import Policy
from raytrain.release.gate.rules import Facts, Outcome
from raytrain.release.gate.turn import Follows
from raytrain.release.keys import KeyRing, SigningKey
from raytrain.release.registry.shelf import Shelf
from raytrain.storage.artifact import Artifact
from raytrain.storage.manifest import short_digest

PROMOTION_KIND, ROLLBACK_KIND = "promotion", "rollback"
RECORD_FILE, CHECKLIST_FILE = "record.json", "checklist.md"
POLICY_FILE, CONTRACT_FILE = "policy.yaml", "contract.yaml"
FORMAT = 2


@dataclass(frozen=True)
class Override:
    """Somebody lets a version through that the gate holds."""

    role: str
    key: str
    """Id of the key."""
    who: str
    """Name of the key."""
    why: str


@dataclass(frozen=True)
class PolicyChange:
    """Somebody puts another policy in the place of the one that an alias was last moved under."""

    before: str
    """Digest of that policy."""
    title: str
    """Its name and version."""
    role: str
    """Of who says so, as that policy names it; empty where it knows none."""
    key: str
    """Id of the key."""
    who: str
    """Name of the key."""
    why: str

    def told(self) -> str:
        """On a line."""
        as_role = f" as {self.role}" if self.role else ""
        return f"from {self.title} ({short_digest(self.before)}) by {self.who}{as_role}: {self.why}"


@dataclass(frozen=True)
class Judged:
    """A version with what was decided on it."""

    policy: Policy
    facts: Facts
    outcome: Outcome
    override: Override | None = None
    policy_change: PolicyChange | None = None
    follows: Follows | None = None
    """After which move it was decided; None where nothing is to be moved by it."""
    evidence: tuple[Artifact, ...] = ()
    """What was given, where it lay. No record says that: it may lie elsewhere tomorrow."""

    @property
    def released(self) -> bool:
        """Whether the alias may name it."""
        return self.outcome.verdict == "GO" or self.override is not None


def record_of(judged: Judged) -> dict[str, Any]:
    """Everything decided, as JSON can hold it. The same facts give the same record."""
    facts, policy = judged.facts, judged.policy
    section, contract = policy.section, policy.contract
    return {
        "format": FORMAT,
        "name": facts.name,
        "version": facts.version,
        "target": facts.target,
        "bundle": facts.bundle,
        "subject": facts.subject,
        "follows": None if judged.follows is None else asdict(judged.follows),
        "policy": {"name": section.policy, "version": section.version, "digest": policy.digest},
        "contract": {"name": contract.contract, "version": contract.version, "digest": contract.digest},
        "verdict": judged.outcome.verdict,
        "released": judged.released,
        "override": None if judged.override is None else asdict(judged.override),
        "policy_change": None if judged.policy_change is None else asdict(judged.policy_change),
        "rules": [asdict(one) for one in judged.outcome.rules],
        "readings": [_reading(asdict(one)) for one in facts.readings],
        "strays": [asdict(one) for one in facts.strays],
        "approvals": [asdict(one) for one in facts.approvals],
        "refused_approvals": [asdict(one) for one in facts.refused_approvals],
    }


def _reading(told: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in told.items() if key != "made"}


def write_record(shelf: Shelf, judged: Judged, key: SigningKey, ring: KeyRing) -> Artifact:
    """Write and sign the record, under its digest."""
    facts = judged.facts
    outside = {one.digest for one in facts.readings if one.made is not None} | {
        one.digest for one in facts.approvals
    }
    parents = {"bundle": facts.bundle, "subject": facts.subject}
    parents |= {f"evidence_{i}": digest for i, digest in enumerate(sorted(outside), start=1)}

    def write(place: Path) -> None:
        content = json.dumps(record_of(judged), indent=1, sort_keys=True, ensure_ascii=True)
        (place / RECORD_FILE).write_text(content + "\n", encoding="utf-8")
        (place / CHECKLIST_FILE).write_text(checklist_of(judged), encoding="utf-8")
        for name, asked in (
            (POLICY_FILE, judged.policy.asked),
            (CONTRACT_FILE, judged.policy.contract.asked),
        ):
            text = yaml.safe_dump(asked, sort_keys=False, allow_unicode=True)
            (place / name).write_text(text, encoding="utf-8")

    return shelf.put(PROMOTION_KIND, write, key, ring, parents=parents)


def checklist_of(judged: Judged) -> str:
    """As Markdown, for a pull request."""
    policy, one, change = judged.policy, judged.override, judged.policy_change
    loud = {} if change is None else {"POLICY CHANGED": change.told()}
    loud |= {} if one is None else {"OVERRIDDEN": f"by {one.who} as {one.role}: {one.why}"}
    return render_checklist(
        judged.facts, judged.outcome, f"{policy.title} ({short_digest(policy.digest)})", loud
    )
