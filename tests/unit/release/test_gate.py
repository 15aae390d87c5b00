"""A version through the gate, from its files to the journal: what lets it in, what holds it, and who may override."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bundles import make_bundle
from releases import BEFORE, DOCUMENTS, Evidence, Trained, make_release, release

from raytrain.errors import ConfigError, IntegrityError, RefusedError
from raytrain.evaluation.decision.contract import SuiteRules, default_contract
from raytrain.evaluation.decision.decide import decide
from raytrain.evaluation.decision.record import write_decision
from raytrain.evaluation.results import open_evaluation
from raytrain.release.gate.about import about_bundle
from raytrain.release.gate.approvals import statement_of, write_approval
from raytrain.release.gate.enforce import require_released
from raytrain.release.gate.evidence import Shelves
from raytrain.release.gate.policy import Policy, PolicySection, default_policy
from raytrain.release.gate.promote import Desk, Promotion, Wanted, judge, promote
from raytrain.release.gate.record import checklist_of, record_of
from raytrain.release.gate.shelf import all_in, shelf_folder
from raytrain.release.keys import KeyRing
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.versions import Version
from raytrain.release.signing import sign, signature_place
from raytrain.storage.artifact import ArtifactWriter
from raytrain.storage.location import Location

V1, V2 = Version(1, 0, 0), Version(1, 1, 0)
TRAINED = Trained()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """Made once; whoever changes it takes a copy."""
    return Evidence(tmp_path_factory.mktemp("evidence")).write()


@pytest.fixture
def evidence(whole: Evidence, tmp_path: Path) -> Evidence:
    shutil.copytree(whole.folder, tmp_path / "evidence")
    return replace(whole, folder=tmp_path / "evidence")


@pytest.fixture
def desk(tmp_path: Path, ring: KeyRing) -> Desk:
    registry = Registry(tmp_path / "registry")
    release(registry, ring, tmp_path / "bundle", TRAINED, "1.0.0")
    return Desk(registry, ring, Shelves(Location(str(tmp_path / "storage"))))


def wanted(known: Evidence, policy: Policy | None = None, **more: Any) -> Wanted:
    plain = Wanted("sums@1.0.0", "production", policy or default_policy(), tuple(known.places))
    return replace(plain, **more)


def promoted(desk: Desk, asked: Wanted, **more: Any) -> Promotion:
    return promote(desk, asked, desk.ring.signing_key("release"), **more)


def held(desk: Desk, asked: Wanted) -> dict[str, str]:
    """Names of the rules that hold it, and why."""
    return {one.name: one.why for one in judge(desk, asked).outcome.held_by}


def team_policy(**target: Any) -> Policy:
    roles = [
        {"role": "reviewer", "keys": ["ada", "grace", "katherine"]},
        {"role": "on-call", "keys": ["ada"]},
    ]
    targets = [{"to": "production", "override_by": ["on-call"], **target}]
    return Policy(
        PolicySection.model_validate({"policy": "team", "roles": roles, "targets": targets}),
        default_contract(),
    )


def test_with_everything_in_order_it_is_in_production(desk: Desk, evidence: Evidence, ring: KeyRing) -> None:
    done = promoted(desk, wanted(evidence))
    assert done.judged.outcome.verdict == "GO", done.judged.outcome.held_by
    assert done.moved and done.record is not None and done.refusal is None
    state = desk.registry.state("sums")
    assert state.aliases == {"production": V1}
    entry = state.moved["production"]
    assert entry.details["decision"] == done.record.digest and entry.why.startswith(
        "GO by the policy default"
    )
    told = json.loads((done.record.path / "record.json").read_text())
    assert told == json.loads(json.dumps(record_of(done.judged)))
    assert done.record.manifest.parents["subject"] == TRAINED.subject
    assert len(done.record.manifest.parents) == 2 + 5
    for reference in ("sums@production", "sums@1.0.0"):
        admitted = require_released(desk.registry, reference, ring)
        assert admitted.signed.artifact.digest == desk.registry.find("sums@1.0.0").digest
        assert admitted.record == done.record.digest and not admitted.overridden
    again = promoted(desk, wanted(evidence))
    assert again.record is not None and again.record.digest == done.record.digest and not again.moved
    assert desk.registry.state("sums").moved["production"] == entry, (
        "what is there already is not moved again"
    )


def test_a_folder_of_reports_is_evidence_and_what_is_about_others_is_passed_over(
    desk: Desk, evidence: Evidence, tmp_path: Path
) -> None:
    other = replace(
        evidence, folder=tmp_path / "evidence" / "of others", trained=Trained("other", dataset="sha256:x")
    )
    other.write_safety()
    (evidence.folder / "other-safety").mkdir()
    shutil.copytree(other.folder / "safety", evidence.folder / "other-safety", dirs_exist_ok=True)
    assert held(desk, wanted(evidence, evidence=(str(evidence.folder),))) == {}


def test_evidence_about_another_digest_is_refused_by_name(
    desk: Desk, evidence: Evidence, tmp_path: Path
) -> None:
    other = Evidence(tmp_path / "other", Trained("other", dataset="sha256:d", recipe="sha256:r")).write()
    for report in ("decision", "pipeline", "contamination", "safety", "drift"):
        places = (*evidence.places, str(other.folder / report))
        told = held(desk, wanted(evidence, evidence=places))
        assert list(told) == ["one subject"], (report, told)
        assert f"other/{report}" in told["one subject"] and "the bundle" in told["one subject"]


FAULTS: list[tuple[str, Callable[[Evidence], object], str, str]] = [
    ("pipeline", lambda one: one.write_pipeline(passed=False), "pipeline check", "every check"),
    ("evaluation", lambda one: one.write_decision(BEFORE), "evaluation", "did not pass"),
    ("contamination", lambda one: one.write_contamination(suspects=1), "contamination", "1000 rows"),
    (
        "another suite",
        lambda one: one.write_contamination(suite="sha256:x"),
        "suites free of training rows",
        "not looked",
    ),
    ("safety", lambda one: one.write_safety(failed=True), "safety", "critical"),
    ("safety unknown", lambda one: one.write_safety(error="no room"), "safety", "3 outcomes are unknown"),
    ("drift", lambda one: one.write_drift(BEFORE), "drift", "lost"),
]


@pytest.mark.parametrize(("case", "spoil", "rule", "why"), FAULTS, ids=[one[0] for one in FAULTS])
def test_a_report_that_did_not_pass_holds_it(
    case: str, spoil: Callable[[Evidence], object], rule: str, why: str, desk: Desk, evidence: Evidence
) -> None:
    spoil(evidence)
    if rule in ("evaluation", "drift"):
        evidence.evaluation(BEFORE)
    told = held(desk, wanted(evidence))
    assert why in told[rule], told
    done = promoted(desk, wanted(evidence))
    assert done.judged.outcome.verdict == ("ESCALATE" if case == "safety unknown" else "NO-GO")
    assert not done.moved and desk.registry.state("sums").aliases == {}
    assert done.refusal is not None and rule in done.refusal.why and done.refusal.fix
    assert done.record is not None and (done.record.path / "checklist.md").is_file()


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_a_document_that_is_missing_or_about_another_holds_it(
    name: str, tmp_path: Path, ring: KeyRing, evidence: Evidence
) -> None:
    rule = {
        "reports/export_check.json": "export check",
        "reports/scan.json": "scan",
        "sbom.cdx.json": "sbom",
    }.get(name, "provenance")
    for version, content in (
        ("1.0.0", None),
        ("1.1.0", lambda _, files: DOCUMENTS[name]("sha256:" + "e" * 64, files)),
        ("1.2.0", [1]),
    ):
        registry = Registry(tmp_path / "other-registry")
        release(registry, ring, tmp_path / version, TRAINED, version, documents={name: content})
        desk = Desk(registry, ring, Shelves(Location(str(tmp_path / "storage"))))
        told = held(desk, wanted(evidence, reference=f"sums@{version}"))
        assert list(told) == [rule], (version, told)


@pytest.mark.parametrize("name", ["reports/scan.json", "provenance.intoto.json"])
def test_a_document_that_leaves_a_file_out_holds_it(
    name: str, tmp_path: Path, ring: KeyRing, evidence: Evidence
) -> None:
    def without_weights(subject: str, files: Mapping[str, str]) -> object:
        seen = {one: digest for one, digest in files.items() if not one.endswith(".safetensors")}
        return DOCUMENTS[name](subject, seen)

    registry = Registry(tmp_path / "other-registry")
    release(registry, ring, tmp_path / "bundle", TRAINED, "1.0.0", documents={name: without_weights})
    told = held(Desk(registry, ring, Shelves(Location(str(tmp_path / "storage")))), wanted(evidence))
    ((rule, why),) = told.items()
    assert rule in ("scan", "provenance") and "adapter/adapter_model.safetensors" in why


def test_a_decision_is_not_believed_but_made_anew(desk: Desk, evidence: Evidence) -> None:
    """Its record says promoted; the evaluation that it names says otherwise."""
    place = evidence.folder / "decision"
    worse = evidence.write_decision(BEFORE)
    content = json.loads((place / "decision.json").read_text())
    assert not content["promoted"]
    content["promoted"], content["decisions"][0]["promoted"] = True, True
    with ArtifactWriter(Location(str(place)), kind="decision", parents=worse.manifest.parents) as writer:
        (writer.path / "decision.json").write_text(json.dumps(content))
        writer.commit(worse.manifest.provenance, replace=True)
    assert "did not pass" in held(desk, wanted(evidence))["evaluation"]


def test_where_its_evaluations_are_not_at_hand_it_does_not_count(desk: Desk, evidence: Evidence) -> None:
    places = tuple(one for one in evidence.places if not one.endswith(("/candidate", "/frozen")))
    told = held(desk, wanted(evidence, evidence=places))
    assert "cannot be decided anew without" in told["evaluation"] and "baseline sha256:" in told["evaluation"]
    shutil.copytree(evidence.folder / "frozen", desk.shelves.storage.path / "baselines" / "frozen")
    assert "candidate sha256:" in held(desk, wanted(evidence, evidence=places))["evaluation"]
    both = (*places, str(evidence.folder / "candidate"))
    assert held(desk, wanted(evidence, evidence=both)) == {}, "a frozen baseline is found in the storage"


def test_without_a_decision_the_gate_decides_and_a_baseline_must_be_frozen(
    desk: Desk, evidence: Evidence
) -> None:
    places = tuple(one for one in evidence.places if not one.endswith("/decision"))
    policy = team_policy(max_age_days=None)
    assert held(desk, wanted(evidence, policy, evidence=places)) == {}
    loose = open_evaluation(Location(str(evidence.folder / "base")))
    write_decision(evidence.place_of("decision"), decide(default_contract(), loose, [evidence.evaluation()]))
    told = held(desk, wanted(evidence, evidence=(*evidence.places, str(evidence.folder / "base"))))
    assert "is an evaluation" in told["evaluation"]


def test_a_contract_that_cites_a_suite_which_was_not_run(desk: Desk, evidence: Evidence) -> None:
    contract = default_contract().model_copy(
        update={"suites": [SuiteRules(suite="summs"), SuiteRules(suite="*")]}
    )
    policy = Policy(default_policy().section, contract)
    outcome = judge(desk, wanted(evidence, policy)).outcome
    (rule,) = outcome.held_by
    assert outcome.verdict == "NO-GO" and rule.name == "evaluation"
    assert "nobody was evaluated on a suite `summs`" in rule.why and "did you mean `sums`" in rule.change


def test_stale_evidence_holds_it(desk: Desk, evidence: Evidence) -> None:
    late = replace(desk, clock=lambda: desk.clock() + 31 * 86_400)
    told = held(late, wanted(evidence))
    assert (
        list(told) == ["fresh"] and "drift is of 2" in told["fresh"] and "the bundle is of" in told["fresh"]
    )
    assert held(replace(desk, clock=lambda: desk.clock() + 29 * 86_400), wanted(evidence)) == {}


def test_signed_evidence_is_verified_and_may_be_asked_for(
    desk: Desk, evidence: Evidence, ring: KeyRing
) -> None:
    policy = team_policy(signed_evidence=True)
    assert "not signed: contamination" in held(desk, wanted(evidence, policy))["signed evidence"]
    for name in ("decision", "pipeline", "contamination", "safety", "drift"):
        sign(evidence.folder / name, ring.signing_key("release"))
    assert held(desk, wanted(evidence, policy)) == {}
    ring.generate("other")
    sign(evidence.folder / "safety", ring.signing_key("other"))
    ring.revoke(next(one.id for one in ring.known() if one.name == "other"), "lost")
    with pytest.raises(RefusedError, match="revoked"):
        judge(desk, wanted(evidence, policy))


def test_what_is_no_evidence_or_damaged_is_an_error(desk: Desk, evidence: Evidence, tmp_path: Path) -> None:
    before = desk.registry.entries("sums")
    (tmp_path / "empty").mkdir()
    (evidence.folder / "safety" / "report.json").write_text("{}")
    for place, kind, words in (
        (tmp_path / "nowhere", ConfigError, "is no evidence"),
        (tmp_path / "empty", ConfigError, "is no evidence"),
        (make_bundle(tmp_path / "a bundle"), ConfigError, "it is a bundle"),
        (evidence.folder / "safety", IntegrityError, "report.json has 2 bytes"),
    ):
        with pytest.raises(kind) as caught:
            promoted(desk, wanted(evidence, evidence=(str(place),)))
        assert words in str(caught.value)
    evidence.report("drift", "golden_report", {"passed": True}, {"subject": TRAINED.subject})
    with pytest.raises(IntegrityError, match="cannot be read as a golden_report"):
        promoted(desk, wanted(evidence, evidence=(str(evidence.folder / "drift"),)))
    for reference, target, words in (
        ("sums@9.9.9", "production", "not in the registry"),
        ("sums@staging", "production", "not in the registry"),
        ("sums@1.0.0", "live", "lets nothing into 'live'"),
    ):
        with pytest.raises(ConfigError, match=words):
            promoted(desk, wanted(evidence, reference=reference, target=target))
    assert (
        desk.registry.entries("sums") == before
        and all_in(shelf_folder(desk.registry, "sums", "records")) == []
    )


def test_what_is_not_signed_or_not_a_bundle_gets_nowhere(
    desk: Desk, evidence: Evidence, ring: KeyRing, tmp_path: Path
) -> None:
    place = desk.registry.verified("sums@1.0.0", ring).artifact.path
    kept = signature_place(place).read_bytes()
    signature_place(place).unlink()
    with pytest.raises(RefusedError, match="is not signed"):
        promoted(desk, wanted(evidence))
    signature_place(place).write_bytes(kept)
    promoted(desk, wanted(evidence))
    signer = ring.generate("second")
    ring.revoke(ring.known()[0].id, "a laptop was lost")
    with pytest.raises(RefusedError, match="revoked"):
        judge(desk, wanted(evidence))
    with pytest.raises(RefusedError, match="revoked"):
        require_released(desk.registry, "sums@production", ring)
    other = make_bundle(tmp_path / "no release")
    sign(other, ring.signing_key(signer.name))
    desk.registry.register("sums", V2, other, ring, made_from={}, why="")
    with pytest.raises(IntegrityError):
        judge(desk, wanted(evidence, reference="sums@1.1.0"))


def test_an_open_key_signs_nothing(desk: Desk, evidence: Evidence, ring: KeyRing) -> None:
    next(ring.folder.glob("release-*.pem")).chmod(0o644)
    with pytest.raises(RefusedError, match="can be read by others"):
        promoted(desk, wanted(evidence))


def approve(
    desk: Desk, policy: Policy, who: str, *, target: str = "production", version: str = "1.0.0"
) -> Path:
    about = about_bundle(desk.registry.verified(f"sums@{version}", desk.ring).artifact)
    key = desk.ring.signing_key(who)
    statement = statement_of(about, policy, target, "reviewer", key, "I looked")
    return write_approval(shelf_folder(desk.registry, "sums", "approvals"), statement, key, desk.ring).path


@pytest.fixture
def reviewers(ring: KeyRing) -> KeyRing:
    for name in ("ada", "grace", "katherine", "mallory"):
        ring.generate(name)
    return ring


def test_two_of_three_approve(desk: Desk, evidence: Evidence, reviewers: KeyRing) -> None:
    policy = team_policy(approvals=[{"role": "reviewer", "needed": 2}])
    asked = wanted(evidence, policy)
    first = promoted(desk, asked)
    assert first.judged.outcome.verdict == "ESCALATE" and not first.moved
    approve(desk, policy, "ada")
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
            promote(desk, replace(asked, why=why), reviewers.signing_key(who), override_as=role)
    assert desk.registry.state("sums").aliases == {}
    with pytest.raises(RefusedError, match="lets nobody do so"):
        promoted(desk, wanted(evidence, why="x"), override_as="on-call")
    done = promote(
        desk, replace(asked, why="the old one is down"), reviewers.signing_key("ada"), override_as="on-call"
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
    place = shelf_folder(registry, "sums", "records") / admitted.record[7:]
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


def test_the_checklist_ticks_what_passed_and_says_what_would_change_it(
    desk: Desk, evidence: Evidence
) -> None:
    evidence.write_safety(failed=True)
    text = checklist_of(judge(desk, wanted(evidence)))
    assert text.startswith("# NO-GO: sums 1.0.0 to production\n")
    assert "- [x] signature: release" in text and "- [ ] safety **failed**: 1 of 3 critical" in text
    assert text.count("[x]") == 12 and "## What would change it" in text
    assert checklist_of(judge(desk, wanted(evidence))) == text


def test_a_bundle_that_contradicts_itself(tmp_path: Path) -> None:
    bundle = make_release(tmp_path / "bundle", TRAINED)
    about = about_bundle(bundle)
    assert (about.subject, about.dataset, about.recipe) == (TRAINED.subject, TRAINED.dataset, TRAINED.recipe)
    place = bundle.path / "bundle.json"
    place.write_text(place.read_text().replace(TRAINED.subject, "sha256:other"))
    with pytest.raises(IntegrityError, match="does not say clearly"):
        about_bundle(bundle)
