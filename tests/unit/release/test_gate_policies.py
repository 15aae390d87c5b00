"""The policy that an alias is under does not change unseen, nor by whom it does not let."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from gates import WEAK, promoted, team_policy, wanted
from releases import Evidence, Trained, release

from raytrain.errors import ConfigError, RefusedError
from raytrain.release.gate.enforce import require_released
from raytrain.release.gate.policy import Policy, default_policy
from raytrain.release.gate.promote import Desk, Insisted, Promotion, consider, promote
from raytrain.release.gate.record import checklist_of, record_of
from raytrain.release.gate.turn import follows_now
from raytrain.release.keys import KeyRing
from raytrain.release.registry.shelf import shelf_of
from raytrain.release.registry.versions import Version

pytestmark = pytest.mark.whole

V1 = Version(1, 0, 0)
CHANGE = Insisted(change_policy_as="on-call")


def by(desk: Desk, who: str, evidence: Evidence, policy: Policy, insisted: Insisted, why: str) -> Promotion:
    return promote(desk, wanted(evidence, policy, why=why), desk.ring.signing_key(who), insisted)


def test_a_policy_that_asks_for_less_is_taken_from_nobody_who_may_not(
    desk: Desk, evidence: Evidence, reviewers: KeyRing, tmp_path: Path
) -> None:
    assert promoted(desk, wanted(evidence, team_policy())).moved
    release(desk.registry, reviewers, tmp_path / "second", Trained(tokenizer="sha256:t"), "1.1.0")
    entries = desk.registry.entries("sums")
    worse = wanted(evidence, WEAK, reference="sums@1.1.0", evidence=(), why="quicker")
    for policy in (WEAK, default_policy()):
        with pytest.raises(RefusedError, match="is under another policy than") as caught:
            promoted(desk, replace(worse, policy=policy))
        assert "last moved under team 1" in caught.value.why
        assert "--change-policy --role on-call" in caught.value.fix
    for who, role, why, kind, words in (
        ("mallory", "on-call", "x", RefusedError, "mallory does not speak for on-call"),
        ("ada", "reviewer", "x", RefusedError, "reviewer may not put another policy"),
        ("ada", "", "x", RefusedError, "a key without a role may not"),
        ("ada", "on-call", " ", ConfigError, "another policy needs a reason"),
    ):
        insisted = Insisted(change_policy_as=role)
        with pytest.raises(kind, match=words):
            promote(desk, replace(worse, why=why), reviewers.signing_key(who), insisted)
    assert desk.registry.entries("sums") == entries
    done = promote(desk, worse, reviewers.signing_key("ada"), CHANGE)
    told = f"from team 1 ({team_policy().digest[7:19]}) by ada as on-call: quicker"
    assert done.moved and desk.registry.entries("sums")[-1].why == f"POLICY CHANGED {told}"
    assert "**POLICY CHANGED**" in checklist_of(done.judged)
    assert record_of(done.judged)["policy_change"]["before"] == team_policy().digest
    admitted = require_released(desk.registry, "sums@production", reviewers)
    assert admitted.policy == WEAK.digest
    assert consider(desk, worse, None).policy_change is None, "it is the alias's policy now"


def test_where_the_policy_knows_no_role_any_key_changes_it_and_says_why(
    desk: Desk, evidence: Evidence, reviewers: KeyRing
) -> None:
    assert promoted(desk, wanted(evidence)).moved
    with pytest.raises(RefusedError, match="under another policy") as caught:
        promoted(desk, wanted(evidence, team_policy()))
    assert "--role" not in caught.value.fix
    done = promoted(desk, wanted(evidence, team_policy(), why="we are a team"), Insisted(change_policy_as=""))
    assert done.moved, "the version stays, the policy is another"
    assert require_released(
        desk.registry, "sums@production", reviewers, policies={team_policy().digest}
    ).policy
    with pytest.raises(RefusedError, match="another policy"):
        promoted(desk, wanted(evidence))
    only_approvers = team_policy(override_by=[], approvals=[{"role": "reviewer"}])
    held = by(desk, "ada", evidence, only_approvers, CHANGE, "two look at it")
    assert held.judged.outcome.verdict == "ESCALATE" and not held.moved
    assert require_released(desk.registry, "sums@production", reviewers).policy == team_policy().digest


def test_a_policy_without_overriders_is_changed_by_its_other_roles(
    desk: Desk, evidence: Evidence, reviewers: KeyRing
) -> None:
    assert promoted(desk, wanted(evidence, team_policy(override_by=[]))).moved
    with pytest.raises(RefusedError, match="a key without a role may not"):
        by(desk, "mallory", evidence, WEAK, Insisted(change_policy_as=""), "x")
    assert by(desk, "grace", evidence, WEAK, Insisted(change_policy_as="reviewer"), "x").moved


def test_an_override_is_loud_for_as_long_as_nothing_better_is_shown(
    desk: Desk, evidence: Evidence, reviewers: KeyRing
) -> None:
    policy = team_policy()
    forced = wanted(evidence, policy, evidence=(), why="urgent")
    overriding = Insisted(override_as="on-call")
    assert promote(desk, forced, reviewers.signing_key("ada"), overriding).moved
    assert require_released(desk.registry, "sums@production", reviewers).overridden
    assert promoted(desk, wanted(evidence, policy)).moved, "GO by now"
    assert not require_released(desk.registry, "sums@production", reviewers).overridden
    assert not promote(desk, forced, reviewers.signing_key("ada"), overriding).moved, "it stands by a GO"
    assert not promoted(desk, wanted(evidence, policy)).moved


def test_a_record_that_hides_another_policy_is_not_loaded(
    desk: Desk, evidence: Evidence, reviewers: KeyRing
) -> None:
    """As somebody with a key of the ring may write it past the gate."""
    assert promoted(desk, wanted(evidence, team_policy())).moved
    done = by(desk, "ada", evidence, WEAK, CHANGE, "x")
    assert done.record is not None
    source = done.record.path

    def forge(signer: str, change: object) -> None:
        follows = asdict(follows_now(desk.registry.entries("sums"), "production"))
        told = {
            **json.loads((source / "record.json").read_text()),
            "policy_change": change,
            "follows": follows,
        }

        def write(place: Path) -> None:
            for name in ("policy.yaml", "contract.yaml"):
                (place / name).write_bytes((source / name).read_bytes())
            (place / "record.json").write_text(json.dumps(told))

        shelf = shelf_of(desk.registry, "sums", "records")
        key = reviewers.signing_key(signer)
        record = shelf.put("promotion", write, key, reviewers, parents={"bundle": told["bundle"]})
        desk.registry.move("sums", "production", V1, expected=V1, decision=record.digest, why="forged")

    good = json.loads((source / "record.json").read_text())["policy_change"]
    mallory = next(one.id for one in reviewers.known() if one.name == "mallory")
    for change, words in (
        (None, "its signer does not say so"),
        (good, "its signer does not say so"),
        ({**good, "key": mallory}, "mallory does not speak for on-call"),
    ):
        assert by(desk, "ada", evidence, team_policy(), Insisted(change_policy_as=""), "back").moved
        forge("mallory", change)
        with pytest.raises(RefusedError) as caught:
            require_released(desk.registry, "sums@production", reviewers)
        assert words in str(caught.value)
