"""What a signed record of a promotion says, held against itself: by its own policy, may its signer have written it?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from raytrain.errors import IntegrityError, RefusedError
from raytrain.evaluation.decision.contract import ContractSection
from raytrain.release.gate.authority import check_promotes, check_speaks_for
from raytrain.release.gate.policy import Policy, PolicySection, is_among
from raytrain.release.gate.record import (
    CONTRACT_FILE,
    POLICY_FILE,
    RECORD_FILE,
    ROLLBACK_KIND,
    Override,
    PolicyChange,
)
from raytrain.release.gate.turn import Follows, Turn
from raytrain.release.keys import PublicKey
from raytrain.release.registry.journal import Entry
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.shelf import shelf_of
from raytrain.release.registry.state import PRODUCTION
from raytrain.storage.artifact import Artifact
from raytrain.storage.location import Location, translated_errors
from raytrain.storage.manifest import digest_of, read_manifest


@dataclass(frozen=True)
class Recorded:
    """A record, read."""

    digest: str
    """Of the record."""
    turn: Turn
    """The move that it is for."""
    bundle: str
    subject: str
    target: str
    policy: Policy
    """As this raytrain reads it."""
    policy_digest: str
    """As it was written."""
    verdict: str
    released: bool
    override: Override | None
    policy_change: PolicyChange | None
    passed: frozenset[str]
    """Names of the rules that had passed."""


def read_record(artifact: Artifact) -> Recorded:
    """Raises IntegrityError where it is not as a gate writes it, StorageError where it cannot be read."""
    place = artifact.path / RECORD_FILE
    try:
        told = json.loads(_text(place))
        asked, contract = _yaml(artifact.path / POLICY_FILE), _yaml(artifact.path / CONTRACT_FILE)
        named = {"policy": told["policy"]["digest"], "contract": asked.pop("contract")}
        for thing, found in (("policy", {**asked, "contract": named["contract"]}), ("contract", contract)):
            if digest_of(found) != named[thing]:
                raise ValueError(f"its {thing} is {named[thing]}, and beside it lies {digest_of(found)}")
        policy = Policy(PolicySection.model_validate(asked), ContractSection.model_validate(contract))
        policy.target(str(told["target"]))
        override, change = told["override"], told["policy_change"]
        return Recorded(
            artifact.digest,
            _turn(told, artifact.kind),
            str(told["bundle"]),
            str(told["subject"]),
            str(told["target"]),
            policy,
            str(named["policy"]),
            str(told["verdict"]),
            told["released"] is True,
            None if override is None else Override(**override),
            None if change is None else PolicyChange(**change),
            frozenset(one["name"] for one in told["rules"] if one["status"] == "passed"),
        )
    except (*_NOT_AS_WRITTEN, yaml.YAMLError) as error:
        raise _unreadable(place, "promotion", error) from error


def read_turn(artifact: Artifact) -> Turn:
    """The move that a record is for, of a promotion or a rollback. Raises as `read_record`."""
    place = artifact.path / RECORD_FILE
    try:
        return _turn(json.loads(_text(place)), artifact.kind)
    except _NOT_AS_WRITTEN as error:
        raise _unreadable(place, artifact.kind, error) from error


_NOT_AS_WRITTEN = (ValueError, LookupError, TypeError, RecursionError)


def _unreadable(place: Path, kind: str, error: Exception) -> IntegrityError:
    return IntegrityError(
        f"{place} cannot be read as the record of a {kind}",
        why=f"{type(error).__name__}: {error}"[:300],
        fix="promote again; find out who wrote there",
    )


def _turn(told: dict[str, Any], kind: str) -> Turn:
    alias, version = (
        (PRODUCTION, told["after"]) if kind == ROLLBACK_KIND else (told["target"], told["version"])
    )
    follows = told.get("follows")
    after = None if follows is None else Follows(int(follows["entry"]), str(follows["hash"]))
    return Turn(str(told["name"]), str(alias), str(version), after)


def _yaml(place: Path) -> dict[str, Any]:
    found = yaml.safe_load(_text(place))
    if not isinstance(found, dict):
        raise TypeError(f"{place.name} holds no mapping")
    return found


def _text(place: Path) -> str:
    with translated_errors(place, "read"):
        if not place.is_file():
            raise ValueError(f"{place.name} is not there")
        return place.read_text(encoding="utf-8")


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


def kind_of_move(registry: Registry, name: str, move: Entry) -> str | None:
    """Of the record that the journal names, whoever signed it; None where there is none, or a damaged one.

    Raises StorageError where it cannot be read: then nobody knows what it says.
    """
    digest = move.details.get("decision")
    if digest is None:
        return None
    shelf = shelf_of(registry, name, "records")
    try:
        with translated_errors(Location(shelf.place), "read"):
            place = shelf.store.open_bundle(shelf.name, digest.removeprefix("sha256:"))
            manifest = read_manifest(Location(str(place)))
    except IntegrityError:
        return None
    return manifest.kind if manifest.digest == digest else None


def _refused(recorded: Recorded, why: str) -> RefusedError:
    return RefusedError(
        f"the record {recorded.digest} lets nothing in", why=why, fix="promote again; find out who moved it"
    )
