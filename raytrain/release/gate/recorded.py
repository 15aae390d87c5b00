"""What a signed record of a promotion says, held against itself: by its own policy, may its signer have written it?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import yaml

from raytrain.errors import IntegrityError, RefusedError
from raytrain.evaluation.decision.contract import ContractSection
from raytrain.release.gate.authority import check_promotes, check_speaks_for
from raytrain.release.gate.policy import Policy, PolicySection, is_among
from raytrain.release.gate.record import CONTRACT_FILE, POLICY_FILE, RECORD_FILE, Override
from raytrain.release.keys import PublicKey
from raytrain.storage.artifact import Artifact


@dataclass(frozen=True)
class Recorded:
    """A record, read."""

    digest: str
    """Of the record."""
    bundle: str
    subject: str
    target: str
    policy: Policy
    verdict: str
    released: bool
    override: Override | None
    passed: frozenset[str]
    """Names of the rules that had passed."""


def read_record(artifact: Artifact) -> Recorded:
    """Raises IntegrityError where it is not as a gate writes it."""
    place = artifact.path / RECORD_FILE
    try:
        told = json.loads(place.read_text(encoding="utf-8"))
        policy = _policy(artifact.path)
        if policy.digest != told["policy"]["digest"]:
            raise ValueError(f"its policy is {told['policy']['digest']}, and beside it lies {policy.digest}")
        policy.target(str(told["target"]))
        override = told["override"]
        return Recorded(
            artifact.digest,
            str(told["bundle"]),
            str(told["subject"]),
            str(told["target"]),
            policy,
            str(told["verdict"]),
            told["released"] is True,
            None if override is None else Override(**override),
            frozenset(one["name"] for one in told["rules"] if one["status"] == "passed"),
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise IntegrityError(
            f"{place} cannot be read as the record of a promotion",
            why=f"{type(error).__name__}: {error}"[:300],
            fix="promote again; find out who wrote there",
        ) from error


def _policy(folder: Path) -> Policy:
    """As it was when the record was written."""
    asked = _yaml(folder / POLICY_FILE)
    section = {key: one for key, one in asked.items() if key != "contract"}
    contract = ContractSection.model_validate(_yaml(folder / CONTRACT_FILE))
    return Policy(PolicySection.model_validate(section), contract)


def _yaml(place: Path) -> dict[str, object]:
    found = yaml.safe_load(place.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise TypeError(f"{place.name} holds no mapping")
    return found


def check_own_policy(recorded: Recorded, signer: PublicKey) -> None:
    """Raises RefusedError where its own policy does not let its signer let in what it lets in."""
    target = recorded.policy.target(recorded.target)
    check_promotes(recorded.policy, recorded.target, signer)
    override = recorded.override
    if not recorded.released or (recorded.verdict != "GO" and override is None):
        raise _refused(recorded, f"it says {recorded.verdict}")
    if override is None:
        return
    if override.key != signer.id:
        raise _refused(
            recorded, f"it was overridden by the key {override.key[:12]}, and signed by {signer.short_id}"
        )
    if override.role not in target.override_by:
        raise _refused(recorded, f"its policy does not let {override.role} override")
    check_speaks_for(recorded.policy, override.role, signer)


def check_bundle_signer(recorded: Recorded, signer: PublicKey) -> None:
    """The bundle may have been signed anew since. Raises RefusedError where the policy would not have let that key
    sign it; what was overridden when it was let in is not asked again."""
    allowed = recorded.policy.target(recorded.target).signed_by
    if allowed and "signature" in recorded.passed and not is_among(allowed, signer.name, signer.id):
        raise RefusedError(
            f"the bundle is signed by {signer.name} ({signer.short_id}) by now",
            why=f"its policy {recorded.policy.title} takes {', '.join(allowed)}",
            fix="let one of these sign it again; find out who wrote there",
        )


def _refused(recorded: Recorded, why: str) -> RefusedError:
    return RefusedError(
        f"the record {recorded.digest} lets nothing in", why=why, fix="promote again; find out who moved it"
    )
