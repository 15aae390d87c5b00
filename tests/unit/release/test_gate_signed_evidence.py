"""Where a policy asks for signed evidence, nothing that a verdict rests on was written without a key."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from gates import held, team_policy, wanted
from releases import Evidence

from raytrain.errors import IntegrityError, RefusedError
from raytrain.release.gate.promote import Desk, judge
from raytrain.release.keys import KeyRing
from raytrain.release.signing import sign

pytestmark = pytest.mark.whole

REPORTS = ("decision", "pipeline", "contamination", "safety", "drift")
RULE = "signed evidence"


def sign_all(folder: Path, ring: KeyRing, *names: str) -> None:
    for name in names:
        sign(folder / name, ring.signing_key("release"))


def test_signed_evidence_is_verified_and_may_be_asked_for(
    desk: Desk, evidence: Evidence, ring: KeyRing
) -> None:
    policy = team_policy(signed_evidence=True)
    assert " of contamination" in held(desk, wanted(evidence, policy))[RULE]
    sign_all(evidence.folder, ring, *REPORTS, "candidate", "frozen")
    assert held(desk, wanted(evidence, policy)) == {}
    ring.generate("other")
    sign(evidence.folder / "safety", ring.signing_key("other"))
    ring.revoke(next(one.id for one in ring.known() if one.name == "other"), "lost")
    with pytest.raises(RefusedError, match="revoked"):
        judge(desk, wanted(evidence, policy))


def test_a_signed_decision_is_worth_what_its_evaluations_are(
    desk: Desk, evidence: Evidence, ring: KeyRing
) -> None:
    policy = team_policy(signed_evidence=True, max_age_days=7)
    sign_all(evidence.folder, ring, *REPORTS)
    unsigned = held(desk, wanted(evidence, policy))[RULE]
    own, frozen = evidence.evaluation().artifact, evidence.baseline().artifact
    for one in (own, frozen):
        assert f"{one.digest[7:19]} of evaluation" in unsigned
    sign_all(evidence.folder, ring, "candidate")
    assert own.digest[7:19] not in held(desk, wanted(evidence, policy))[RULE]
    sign_all(evidence.folder, ring, "frozen")
    assert held(desk, wanted(evidence, policy)) == {}
    manifest = evidence.folder / "candidate" / "manifest.json"
    told = json.loads(manifest.read_text())
    told["provenance"]["created_at"] = "2020-01-01T00:00:00+00:00"
    manifest.write_text(json.dumps(told))
    with pytest.raises(IntegrityError, match=r"manifest\.json"):
        judge(desk, wanted(evidence, policy))


def test_a_baseline_that_the_gate_finds_itself_is_asked_for_its_signature(
    desk: Desk, evidence: Evidence, ring: KeyRing
) -> None:
    policy = team_policy(signed_evidence=True)
    sign_all(evidence.folder, ring, *REPORTS, "candidate")
    shelf = desk.shelves.storage.path / "baselines"
    shutil.copytree(evidence.folder / "frozen", shelf / "frozen")
    places = tuple(one for one in evidence.places if not one.endswith("/frozen"))
    asked = wanted(evidence, policy, evidence=places)
    assert list(held(desk, asked)) == [RULE]
    sign_all(shelf, ring, "frozen")
    assert held(desk, asked) == {}
    only_evaluations = replace(asked, evidence=(*places[1:], str(shelf / "frozen")))
    assert held(desk, only_evaluations) == {}
    (shelf / "frozen.sig").unlink()
    assert list(held(desk, only_evaluations)) == [RULE]


@pytest.mark.parametrize("other", ["a-second-name", ".staging-frozen-0a1b2c3d-4194305-0a1b2c3d"])
def test_of_a_baseline_that_lies_there_twice_the_signed_one_counts(
    desk: Desk, evidence: Evidence, ring: KeyRing, other: str
) -> None:
    """Frozen under two names; or left by somebody who was killed as he froze it, which comes first in the folder."""
    sign_all(evidence.folder, ring, *REPORTS, "candidate")
    shelf = desk.shelves.storage.path / "baselines"
    for name in ("frozen", other):
        shutil.copytree(evidence.folder / "frozen", shelf / name)
    sign_all(shelf, ring, "frozen")
    places = tuple(one for one in evidence.places if not one.endswith("/frozen"))
    assert held(desk, wanted(evidence, team_policy(signed_evidence=True), evidence=places)) == {}


def test_of_one_report_in_two_places_the_signed_one_counts(
    desk: Desk, evidence: Evidence, ring: KeyRing, tmp_path: Path
) -> None:
    copies = tmp_path / "copies"
    for name in (*REPORTS, "candidate", "frozen"):
        shutil.copytree(evidence.folder / name, copies / name)
        sign(copies / name, ring.signing_key("release"))
    asked = wanted(evidence, team_policy(signed_evidence=True), evidence=(*evidence.places, str(copies)))
    assert held(desk, asked) == {}


@pytest.mark.parametrize("is_forged_first", [True, False])
def test_a_copy_that_nobody_signed_makes_no_report_younger(
    desk: Desk, evidence: Evidence, ring: KeyRing, tmp_path: Path, *, is_forged_first: bool
) -> None:
    """No digest is over a time: whoever promotes may write today's into a copy of what was signed long ago."""
    copies, names = tmp_path / "copies", (*REPORTS, "candidate", "frozen")
    for name in names:
        shutil.copytree(evidence.folder / name, copies / name)
        manifest = evidence.folder / name / "manifest.json"
        told = json.loads(manifest.read_text())
        times = told["provenance"].keys() & {"created_at", "evaluated_at"}
        told["provenance"] |= dict.fromkeys(times, "2020-01-01T00:00:00+00:00")
        manifest.write_text(json.dumps(told))
    sign_all(evidence.folder, ring, *names)
    places = [[str(copies / name) for name in names], evidence.places]
    asked = wanted(evidence, team_policy(signed_evidence=True, max_age_days=7))
    given = places if is_forged_first else places[::-1]
    assert list(held(desk, replace(asked, evidence=(*given[0], *given[1])))) == ["fresh"]
