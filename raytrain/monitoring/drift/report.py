"""A drift report: one window judged, as an artifact for programs and for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from raytrain.evaluation.records import json_safe, storable
from raytrain.monitoring.drift.calibration import Judgement
from raytrain.monitoring.drift.judged import Judged, Past, told_time
from raytrain.monitoring.drift.page import render_page
from raytrain.storage.artifact import Artifact, ArtifactWriter, open_artifact
from raytrain.storage.location import Location
from raytrain.storage.provenance import collect_provenance

KIND = "drift_report"
FORMAT = 1
_OF_TIMELINE = 200


def record_of(judged: Judged) -> dict[str, Any]:
    """Everything that was found, as JSON can hold it."""
    judgement = judged.judgement
    told = {
        "format": FORMAT,
        "watch": judged.watch,
        "window": {
            "number": judged.number,
            "begins_at": judged.begins_at,
            "ends_at": judged.ends_at,
            "begins": told_time(judged.begins_at),
            "ends": told_time(judged.ends_at),
            "num_rows": judged.num_rows,
        },
        "is_alarm": bool(judged.alarms),
        "alarms": judged.alarms,
        "warnings": judged.warnings,
        "score": judged.score,
        "calibrated": None if judgement is None else _judgement(judgement),
        "breaches": [asdict(one) for one in judged.breaches],
        "digests": dict(judged.digests),
        "distributions": {name: [asdict(one) for one in bars] for name, bars in judged.bars.items()},
        "words": {name: [asdict(one) for one in words] for name, words in judged.words.items()},
        "means": dict(judged.means),
        "notes": list(judged.notes),
    }
    safe: dict[str, Any] = json_safe(told)
    return safe


def _judgement(one: Judgement) -> dict[str, Any]:
    return {**asdict(one), "features": [{**asdict(each), "score": each.score} for each in one.features]}


def write_report(
    place: Location, judged: Judged, past: Sequence[Past], parents: Mapping[str, str], config: dict[str, Any]
) -> Artifact:
    """report.json and report.html. The same rows, reference and watch give the same digest."""
    with ArtifactWriter(place, kind=KIND, parents=parents) as writer:
        text = json.dumps(record_of(judged), indent=1, sort_keys=True, ensure_ascii=True, allow_nan=False)
        (writer.path / "report.json").write_text(text + "\n", encoding="utf-8")
        page = render_page(judged, past)
        (writer.path / "report.html").write_text(storable(page), encoding="utf-8")
        return writer.commit(collect_provenance(config=config), replace=True)


def read_reports(folder: Location) -> list[tuple[dict[str, Any], Artifact]]:
    """Of a watch against one reference, the oldest first; of many the youngest 200."""
    places = [one for one in folder.children() if one.name.isdigit()]
    found = []
    for place in places[-_OF_TIMELINE:]:
        artifact = open_artifact(place, kind=KIND, verify=False)
        found.append((json.loads((artifact.path / "report.json").read_text(encoding="utf-8")), artifact))
    return found


def past_of(report: dict[str, Any], artifact: Artifact) -> Past:
    window = report["window"]
    return Past(window["number"], window["ends_at"], report["score"], report["is_alarm"], artifact.digest)
