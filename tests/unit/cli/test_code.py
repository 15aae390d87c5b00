"""`raytrain code` on the command line: controls, grades, and who has to act."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from raytrain.cli.main import run
from raytrain.evaluation.results import open_evaluation
from raytrain.evaluation.sandbox.run import probe_isolation
from raytrain.storage.location import Location

pytestmark = pytest.mark.slow

WEAKER = [] if probe_isolation().level == "namespaces" else ["--allow-weaker"]


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The example suite, cut to one instance."""
    assert run(["code", "example", str(tmp_path / "suite")]) == 0
    assert "instances.jsonl" in capsys.readouterr().out
    for name in ("instances.jsonl", "gold.jsonl"):
        path = tmp_path / "suite" / name
        path.write_text(path.read_text().splitlines(keepends=True)[0])
    return tmp_path / "suite"


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def code(command: str, place: Path, *more: str) -> int:
    files = {"check": ["instances.jsonl"], "grade": ["instances.jsonl", "gold.jsonl"]}[command]
    where = ["--repositories", str(place / "repositories"), *WEAKER]
    return run(["code", command, *(str(place / one) for one in files), *where, *more])


def test_controls_pass_and_a_failed_one_is_exit_5(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert code("check", place, "--repeats", "1") == 0
    told = capsys.readouterr()
    assert "controls passed: 1 of 1 instances" in told.out and "isolation: " in told.out
    assert "1/1 examples__intervals-1: controls passed" in told.err
    (row,) = rows_of(place / "instances.jsonl")
    write(place / "instances.jsonl", {**row, "patch": row["patch"].replace("<=", "> 0 <")})
    assert code("check", place, "--repeats", "1", "--json") == 5
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert (found["passed"], found["gold_resolved"], found["empty_resolved"]) == (False, 0, 0)
    assert found["error"]["kind"] == "integrity" and "examples__intervals-1" in found["error"]["why"]
    assert found["instances"][0]["faults"] and told.err == "", "progress is for people"


def test_grades_with_controls_and_records(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (row,) = rows_of(place / "instances.jsonl")
    broken = {**row, "instance_id": "broken", "PASS_TO_PASS": ["tests/test_intervals.py::test_gone"]}
    write(place / "instances.jsonl", row, broken)
    assert code("grade", place, "--controls", "--output", str(tmp_path / "graded"), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["resolved"], found["instances"], found["share"]) == (1, 1, 1.0)
    assert (
        found["interval"]["method"] == "Wilson" and found["interval"]["low"] < 0.5 < found["interval"]["high"]
    )
    assert [(one["instance_id"], one["faults"] != []) for one in found["excluded"]] == [("broken", True)]
    (first,) = found["items"]
    assert (first["status"], first["equivalence"], first["behaves_as_gold"]) == (
        "resolved",
        "identical",
        True,
    )
    assert first["diff"]["ratio"] == 1.0 and first["restored"] == []
    assert found["isolation"]["level"] == probe_isolation().level and found["models"] == ["gold"]
    graded = open_evaluation(Location.parse(tmp_path / "graded"))
    assert {one.item_id: one.score for one in graded.records["instances"]} == {row["instance_id"]: 1.0}
    assert graded.report.settings["python"] == sys.executable
    assert graded.artifact.digest == found["digest"] and graded.report.suites["instances"].score == 1.0


def test_a_person_sees_a_table_and_an_interval(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert code("grade", place) == 0
    told = capsys.readouterr()
    assert told.out.strip().splitlines()[-1] == "1 of 1 resolved, 100% (95 % interval 21% to 100%)"
    assert "2 (2)" in told.out and "1/1 examples__intervals-1: resolved" in told.err


def test_who_has_to_act(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(place / "gold.jsonl", {"instance_id": "strange", "model_patch": "x"})
    assert code("grade", place, "--json") == 3
    assert json.loads(capsys.readouterr().out)["error"]["kind"] == "data"
    (place / "gold.jsonl").write_text("{")
    assert code("grade", place) == 3
    for nothing, words in (("{}", "`instance_id` is missing"), ("[]", "holds no predictions")):
        (place / "gold.jsonl").write_text(nothing)
        capsys.readouterr()
        assert code("grade", place) == 3
        told = capsys.readouterr().err
        assert words in told and "model_patch" in told
    (place / "gold.jsonl").unlink()
    assert code("grade", place) == 3
    assert (
        run(["code", "check", str(place / "instances.jsonl"), "--repositories", str(tmp_path), *WEAKER]) == 5
    )
    assert "there is no repository" in capsys.readouterr().out
    assert run(["code", "example", str(place)]) == 2
    assert "nothing is overwritten" in capsys.readouterr().err


def test_grades_are_compared_item_by_item(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code("grade", place, "--output", str(tmp_path / "fixed")) == 0
    (gold,) = rows_of(place / "gold.jsonl")
    write(place / "gold.jsonl", {**gold, "model_patch": "", "model_name_or_path": "idle"})
    assert code("grade", place, "--output", str(tmp_path / "idle")) == 0
    capsys.readouterr()
    assert run(["compare", str(tmp_path / "idle"), str(tmp_path / "fixed"), "--json"]) == 5, (
        "one bug proves nothing"
    )
    (decision,) = json.loads(capsys.readouterr().out)["decisions"]
    assert (decision["verdict"]["word"], decision["verdict"]["gain"]) == ("cannot tell", 1.0)
    assert decision["candidate"]["name"] == "gold" and not decision["promoted"]
