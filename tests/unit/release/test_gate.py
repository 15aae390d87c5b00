"""A version through the gate, from its files to the journal: what lets it in, what holds it, and who may override."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from bundles import make_bundle
from gates import held, promoted, team_policy, wanted
from releases import AFTER, BEFORE, DOCUMENTS, Evidence, Trained, make_release, release

from raytrain.errors import ConfigError, IntegrityError, NotRegisteredError, RefusedError, StorageError
from raytrain.evaluation.decision.contract import SuiteRules, default_contract
from raytrain.evaluation.decision.decide import decide
from raytrain.evaluation.decision.record import write_decision
from raytrain.evaluation.results import open_evaluation, write_evaluation
from raytrain.release.gate.about import about_bundle
from raytrain.release.gate.enforce import require_released
from raytrain.release.gate.evidence import Shelves
from raytrain.release.gate.policy import Policy, default_policy
from raytrain.release.gate.promote import Desk, judge
from raytrain.release.gate.record import checklist_of, record_of
from raytrain.release.keys import KeyRing
from raytrain.release.registry.registry import Registry
from raytrain.release.registry.shelf import shelf_of
from raytrain.release.registry.versions import Version
from raytrain.release.signing import sign, signature_place
from raytrain.storage.artifact import ArtifactWriter
from raytrain.storage.location import Location
from raytrain.storage.manifest import read_manifest

pytestmark = pytest.mark.whole

V1, V2 = Version(1, 0, 0), Version(1, 1, 0)
TRAINED = Trained()


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
    ("drift", lambda one: one.write_drift(BEFORE), "drift", "won"),
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
    assert held(desk, wanted(evidence, team_policy(), evidence=places)) == {}
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
    assert list(told) == ["fresh"] and "drift is of 2" in told["fresh"] and "bundle" not in told["fresh"]
    assert held(replace(desk, clock=lambda: desk.clock() + 29 * 86_400), wanted(evidence)) == {}
    own = evidence.evaluation()
    own.artifact.location.delete()
    write_evaluation(
        own.artifact.location, own.report, own.records, provenance={"created_at": "2020-01-01T00:00:00+00:00"}
    )
    assert held(desk, wanted(evidence))["fresh"] == "evaluation is of 2020-01-01T00:00:00+00:00", (
        "decided today"
    )
    own.artifact.location.delete()
    write_evaluation(own.artifact.location, own.report, own.records)
    assert held(desk, wanted(evidence))["fresh"] == "evaluation does not say when it was made"


def test_a_report_of_today_on_answers_of_last_year_is_of_last_year(desk: Desk, evidence: Evidence) -> None:
    place = evidence.place_of("drift").path / "manifest.json"
    told = json.loads(place.read_text())
    told["provenance"]["evaluated_at"] = "2020-01-01T00:00:00+00:00"
    place.write_text(json.dumps(told))
    assert held(desk, wanted(evidence))["fresh"] == "drift is of 2020-01-01T00:00:00+00:00"


def test_what_is_no_evidence_or_damaged_is_an_error(desk: Desk, evidence: Evidence, tmp_path: Path) -> None:
    before = desk.registry.entries("sums")
    (tmp_path / "empty").mkdir()
    (evidence.folder / "safety" / "report.json").write_text("{}")
    for place, kind, words in (
        (tmp_path / "nowhere", ConfigError, "is no evidence"),
        (tmp_path / "empty", ConfigError, "is no evidence"),
        (make_bundle(tmp_path / "a bundle"), ConfigError, "it is a report"),
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
        with pytest.raises(NotRegisteredError, match=words):
            promoted(desk, wanted(evidence, reference=reference, target=target))
    assert (
        desk.registry.entries("sums") == before
        and not Path(shelf_of(desk.registry, "sums", "records").place).exists()
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


def test_a_policy_may_name_baseline_and_golden_set_and_what_is_critical(
    desk: Desk, evidence: Evidence
) -> None:
    baseline = evidence.baseline().artifact.digest
    golden = read_manifest(evidence.place_of("golden-frozen")).digest
    named = team_policy(baseline=baseline, golden=golden, critical=["algebra"])
    assert held(desk, wanted(evidence, named)) == {}
    told = held(desk, wanted(evidence, team_policy(baseline=golden, golden=baseline)))
    assert f"compared with {baseline}" in told["evaluation"] and f"asks for {baseline}" in told["drift"]
    scores = list(AFTER)
    first = scores.index(1.0)
    scores[first] = 0.0
    evidence.write_drift(scores)
    evidence.evaluation()
    category = ("algebra", "geometry", "words")[first % 3]
    assert held(desk, wanted(evidence)) == {}
    assert list(held(desk, wanted(evidence, team_policy(critical=[category])))) == ["drift"]
    assert list(held(desk, wanted(evidence, team_policy(max_lost=0.0)))) == ["drift"], (
        "whatever the check allowed"
    )


def test_a_drift_report_whose_items_say_otherwise(desk: Desk, evidence: Evidence) -> None:
    report = evidence.write_drift(BEFORE)
    evidence.evaluation()
    content = json.loads((report.path / "report.json").read_text())
    items = (report.path / "items.jsonl").read_text()
    with ArtifactWriter(report.location, kind=report.kind, parents=report.manifest.parents) as writer:
        (writer.path / "report.json").write_text(json.dumps({**content, "num_lost": 0, "passed": True}))
        (writer.path / "items.jsonl").write_text(items)
        writer.commit(report.manifest.provenance, replace=True)
    assert held(desk, wanted(evidence))["drift"] == "its items do not add up to that"


def test_a_registry_that_cannot_be_written_to_stays_as_it_is(desk: Desk, evidence: Evidence) -> None:
    (Path(desk.registry.place) / "_records.sums").write_text("a file stands there")
    with pytest.raises(StorageError):
        promoted(desk, wanted(evidence))
    assert desk.registry.state("sums").aliases == {}
