"""Which answers to a golden set changed, since when, under which digest."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from evaluations import evaluation_of, records_with

from raytrain.cli.main import run
from raytrain.errors import DataError
from raytrain.evaluation.baseline import freeze
from raytrain.evaluation.results import Evaluation, open_evaluation
from raytrain.monitoring.drift.golden import read_golden_reports, trace_changes
from raytrain.release import golden
from raytrain.release.golden import GoldenLimits, find_drift, write_golden_report
from raytrain.storage.location import Location

BEFORE = [1.0] * 20 + [0.0] * 20
START = datetime(2026, 5, 1, tzinfo=UTC)


def lost(*items: int) -> list[float]:
    return [0.0 if i in items else score for i, score in enumerate(BEFORE)]


def check(
    folder: Path, frozen: Evaluation, day: int, scores: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `raytrain check golden` leaves it, on another day."""
    real = golden.collect_provenance
    moment = (START + timedelta(days=day)).isoformat(timespec="seconds")
    monkeypatch.setattr(golden, "collect_provenance", lambda **more: {**real(**more), "created_at": moment})
    after = evaluation_of(folder / f"now-{day}", {"sums": records_with(scores)})
    drift = find_drift(frozen, after, GoldenLimits())
    write_golden_report(
        Location(str(folder / "reports" / f"r{9 - day}")), drift, frozen, after, f"sha256:v{day}"
    )


def test_since_when_and_under_which_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = Location(str(tmp_path / "golden"))
    freeze(evaluation_of(tmp_path / "first", {"sums": records_with(BEFORE)}), place)
    frozen = open_evaluation(place)
    won = [*lost(3, 5)[:39], 1.0]
    for day, scores in enumerate([BEFORE, lost(3, 7), lost(3), lost(5), won]):
        check(tmp_path, frozen, day, scores, monkeypatch)
    for name in ("half", ".staging-other"):
        (tmp_path / "reports" / name).mkdir()
    reports, notes = read_golden_reports(Location(str(tmp_path / "reports")), frozen.artifact.digest)
    assert [one.subject for one in reports] == [f"sha256:v{day}" for day in range(5)], "by time, not by name"
    assert len(notes) == 1 and notes[0].startswith("half is left out")
    trace = trace_changes(reports)
    assert [(one.item_id, one.subject, one.num_reports, one.lost) for one in trace.changed] == [
        ("3", "sha256:v4", 1, True), ("5", "sha256:v3", 2, True), ("39", "sha256:v4", 1, False),
    ]  # fmt: skip
    assert (
        trace.changed[1].since.startswith("2026-05-04")
        and trace.changed[1].output_after == "The answer is 5."
    )
    assert trace.recovered == ("7",)
    command = ["watch", "golden", str(tmp_path / "golden"), "--reports", str(tmp_path / "reports")]
    assert run([*command, "--json"]) == 0
    assert [one["item_id"] for one in json.loads(capsys.readouterr().out)["changed"]] == ["3", "5", "39"]
    assert run(command) == 0
    assert "lost: 5 (sums): 1 to 0, since 2026-05-04" in capsys.readouterr().out
    with pytest.raises(DataError, match="is of this golden set"):
        read_golden_reports(Location(str(tmp_path / "reports")), "sha256:another")
