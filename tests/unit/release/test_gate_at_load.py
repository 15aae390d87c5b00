"""Whoever loads a version believes no record more than the policy in it allows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from gates import promoted, team_policy, wanted
from releases import Evidence

from raytrain.errors import IntegrityError, RefusedError
from raytrain.release.gate.enforce import require_released
from raytrain.release.gate.policy import Policy
from raytrain.release.gate.promote import Desk, promote
from raytrain.release.gate.turn import follows_now
from raytrain.release.keys import KeyRing
from raytrain.release.registry.shelf import shelf_of
from raytrain.release.registry.versions import Version
from raytrain.release.signing import sign

pytestmark = pytest.mark.whole

V1 = Version(1, 0, 0)
Change = Callable[[dict[str, Any]], object]


def forged(desk: Desk, source: Path, signer: str, change: Change) -> None:
    """A record as somebody with a key of the ring may write it past the gate, and move the alias by it."""
    told = json.loads((source / "record.json").read_text())
    told["follows"] = asdict(follows_now(desk.registry.entries("sums"), "production"))
    change(told)

    def write(place: Path) -> None:
        for name in ("policy.yaml", "contract.yaml"):
            (place / name).write_bytes((source / name).read_bytes())
        (place / "record.json").write_text(json.dumps(told))

    shelf, key = shelf_of(desk.registry, "sums", "records"), desk.ring.signing_key(signer)
    record = shelf.put("promotion", write, key, desk.ring, parents={"bundle": str(told.get("bundle"))})
    before = desk.registry.state("sums").aliases.get("production")
    desk.registry.move("sums", "production", V1, expected=before, decision=record.digest, why="forged")


def overridden_by(role: str, key: str) -> Change:
    return lambda told: told.update(override={"role": role, "key": key, "who": "ada", "why": "x"})


def test_a_record_that_its_own_policy_does_not_allow_lets_nothing_in(
    desk: Desk, evidence: Evidence, reviewers: KeyRing
) -> None:
    policy = team_policy(promoted_by=["reviewer", "on-call"])
    evidence.write_safety(failed=True)
    held = promote(desk, wanted(evidence, policy), reviewers.signing_key("ada"))
    assert not held.moved and held.record is not None
    ids = {one.name: one.id for one in reviewers.known()}
    cases: list[tuple[str, Change, str]] = [
        ("ada", lambda told: told.update(released=True), "it says NO-GO"),
        ("ada", lambda told: told.update(released=True, verdict="ESCALATE"), "it says ESCALATE"),
        ("mallory", lambda told: told.update(released=True, verdict="GO"), "may not let anything into"),
        (
            "grace",
            lambda told: (overridden_by("on-call", ids["ada"])(told), told.update(released=True)),
            "signed by",
        ),
        (
            "grace",
            lambda told: (overridden_by("on-call", ids["grace"])(told), told.update(released=True)),
            "speak for on-call",
        ),
        (
            "grace",
            lambda told: (overridden_by("reviewer", ids["grace"])(told), told.update(released=True)),
            "let reviewer override",
        ),
    ]
    for signer, change, words in cases:
        forged(desk, held.record.path, signer, change)
        with pytest.raises(RefusedError) as caught:
            require_released(desk.registry, "sums@production", reviewers)
        assert words in str(caught.value), caught.value
    evidence.write_safety()
    assert promote(desk, wanted(evidence, policy), reviewers.signing_key("grace")).moved
    assert not require_released(desk.registry, "sums@production", reviewers).overridden


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told.clear(),
        lambda told: told.pop("rules"),
        lambda told: told.update(rules=[1]),
        lambda told: told.update(override={"who": "ada"}),
        lambda told: told.update(policy={"digest": "sha256:" + "0" * 64}),
        lambda told: told.update(target="live"),
    ],
)
def test_a_record_of_another_form_is_told_as_one(
    change: Change, desk: Desk, evidence: Evidence, ring: KeyRing
) -> None:
    done = promoted(desk, wanted(evidence))
    assert done.record is not None
    forged(desk, done.record.path, "release", change)
    with pytest.raises(IntegrityError, match="cannot be read as the record of a promotion"):
        require_released(desk.registry, "sums@production", ring)


def test_a_bundle_that_was_signed_anew_by_whom_the_policy_does_not_name(
    desk: Desk, evidence: Evidence, reviewers: KeyRing
) -> None:
    policy = team_policy(signed_by=["release"])
    promoted(desk, wanted(evidence, policy))
    bundle = desk.registry.verified("sums@1.0.0", reviewers).artifact.path
    sign(bundle, reviewers.signing_key("mallory"))
    with pytest.raises(RefusedError, match="takes release") as caught:
        require_released(desk.registry, "sums@production", reviewers)
    assert "signed by mallory" in caught.value.why
    sign(bundle, reviewers.signing_key("release"))
    require_released(desk.registry, "sums@production", reviewers)


def test_a_policy_may_name_who_promotes(desk: Desk, evidence: Evidence, reviewers: KeyRing) -> None:
    policy: Policy = team_policy(promoted_by=["on-call"])
    with pytest.raises(RefusedError, match="release may not let anything into production"):
        promoted(desk, wanted(evidence, policy))
    assert desk.registry.state("sums").aliases == {}
    assert promote(desk, wanted(evidence, policy), reviewers.signing_key("ada")).moved
