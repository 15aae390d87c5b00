"""The golden set: what was right must stay right, item by item."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from evaluations import evaluation_of, records_with
from gates import held, team_policy, wanted
from releases import Evidence

from raytrain.errors import ConfigError, RefusedError
from raytrain.evaluation.baseline import freeze
from raytrain.evaluation.results import Evaluation, open_evaluation
from raytrain.release.gate.promote import Desk
from raytrain.release.golden import GoldenLimits, find_drift, is_within, write_golden_report
from raytrain.storage.artifact import ArtifactWriter
from raytrain.storage.location import Location

BEFORE = [1.0] * 50 + [0.0] * 50


def frozen(folder: Path, scores: list[float] = BEFORE) -> Evaluation:
    place = Location(str(folder / "golden"))
    freeze(evaluation_of(folder / "first", {"sums": records_with(scores)}), place)
    return open_evaluation(place)


def now(folder: Path, scores: list[float], **more: object) -> Evaluation:
    return evaluation_of(folder / "now", {"sums": records_with(scores)}, **more)  # type: ignore[arg-type]


def lost(*items: int) -> list[float]:
    return [0.0 if i in items else score for i, score in enumerate(BEFORE)]


@pytest.mark.parametrize(
    ("scores", "limits", "passed", "why"),
    [
        (BEFORE, GoldenLimits(), True, "0.0 % lost, 0 won"),
        (lost(4), GoldenLimits(), True, "2.0 % lost"),
        (lost(4, 7), GoldenLimits(), False, "4.0 % lost"),
        (lost(4, 7), GoldenLimits(max_lost=0.04), True, "4.0 % lost"),
        (lost(4), GoldenLimits(max_lost=0.0), False, "2.0 % lost"),
        (lost(4), GoldenLimits(critical=("geometry",)), False, "critical items were lost: 4"),
        (lost(3), GoldenLimits(critical=("geometry",)), True, "2.0 % lost"),
        ([*lost(4, 7)[:50], *[1.0] * 50], GoldenLimits(), False, "50 won"),
    ],
)
def test_what_may_be_lost(
    scores: list[float], limits: GoldenLimits, passed: bool, why: str, tmp_path: Path
) -> None:
    drift = find_drift(frozen(tmp_path), now(tmp_path, scores), limits)
    assert drift.passed is passed and why in drift.why
    assert (drift.num_items, drift.num_right) == (100, 50)


def test_items_are_named_losses_first_and_the_report_is_the_same_each_time(tmp_path: Path) -> None:
    golden, after = frozen(tmp_path), now(tmp_path, [*lost(4)[:99], 1.0])
    drift = find_drift(golden, after, GoldenLimits())
    assert [(one.item_id, one.lost, one.category) for one in drift.changes] == [
        ("4", True, "geometry"),
        ("99", False, "algebra"),
    ]
    one, other = (
        write_golden_report(Location(str(tmp_path / name)), drift, golden, after, "sha256:s") for name in "ab"
    )
    assert one.digest == other.digest and one.manifest.parents["subject"] == "sha256:s"
    lines = [json.loads(line) for line in (one.path / "items.jsonl").read_text().splitlines()]
    assert [line["item_id"] for line in lines] == ["4", "99"] and lines[0][
        "output_after"
    ] == "The answer is 4."
    told = json.loads((one.path / "report.json").read_text())
    assert (
        told["passed"] is True and "| sums | 4 | geometry | 1 | 0 |" in (one.path / "report.md").read_text()
    )


def test_the_same_score_for_other_words_is_counted(tmp_path: Path) -> None:
    after = evaluation_of(tmp_path / "now", {"sums": records_with(BEFORE, text=" Surely.")})
    drift = find_drift(frozen(tmp_path), after, GoldenLimits())
    assert drift.passed and drift.num_reworded == 100 and drift.changes == ()


def test_a_golden_set_is_frozen_asked_alike_and_has_something_right(tmp_path: Path) -> None:
    golden = frozen(tmp_path)
    loose = replace(golden, artifact=open_evaluation(Location(str(tmp_path / "first"))).artifact)
    with pytest.raises(RefusedError, match="is no golden set"):
        find_drift(loose, now(tmp_path, BEFORE), GoldenLimits())
    with pytest.raises(RefusedError, match="cannot be compared"):
        find_drift(golden, now(tmp_path, BEFORE[:90]), GoldenLimits())
    with pytest.raises(RefusedError, match="cannot be compared"):
        find_drift(golden, now(tmp_path, BEFORE, changed={"sums": {"version": "2"}}), GoldenLimits())
    (tmp_path / "poor").mkdir()
    poor = frozen(tmp_path / "poor", [0.0] * 100)
    assert not find_drift(poor, now(tmp_path, BEFORE), GoldenLimits()).passed


@pytest.mark.parametrize(
    ("count", "share", "total", "within"),
    [
        (29, 0.29, 100, True),
        (30, 0.29, 100, False),
        (7, 0.07, 100, True),
        (0, 0.0, 5, True),
        (1, 0.0, 5, False),
        (1, 1e-05, 100_000, True),
        (5, 1, 5, True),
    ],
)
def test_a_share_is_the_decimal_that_was_written(count: int, share: float, total: int, within: bool) -> None:
    assert is_within(count, share, total) is within


def test_a_critical_category_that_is_not_in_the_golden_set_is_refused(tmp_path: Path) -> None:
    golden, after = frozen(tmp_path), now(tmp_path, BEFORE)
    with pytest.raises(ConfigError, match=r"no category 'geometri' .did you mean geometry") as caught:
        find_drift(golden, after, GoldenLimits(critical=("algebra", "geometri")))
    assert caught.value.why.startswith("its categories are algebra, geometry, words")
    assert find_drift(golden, after, GoldenLimits()).as_dict()["categories"] == (
        "algebra",
        "geometry",
        "words",
    )


@pytest.mark.whole
def test_the_gate_holds_a_critical_category_that_the_report_does_not_know(
    desk: Desk, evidence: Evidence
) -> None:
    misspelt = wanted(evidence, team_policy(critical=["algebra", "wrds"]))
    assert held(desk, misspelt) == {"drift": "the golden set has no category 'wrds' (did you mean words?)"}
    report = evidence.write_drift()
    content = json.loads((report.path / "report.json").read_text())
    del content["categories"]
    with ArtifactWriter(report.location, kind=report.kind, parents=report.manifest.parents) as writer:
        (writer.path / "report.json").write_text(json.dumps(content))
        (writer.path / "items.jsonl").write_text("")
        writer.commit(report.manifest.provenance, replace=True)
    told = held(desk, wanted(evidence, team_policy(critical=["algebra"])))
    assert told == {"drift": "the report does not say which categories the golden set has"}
    assert held(desk, wanted(evidence, team_policy())) == {}


@pytest.mark.whole
def test_the_gate_lets_through_as_many_as_the_policy_says(desk: Desk, evidence: Evidence) -> None:
    report = evidence.write_drift()
    content = json.loads((report.path / "report.json").read_text())
    lost = [{"item_id": str(i), "before": 1.0, "after": 0.0, "category": "words"} for i in range(29)]
    with ArtifactWriter(report.location, kind=report.kind, parents=report.manifest.parents) as writer:
        (writer.path / "report.json").write_text(json.dumps({**content, "num_lost": 29, "num_right": 100}))
        (writer.path / "items.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in lost))
        writer.commit(report.manifest.provenance, replace=True)
    assert held(desk, wanted(evidence, team_policy(max_lost=0.29))) == {}
    assert list(held(desk, wanted(evidence, team_policy(max_lost=0.28)))) == ["drift"]
