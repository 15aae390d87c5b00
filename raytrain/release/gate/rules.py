"""From what is known of a version to GO, NO-GO or ESCALATE. Pure: reads no file and no clock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from raytrain.evaluation.decision.quantity import counted
from raytrain.release.gate.policy import ApprovalRules, Policy, TargetSection, is_among
from raytrain.storage.manifest import short_digest

Status = Literal["passed", "failed", "pending"]
Word = Literal["GO", "NO-GO", "ESCALATE"]

_DAY_S = 86_400.0
_CLOCKS_APART_S = 3_600.0
"""Two machines' clocks may differ by so much."""

_MAKE = {
    "pipeline_check": "raytrain check pipeline RECIPE",
    "evaluation": "raytrain evaluate MODEL --suite SUITE, then raytrain compare BASELINE EVALUATION",
    "contamination": "raytrain contamination MODEL --suite SUITE",
    "safety": "raytrain safety probe MODEL",
    "drift": "raytrain check golden MODEL --baseline NAME",
    "export_check": "raytrain export writes it before the bundle is signed",
    "scan": "raytrain export writes it before the bundle is signed",
    "sbom": "raytrain export writes it before the bundle is signed",
    "provenance": "raytrain export writes it before the bundle is signed",
}
"""What brings a missing piece."""


@dataclass(frozen=True)
class Reading:
    """What one piece of evidence says, already held against its own limits."""

    thing: str
    """A report or a document, as policies name it."""
    digest: str
    """Of its artifact, or of the file in the bundle."""
    status: Status
    """pending = it cannot tell."""
    value: str
    limit: str
    why: str
    change: str
    """What would change it, where it did not pass."""
    made: float | None = None
    """When, in seconds since 1970, by its manifest; None where that does not say."""
    made_text: str = ""
    signed_by: str | None = None
    """Name of the key, where its signature counts."""
    suites: tuple[str, ...] = ()
    """Digests of the suites that it is about."""
    rests_on: tuple[tuple[str, str | None], ...] = ()
    """Digests of the other artifacts that it was decided by, and `signed_by` of each."""

    @property
    def unsigned(self) -> list[str]:
        """Digests of what of it, and of what it rests on, has no signature that counts."""
        return [digest for digest, by in ((self.digest, self.signed_by), *self.rests_on) if by is None]


@dataclass(frozen=True)
class Stray:
    """Evidence about something else."""

    place: str
    digest: str
    why: str


@dataclass(frozen=True)
class Approval:
    """A signed statement about this bundle, target and policy, by a key that counts."""

    role: str
    key_id: str
    key_name: str
    digest: str
    why: str = ""


@dataclass(frozen=True)
class Refused:
    """A statement that does not count."""

    what: str
    why: str


@dataclass(frozen=True)
class Facts:
    """All that a verdict rests on."""

    name: str
    version: str
    target: str
    bundle: str
    """Digest of the bundle."""
    subject: str
    """Digest of the trained artifact."""
    signer_id: str | None
    signer_name: str | None
    """None where no signature counts."""
    now: float
    readings: tuple[Reading, ...] = ()
    strays: tuple[Stray, ...] = ()
    approvals: tuple[Approval, ...] = ()
    refused_approvals: tuple[Refused, ...] = ()


@dataclass(frozen=True)
class Rule:
    """One thing that was asked."""

    name: str
    status: Status
    value: str
    limit: str
    why: str
    evidence: tuple[str, ...] = ()
    """Digests."""
    change: str = ""
    """What would change it, where it did not pass."""


@dataclass(frozen=True)
class Outcome:
    """What is decided, and why."""

    verdict: Word
    rules: tuple[Rule, ...] = field(default_factory=tuple)

    @property
    def held_by(self) -> tuple[Rule, ...]:
        """What stands in the way, what failed first."""
        return tuple(sorted((one for one in self.rules if one.status != "passed"), key=_failed_first))


def _failed_first(rule: Rule) -> bool:
    return rule.status != "failed"


def decide(policy: Policy, facts: Facts) -> Outcome:
    """NO-GO where a rule failed, ESCALATE where none did and some wait for a person, else GO.

    Raises ConfigError where the policy does not speak of the target.
    """
    target = policy.target(facts.target)
    rules = [_signature(target, facts), _same_subject(facts)]
    rules += [_required(one, facts) for one in target.documents]
    rules += [_required(one, facts) for one in target.reports]
    if "contamination" in target.reports and any(
        one.thing == "evaluation" and one.suites for one in facts.readings
    ):
        rules.append(_covered(facts))
    if target.max_age_days is not None and _reports(target, facts):
        rules.append(_fresh(target, facts))
    if target.signed_evidence:
        rules.append(_signed_evidence(target, facts))
    rules += [_approved(one, policy, facts) for one in policy.approvals_of(target)]
    return Outcome(_verdict(rules), tuple(rules))


def _verdict(rules: Iterable[Rule]) -> Word:
    statuses = {one.status for one in rules}
    return "NO-GO" if "failed" in statuses else "ESCALATE" if "pending" in statuses else "GO"


def _signature(target: TargetSection, facts: Facts) -> Rule:
    wanted = ", ".join(target.signed_by) or "any key that counts"
    if facts.signer_id is None or facts.signer_name is None:
        why, value = "no signature by a key of the ring that was not revoked", "none"
    elif target.signed_by and not is_among(target.signed_by, facts.signer_name, facts.signer_id):
        why, value = "this key may not sign for here", f"{facts.signer_name} ({facts.signer_id[:12]})"
    else:
        value = f"{facts.signer_name} ({facts.signer_id[:12]})"
        return Rule("signature", "passed", value, wanted, "it covers every file", (facts.bundle,))
    return Rule("signature", "failed", value, wanted, why, (facts.bundle,), f"a signature by {wanted}")


def _same_subject(facts: Facts) -> Rule:
    limit = f"all about {short_digest(facts.subject)}"
    if not facts.strays:
        every = f"{len(facts.readings)} of {len(facts.readings)}"
        return Rule("one subject", "passed", every, limit, "every piece names it", (facts.subject,))
    told = "; ".join(f"{one.place}: {one.why}" for one in facts.strays)
    digests = tuple(one.digest for one in facts.strays)
    number = f"{len(facts.strays)} about another"
    return Rule(
        "one subject", "failed", number, limit, told, digests, "leave these out, and make them for this one"
    )


def _required(thing: str, facts: Facts) -> Rule:
    """Whoever brings several of a kind cannot choose: all of them must have passed."""
    name = thing.replace("_", " ")
    found = [one for one in facts.readings if one.thing == thing]
    if not found:
        return Rule(name, "failed", "none", "at least 1", "there is none about this one", (), _MAKE[thing])
    digests = tuple(one.digest for one in found)
    worst = min(found, key=lambda one: ("failed", "pending", "passed").index(one.status))
    more = f" (the worst of {len(found)})" if len(found) > 1 else ""
    change = "" if worst.status == "passed" else worst.change
    return Rule(name, worst.status, worst.value, worst.limit, f"{worst.why}{more}", digests, change)


def _covered(facts: Facts) -> Rule:
    """Every suite that the evaluation was decided by was looked for among the rows."""
    name = "suites free of training rows"
    asked = {suite for one in facts.readings if one.thing == "evaluation" for suite in one.suites}
    looked = {suite for one in facts.readings if one.thing == "contamination" for suite in one.suites}
    missing = sorted(asked - looked)
    digests = tuple(one.digest for one in facts.readings if one.thing == "contamination")
    value, limit = f"{len(asked & looked)} of {len(asked)}", "all suites of the evaluation"
    if not missing:
        return Rule(name, "passed", value, limit, "each was held against the rows", digests)
    told = ", ".join(short_digest(one) for one in missing)
    return Rule(name, "failed", value, limit, f"not looked for: {told}", digests, _MAKE["contamination"])


def _reports(target: TargetSection, facts: Facts) -> list[Reading]:
    return [one for one in facts.readings if one.thing in target.reports]


_ANEW = (
    "make these anew, of new answers: `raytrain evaluate` and `raytrain check golden` ask again with --fresh"
)


def _fresh(target: TargetSection, facts: Facts) -> Rule:
    """By what manifests say; a signature is what keeps somebody from saying otherwise. What lies in the bundle has no
    age: made again it has the same digest, and a version's first copy stays."""
    assert target.max_age_days is not None, "asked only where there is a limit"
    limit = f"at most {target.max_age_days:g} days"
    outside = _reports(target, facts)
    made = [(one.thing.replace("_", " "), one.digest, one.made, one.made_text) for one in outside]
    stale = [
        (digest, f"{name} {'does not say when it was made' if at is None else f'is of {text}'}")
        for name, digest, at, text in made
        if at is None or not -_CLOCKS_APART_S <= facts.now - at <= target.max_age_days * _DAY_S
    ]
    unsigned = sum(bool(one.unsigned) for one in outside)
    trust = (
        f"; {counted(unsigned, 'report')} not signed throughout: the time is the word of whoever wrote it"
        if unsigned
        else ""
    )
    oldest = min((one for one in made if one[2] is not None), key=lambda one: one[2] or 0.0, default=made[0])
    value = f"oldest of {oldest[3] or 'no time'}"
    if not stale:
        return Rule(
            "fresh",
            "passed",
            value,
            limit,
            f"by the time in their manifests{trust}",
            tuple(o[1] for o in made),
        )
    told = "; ".join(text for _, text in stale)
    return Rule("fresh", "failed", value, limit, told, tuple(d for d, _ in stale), _ANEW)


def _signed_evidence(target: TargetSection, facts: Facts) -> Rule:
    """Reports, and what they were decided by: a decision is worth what its evaluations are."""
    outside = _reports(target, facts)
    digests = dict.fromkeys(d for one in outside for d in (one.digest, *(other for other, _ in one.rests_on)))
    unsigned = {digest: one.thing.replace("_", " ") for one in outside for digest in one.unsigned}
    value = f"{len(digests) - len(unsigned)} of {len(digests)}"
    if not unsigned:
        return Rule("signed evidence", "passed", value, "all", "by keys that count", tuple(digests))
    told = ", ".join(f"{short_digest(digest)} of {thing}" for digest, thing in unsigned.items())
    change = "raytrain sign each of them, and give those that lie elsewhere than on this disk with --evidence"
    return Rule("signed evidence", "failed", value, "all", f"not signed: {told}", tuple(unsigned), change)


def _approved(asked: ApprovalRules, policy: Policy, facts: Facts) -> Rule:
    """By different names: whoever rotates a key and signs with both has approved once."""
    keys = policy.keys_of(asked.role)
    found = {one.key_name: one for one in _of_role(facts.approvals, asked.role, keys)}
    value = (
        f"{len(found)} of {asked.needed}: {', '.join(sorted(one.key_name for one in found.values()))}".rstrip(
            ": "
        )
    )
    limit = f"{asked.needed} of {len(set(keys))}"
    refused = "".join(f"; does not count: {one.what}, {one.why}" for one in facts.refused_approvals)
    digests = tuple(one.digest for one in found.values())
    name = f"approval: {asked.role}"
    if len(found) >= asked.needed:
        return Rule(name, "passed", value, limit, f"signed{refused}", digests)
    left = [
        one for one in keys if not any(is_among([one], got.key_name, got.key_id) for got in found.values())
    ]
    change = (
        f"raytrain approve {facts.name}@{facts.version} --to {facts.target} --role {asked.role} --key KEY"
    )
    return Rule(name, "pending", value, limit, f"may sign: {', '.join(left)}{refused}", digests, change)


def _of_role(approvals: Sequence[Approval], role: str, keys: list[str]) -> Iterator[Approval]:
    return (one for one in approvals if one.role == role and is_among(keys, one.key_name, one.key_id))
