"""The gate holds what an export was measured to differ against the policy, whatever the check allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gates import held, team_policy, wanted
from releases import Evidence, Trained, export_check, release

from raytrain.release.gate.evidence import Shelves
from raytrain.release.gate.promote import Desk
from raytrain.release.keys import KeyRing
from raytrain.release.registry.registry import Registry
from raytrain.storage.location import Location

pytestmark = pytest.mark.whole


@pytest.mark.parametrize(
    ("differences", "words"),
    [
        ({"max_difference": 0.5}, "max_difference of adapter is 0.5, the policy allows 0.02"),
        ({"mean_difference": 0.1}, "mean_difference of adapter is 0.1"),
        ({"max_kl": float("nan")}, "max_kl of adapter is nan"),
        (
            {"num_near_ties": 2},
            "2 answers of adapter part, by a lead of at most 1e+30, the policy allows 0.01",
        ),
    ],
)
def test_an_export_check_counts_by_the_policys_limits(
    differences: dict[str, float], words: str, evidence: Evidence, ring: KeyRing, tmp_path: Path
) -> None:
    """Whoever exports may have let it differ by more."""
    registry, place = Registry(tmp_path / "registry"), "reports/export_check.json"
    documents = {place: lambda subject, files: export_check(subject, files, **differences)}
    release(registry, ring, tmp_path / "loose", Trained(), "1.0.0", documents=documents)
    desk = Desk(registry, ring, Shelves(Location(str(tmp_path / "storage"))))
    assert words in held(desk, wanted(evidence))["export check"]
    limits = {"max_difference": 1, "mean_difference": 1, "max_kl": 1, "near_tie": 1e30}
    lax = wanted(evidence, team_policy(export_limits={"float32": limits}))
    assert ("export check" in held(desk, lax)) == ("max_kl" in differences), "nobody allows what is no number"


@pytest.mark.parametrize(
    "changed",
    [
        {"dtype": "bfloat16"},
        {"formats": {}},
        {"formats": {"adapter": {"passed": True}}},
        {"limits": {}, "formats": {"adapter": export_check("")["formats"]["adapter"] | {"num_near_ties": 1}}},
    ],
)
def test_an_export_check_that_says_too_little_does_not_count(
    changed: dict[str, Any], evidence: Evidence, ring: KeyRing, tmp_path: Path
) -> None:
    registry, place = Registry(tmp_path / "registry"), "reports/export_check.json"
    documents = {place: lambda subject, files: export_check(subject, files) | changed}
    release(registry, ring, tmp_path / "bare", Trained(), "1.0.0", documents=documents)
    desk = Desk(registry, ring, Shelves(Location(str(tmp_path / "storage"))))
    assert "export check" in held(desk, wanted(evidence))
