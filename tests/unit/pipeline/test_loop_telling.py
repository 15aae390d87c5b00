"""What people are told of a retraining that has ended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raytrain.monitoring.triggers.state import Outcome
from raytrain.pipeline.loop.chain_record import RECORD_FILE
from raytrain.pipeline.loop.retraining import Retrained
from raytrain.pipeline.loop.telling import ended_well
from raytrain.storage.artifact import ArtifactWriter
from raytrain.storage.location import Location
from raytrain.storage.provenance import collect_provenance


@pytest.mark.parametrize(
    ("outcome", "begins"),
    [
        ("succeeded", "all suites are better"),
        ("no_gain", "What was trained is no gain: all suites are better"),
    ],
)
def test_it_is_told_why_it_was_ordered(tmp_path: Path, outcome: Outcome, begins: str) -> None:
    reasons = ["asked for by ada: a new tool", "production is 31.0 days old, more than 30 is too old"]
    with ArtifactWriter(Location.parse(str(tmp_path / "record")), kind="retraining") as writer:
        (writer.path / RECORD_FILE).write_text(json.dumps({"order": {"reasons": reasons}}))
        record = writer.commit(collect_provenance())
    told = ended_well(Retrained("grow-000001", outcome, "all suites are better", [], record=record), 1.0)
    assert told.text == f"{begins}\nOrdered because:\n- {reasons[0]}\n- {reasons[1]}"
    assert "drifted" not in told.text and told.severity == "info"
