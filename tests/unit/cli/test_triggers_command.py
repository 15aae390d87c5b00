"""`raytrain triggers` as it is typed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from commands import Told

from raytrain.runs.records import open_records

pytestmark = pytest.mark.whole


@pytest.fixture
def file(tmp_path: Path) -> Path:
    place = tmp_path / "loop.yaml"
    place.write_text(
        "triggers: loop\nwatch: sums\n"
        "when: {any: [{drift: {above: 1}, for_windows: 2}, {manual: true}, {new_rows: {}}, {age: {}},"
        " {new_source: true}, {canary_loss: true}]}\n"
        "cooldown_hours: 0\n"
    )
    return place


def record(*scores: float) -> None:
    records, now = open_records(), time.time() - 1_000
    records.create_run("watch-sums-1", kind="watch", name="sums", config={})
    rows = [
        (number, now + number, {"drift/score": one, "drift/alarm": 0.0})
        for number, one in enumerate(scores, 1)
    ]
    records.add_metrics("watch-sums-1", rows)
    records.close()


def test_a_file_is_checked_against_what_the_watch_records(told: Told, file: Path) -> None:
    assert told("triggers", "check", file)[1]["metrics_checked"] is False
    record(0.5)
    assert told("triggers", "check", file)[1]["metrics_checked"] is True
    file.write_text(file.read_text().replace("{above: 1}", "{metric: drift/scores, above: 1}"))
    for command in ("check", "decide", "replay"):
        code, found = told("triggers", command, file)
        assert code == 2 and "loop.yaml:3" in found["error"]["what"]
        assert found["error"]["fix"] == "did you mean `drift/score`?"


def test_what_would_happen_and_what_happens(told: Told, file: Path) -> None:
    record(0.5, 1.5, 1.5)
    code, found = told("triggers", "decide", file, "--dry-run")
    assert code == 0 and found["dry_run"] and found["order"]["id"] == "loop-000001"
    assert found["reasons"][0] == "yes: drift/score above 1: in an event since window 3"
    assert told("triggers", "orders")[1]["orders"] == []
    assert told("triggers", "decide", file)[1]["order"]["reasons"] == [
        "drift/score above 1: in an event since window 3"
    ]
    assert told("triggers", "decide", file)[1]["order"] is None
    (order,) = told("triggers", "orders", "loop")[1]["orders"]
    assert order["id"] == "loop-000001" and order["outcome"] is None
    listed = told("alerts", "list")[1]
    assert [one["title"] for one in listed["not_taken_in"]] == ["loop orders a retraining"]
    assert (
        told("triggers", "settle", file, "loop-000001", "succeded")[1]["error"]["fix"]
        == "did you mean `succeeded`?"
    )
    assert told("triggers", "settle", file, "loop-000001", "succeeded")[1]["order"]["outcome"] == "succeeded"
    assert told("triggers", "settle", file, "loop-000001", "failed")[0] == 2


@pytest.mark.parametrize(
    ("words", "because"),
    [
        (["--new-rows", "100"], "100 unused rows, 100 are needed"),
        (["--trained-at", "40d"], "production is 40.0 days old, more than 30 is too old"),
        (["--canary-loss", "trial-7"], "lost trials: trial-7"),
    ],
)
def test_what_the_records_do_not_tell_is_said(told: Told, file: Path, words: list[str], because: str) -> None:
    assert told("triggers", "decide", file)[1]["order"] is None
    assert told("triggers", "decide", file, *words)[1]["order"]["reasons"] == [because]
    assert told("triggers", "decide", file, *words)[1]["order"] is None


def test_sources_and_requests(told: Told, file: Path) -> None:
    assert told("triggers", "decide", file, "--source", "a")[1]["order"] is None
    found = told("triggers", "decide", file, "--source", "a", "--source", "b")[1]
    assert found["order"]["reasons"] == ["new sources: b"]
    told("triggers", "settle", file, "loop-000001", "succeeded")
    assert told("triggers", "request", file, "--why", "a new tool")[0] == 0
    found = told("triggers", "decide", file)[1]
    assert found["order"]["id"] == "loop-000002" and "a new tool" in found["order"]["reasons"][0]


def test_a_past_is_replayed_and_nothing_is_kept(told: Told, file: Path) -> None:
    record(0.5, 1.5, 1.5, 1.5, 0.5, 0.5, 1.5, 1.5)
    found = told("triggers", "replay", file)[1]
    assert (found["windows"], found["orders"]) == (8, 2)
    assert [one["window"] for one in found["decisions"] if one["order"]] == [3, 8]
    assert told("triggers", "orders")[1]["orders"] == []
    file.write_text("triggers: loop\nwhen: {manual: true}\n")
    assert "watches nothing" in told("triggers", "replay", file)[1]["error"]["what"]


def test_bad_input(told: Told, file: Path, tmp_path: Path) -> None:
    assert told("triggers", "check", tmp_path / "none.yaml")[0] == 2
    assert told("triggers", "decide", file, "--new-rows", "-1")[0] == 2
    assert told("triggers", "decide", file, "--trained-at", "soon")[0] == 2
    assert told("triggers", "request", file)[0] == 2
