"""Who approves, who overrides, who is quicker; and that whoever came past the gate is not loaded."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gates import promoted, team_policy, wanted
from killed_at_a_change import run_until
from releases import Evidence, Trained, release

from raytrain.errors import ConfigError, IntegrityError, RefusedError
from raytrain.release.gate.about import about_bundle
from raytrain.release.gate.approvals import statement_of, write_approval
from raytrain.release.gate.audit import audit
from raytrain.release.gate.enforce import require_released
from raytrain.release.gate.policy import Policy, default_policy
from raytrain.release.gate.promote import Desk, Insisted, judge, promote
from raytrain.release.gate.record import checklist_of
from raytrain.release.keys import KeyRing
from raytrain.release.registry.shelf import shelf_of
from raytrain.release.registry.versions import Version
from raytrain.release.signing import signature_place

pytestmark = pytest.mark.whole

V1, V2 = Version(1, 0, 0), Version(1, 1, 0)
TRAINED = Trained()


def approve(
    desk: Desk, policy: Policy, who: str, *, target: str = "production", version: str = "1.0.0"
) -> Path:
    about = about_bundle(desk.registry.verified(f"sums@{version}", desk.ring).artifact)
    key = desk.ring.signing_key(who)
    statement = statement_of("sums", about, policy, target, "reviewer", key, "I looked")
    return write_approval(shelf_of(desk.registry, "sums", "approvals"), statement, key, desk.ring).path


def test_two_of_three_approve(desk: Desk, evidence: Evidence, reviewers: KeyRing) -> None:
    policy = team_policy(approvals=[{"role": "reviewer", "needed": 2}])
    asked = wanted(evidence, policy)
    first = promoted(desk, asked)
    assert first.judged.outcome.verdict == "ESCALATE" and not first.moved
    approve(desk, policy, "ada")
    approve(desk, policy, "ada")
    reviewers.rotate("ada")
    approve(desk, policy, "ada")
    assert judge(desk, asked).outcome.held_by[0].value == "1 of 2: ada"
    with pytest.raises(RefusedError, match="mallory does not speak for reviewer"):
        approve(desk, policy, "mallory")
    approve(desk, policy, "grace")
    assert judge(desk, asked).outcome.verdict == "GO"
    reviewers.revoke(next(one.id for one in reviewers.known() if one.name == "grace"), "lost")
    (rule,) = judge(desk, asked).outcome.held_by
    assert rule.status == "pending" and rule.value == "1 of 2: ada" and "lost" in rule.why
    approve(desk, policy, "katherine")
    done = promoted(desk, asked)
    assert done.moved and {one.key_name for one in done.judged.facts.approvals} == {"ada", "katherine"}


@pytest.mark.slow
def test_killed_at_any_change_an_approval_counts_whole_or_not_at_all(
    desk: Desk, evidence: Evidence, reviewers: KeyRing, tmp_path: Path
) -> None:
    policy = team_policy(approvals=[{"role": "reviewer", "needed": 1}])
    place, whole = Path(desk.registry.place), tmp_path / "whole"
    shutil.copytree(place, whole)
    verdicts: list[str] = []
    for point in itertools.count(1):
        shutil.rmtree(place)
        shutil.copytree(whole, place)
        code = run_until(point, place, lambda: approve(desk, policy, "ada"))
        verdicts.append(judge(desk, wanted(evidence, policy)).outcome.verdict)
        if code == 0:
            break
        assert code == -signal.SIGKILL, f"point {point}: exit {code}"
        desk.registry.delete(desk.registry.orphans(), grace_s=0)
        assert judge(desk, wanted(evidence, policy)).outcome.verdict == verdicts[-1], (
            f"point {point}: collected"
        )
        approve(desk, policy, "ada")
        assert judge(desk, wanted(evidence, policy)).outcome.verdict == "GO", f"point {point}: once more"
        assert desk.registry.orphans() == []
    num_before = verdicts.index("GO")
    assert (
        num_before >= 3
        and set(verdicts[:num_before]) == {"ESCALATE"}
        and set(verdicts[num_before:]) == {"GO"}
    )


def test_an_approval_counts_for_nothing_else(
    desk: Desk, evidence: Evidence, reviewers: KeyRing, tmp_path: Path
) -> None:
    policy = team_policy(approvals=[{"role": "reviewer"}])
    other = team_policy(approvals=[{"role": "reviewer"}], max_age_days=1)
    to_staging = policy.section.targets[0].model_copy(update={"to": "staging"})
    targets = [*policy.section.targets, to_staging]
    staged = Policy(policy.section.model_copy(update={"targets": targets}), policy.contract)
    release(desk.registry, desk.ring, tmp_path / "second", Trained(tokenizer="sha256:t"), "1.1.0")
    replays = {
        "another bundle": approve(desk, policy, "ada", version="1.1.0"),
        "another policy": approve(desk, other, "ada"),
        "another target": approve(desk, staged, "ada", target="staging"),
    }
    tampered = tmp_path / "tampered"
    shutil.copytree(replays["another policy"], tampered)
    shutil.copy(signature_place(replays["another policy"]), signature_place(tampered))
    for words, place in {**replays}.items():
        asked = wanted(evidence, policy, evidence=(*evidence.places, str(place)))
        (rule,) = judge(desk, asked).outcome.held_by
        assert rule.status == "pending" and words in rule.why, rule
    statement = tampered / "statement.json"
    statement.write_text(statement.read_text().replace(other.digest, policy.digest))
    with pytest.raises(IntegrityError, match=r"statement\.json"):
        judge(desk, wanted(evidence, policy, evidence=(*evidence.places, str(tampered))))


def test_an_override_needs_a_role_and_a_reason_and_is_loud(
    desk: Desk, evidence: Evidence, reviewers: KeyRing
) -> None:
    evidence.write_safety(failed=True)
    policy = team_policy()
    asked = wanted(evidence, policy)
    for who, role, why, kind, words in (
        ("mallory", "on-call", "x", RefusedError, "does not speak for on-call"),
        ("ada", "reviewer", "x", RefusedError, "reviewer may not override"),
        ("ada", "on-call", " ", ConfigError, "needs a reason"),
    ):
        with pytest.raises(kind, match=words):
            promote(desk, replace(asked, why=why), reviewers.signing_key(who), Insisted(override_as=role))
    assert desk.registry.state("sums").aliases == {}
    with pytest.raises(RefusedError, match="lets nobody do so"):
        promoted(desk, wanted(evidence, why="x"), Insisted(override_as="on-call"))
    done = promote(
        desk,
        replace(asked, why="the old one is down"),
        reviewers.signing_key("ada"),
        Insisted(override_as="on-call"),
    )
    assert done.moved and done.judged.outcome.verdict == "NO-GO" and done.refusal is None
    told = json.loads(done.record.path.joinpath("record.json").read_text()) if done.record else {}
    assert told["verdict"] == "NO-GO" and told["override"]["who"] == "ada"
    entry = desk.registry.state("sums").moved["production"]
    assert entry.why == "OVERRIDE of NO-GO by ada as on-call: the old one is down"
    assert "**OVERRIDDEN** by ada as on-call" in checklist_of(done.judged)
    assert require_released(desk.registry, "sums@production", reviewers).overridden


def test_serving_refuses_what_came_past_the_gate(
    desk: Desk, evidence: Evidence, ring: KeyRing, tmp_path: Path
) -> None:
    registry = desk.registry
    with pytest.raises(RefusedError, match="no entry that lets it"):
        require_released(registry, "sums@1.0.0", ring)
    registry.move("sums", "production", V1, expected=None, decision=None, why="by hand")
    with pytest.raises(RefusedError, match="names no decision"):
        require_released(registry, "sums@production", ring)
    registry.move("sums", "staging", V1, expected=None, decision="sha256:" + "0" * 64, why="by hand")
    with pytest.raises(IntegrityError, match="is not in"):
        require_released(registry, "sums@staging", ring)
    evidence.write_safety(failed=True)
    no_go = promoted(desk, wanted(evidence)).record
    assert no_go is not None
    registry.move("sums", "dev", V1, expected=None, decision=no_go.digest, why="by hand")
    with pytest.raises(RefusedError, match="another alias: production, not dev"):
        require_released(registry, "sums@dev", ring)
    registry.move("sums", "production", V1, expected=V1, decision=no_go.digest, why="by hand")
    with pytest.raises(RefusedError, match="says NO-GO"):
        require_released(registry, "sums@production", ring)
    evidence.write_safety()
    release(registry, ring, tmp_path / "second", Trained(tokenizer="sha256:t"), "1.1.0")
    promoted(desk, wanted(evidence, reference="sums@1.1.0"))
    promoted(desk, wanted(evidence))
    assert (
        require_released(registry, "sums@previous", ring).signed.artifact.digest
        == registry.find("sums@1.1.0").digest
    )
    admitted = require_released(registry, "sums@production", ring, policies={default_policy().digest})
    with pytest.raises(RefusedError, match="another policy"):
        require_released(registry, "sums@production", ring, policies={"sha256:other"})
    place = Path(shelf_of(registry, "sums", "records").place) / admitted.record[7:]
    (place / "record.json").write_text((place / "record.json").read_text() + " ")
    with pytest.raises(IntegrityError, match=r"record\.json"):
        require_released(registry, "sums@production", ring)


def _promote(desk: Desk, version: str, evidence: Evidence, start: Any, told: Any) -> None:
    start.wait()
    try:
        done = promoted(desk, wanted(evidence, reference=f"sums@{version}", target="staging"))
        told.put((version, done.moved))
    except RefusedError as error:
        told.put((version, error.why))


def test_of_two_promoters_exactly_one_wins(
    desk: Desk, evidence: Evidence, tmp_path: Path, ring: KeyRing
) -> None:
    versions = ["1.0.0", "1.1.0", "1.2.0"]
    for version in versions[1:]:
        release(desk.registry, ring, tmp_path / version, Trained(tokenizer=f"sha256:{version}"), version)
    context = multiprocessing.get_context("fork")
    # Nobody looks at the alias before all are ready, and nobody moves it before all have looked.
    barrier, told = context.Barrier(3), context.Queue()

    def tell(text: str) -> None:
        if text.startswith("verifying"):
            barrier.wait(30)

    waiting = replace(desk, tell=tell)
    start = context.Event()
    start.set()
    writers = [
        context.Process(target=_promote, args=(waiting, one, evidence, start, told)) for one in versions
    ]
    for one in writers:
        one.start()
    answers = dict(told.get(timeout=60) for _ in writers)
    for one in writers:
        one.join()
    winners = [version for version, how in answers.items() if how is True]
    assert len(winners) == 1 and str(desk.registry.state("sums").aliases["staging"]) == winners[0]
    assert all(f"it is {winners[0]}, not nothing" in how for how in answers.values() if how is not True)


@pytest.mark.slow
def test_what_a_revoked_key_let_in_is_promoted_anew(
    desk: Desk, evidence: Evidence, reviewers: KeyRing, tmp_path: Path
) -> None:
    registry = desk.registry
    release(registry, reviewers, tmp_path / "second", Trained(tokenizer="sha256:t"), "1.1.0")
    for version, who in (("1.0.0", "release"), ("1.1.0", "ada")):
        asked = wanted(evidence, reference=f"sums@{version}")
        assert promote(desk, asked, reviewers.signing_key(who)).moved
    reviewers.revoke(next(one.id for one in reviewers.known() if one.name == "ada"), "a laptop was lost")
    with pytest.raises(RefusedError, match="revoked"):
        require_released(registry, "sums@production", reviewers)
    assert promoted(desk, asked).moved, "to where it is, by a record of another key"
    require_released(registry, "sums@production", reviewers)
    done = promoted(desk, replace(asked, policy=team_policy(), why="ours"), Insisted(change_policy_as=""))
    assert done.moved and done.before == V2
    require_released(registry, "sums@production", reviewers)
    assert registry.state("sums").aliases == {"production": V2, "previous": V1}, (
        "it is not its own previous one"
    )
    assert not promoted(desk, replace(asked, policy=team_policy())).moved


def test_an_approval_of_another_form_does_not_count(
    desk: Desk, evidence: Evidence, reviewers: KeyRing
) -> None:
    policy = team_policy(approvals=[{"role": "reviewer"}])
    about = about_bundle(desk.registry.verified("sums@1.0.0", reviewers).artifact)
    key = reviewers.signing_key("ada")
    plain = statement_of("sums", about, policy, "production", "reviewer", key, "")
    shelf = shelf_of(desk.registry, "sums", "approvals")
    write_approval(shelf, replace(plain, policy=5), key, reviewers)  # type: ignore[arg-type]
    write_approval(shelf, replace(plain, key="k"), key, reviewers)
    (rule,) = judge(desk, wanted(evidence, policy)).outcome.held_by
    assert "another policy: 5, not" in rule.why and "it names another key" in rule.why


def test_the_audit_misses_no_record(
    desk: Desk, evidence: Evidence, ring: KeyRing, reviewers: KeyRing, tmp_path: Path
) -> None:
    first = promoted(desk, wanted(evidence, team_policy())).record
    assert first is not None

    def faults() -> list[str]:
        return [f"{one.thing}: {one.what}" for _, found in audit(desk.registry, desk.ring) for one in found]

    assert faults() == []
    record = first.path / "record.json"
    whole = record.read_bytes()
    record.write_bytes(whole.replace(b"GO", b"OG", 1))
    assert len(faults()) == 1 and "record of entry 2" in faults()[0] and "record.json" in faults()[0]
    record.write_bytes(whole)
    signature = signature_place(first.path)
    signed = signature.read_bytes()
    signature.unlink()
    assert "is not signed" in faults()[0]
    signature.write_bytes(signed)
    assert faults() == []
    shutil.rmtree(first.path)
    assert "the journal names it, and it is not there" in faults()[0]

    release(desk.registry, ring, tmp_path / "second", Trained(tokenizer="sha256:t"), "1.1.0")
    desk.registry.move("sums", "production", V2, expected=V1, decision=None, why="by hand")
    assert "it is not there" in faults()[0], "also of an entry that was long ago"
