"""One approval that nobody can read is no reason to hold all others of its name."""

from __future__ import annotations

from pathlib import Path

from gates import team_policy, wanted
from releases import Evidence

from raytrain.release.gate.promote import Desk, judge
from raytrain.release.gate.record import record_of
from raytrain.release.keys import KeyRing
from raytrain.release.registry.shelf import shelf_of


def test_it_is_passed_over_and_told(desk: Desk, evidence: Evidence, reviewers: KeyRing) -> None:
    broken = Path(shelf_of(desk.registry, "sums", "approvals").place) / ("0" * 64)
    broken.mkdir(parents=True)
    (broken / "manifest.json").write_text("{")
    judged = judge(desk, wanted(evidence, team_policy()))
    assert judged.outcome.verdict == "GO"
    (told,) = record_of(judged)["refused_approvals"]
    assert told["what"] == "0" * 12 and "is not there" in told["why"]
    held = judge(desk, wanted(evidence, team_policy(approvals=[{"role": "reviewer"}]))).outcome.held_by
    assert len(held) == 1 and "does not count: 000000000000" in held[0].why
