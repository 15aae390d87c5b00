"""A safety report as an artifact: report.json and report.md for figures, outcomes.jsonl for each probe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from raytrain.errors import IntegrityError
from raytrain.evaluation.records import storable
from raytrain.evaluation.safety.findings import Finding
from raytrain.evaluation.safety.outcomes import (
    FailureCount,
    Outcome,
    failures_by_category,
    failures_by_severity,
    findings_by_kind,
    leaks,
)
from raytrain.evaluation.safety.regression import SafetyComparison
from raytrain.evaluation.safety.running import PackFacts, SafetyReport
from raytrain.storage.artifact import Artifact, ArtifactWriter, open_artifact
from raytrain.storage.location import Location
from raytrain.storage.provenance import collect_provenance

KIND = "safety_report"


def report_as_dict(report: SafetyReport, comparison: SafetyComparison | None = None) -> dict[str, Any]:
    """All figures; `--json` prints the same."""
    return {
        "model": report.model,
        "model_digest": report.model_digest,
        "judge": report.judge,
        "max_new_tokens": report.max_new_tokens,
        "chat_template": report.chat_template,
        "detectors": list(report.detectors),
        "packs": [asdict(one) for one in report.packs],
        "categories": [_count(one) for one in failures_by_category(report.outcomes)],
        "severities": [_count(one) for one in failures_by_severity(report.outcomes)],
        "leaks": [_count(one) for one in leaks(report.outcomes)],
        "findings": findings_by_kind(report.outcomes),
        "detector_failures": sorted({text for one in report.outcomes for text in one.detector_failures}),
        "errors": sorted({one.error for one in report.outcomes if one.error is not None}),
        "notes": list(report.notes),
        "comparison": None if comparison is None else comparison.as_dict(),
    }


def _count(one: FailureCount) -> dict[str, Any]:
    interval = one.interval
    bounds = (
        {}
        if interval is None
        else {"at_least": interval.low, "at_most": interval.high, "method": interval.method}
    )
    return {**asdict(one), **bounds, "sentence": one.sentence()}


def report_as_markdown(report: SafetyReport, comparison: SafetyComparison | None = None) -> str:
    lines = [f"# Safety of {report.model or 'a model'}", "", f"Model: `{report.model_digest or 'no digest'}`"]
    lines += ["", *[f"- {note}" for note in report.notes]] if report.notes else []
    tables = {
        "Failures by category": failures_by_category(report.outcomes),
        "Failures by severity": failures_by_severity(report.outcomes),
        "What detectors found": leaks(report.outcomes),
    }
    for title, counts in tables.items():
        lines += ["", f"## {title}", "", "| | failures, with 95 % interval |", "|---|---|"]
        lines += [f"| {one.name} | {one.sentence()} |" for one in counts]
    if comparison is not None:
        lines += [
            "",
            "## Against the model before",
            "",
            *[f"- {one.sentence()}" for one in comparison.changes],
        ]
    lines += ["", "## Packs", "", "| pack | version | licence | probes | digest |", "|---|---|---|---|---|"]
    lines += [
        f"| {p.name} | {p.version} | {p.licence} | {p.num_probes} | `{p.digest}` |" for p in report.packs
    ]
    return "\n".join(lines) + "\n"


def write_report(
    report: SafetyReport,
    destination: Location,
    *,
    comparison: SafetyComparison | None = None,
    parents: Mapping[str, str] | None = None,
) -> Artifact:
    """The report with the model's digest as a parent. Raises IntegrityError where another artifact is there already."""
    from_model = {} if report.model_digest is None else {"model": report.model_digest}
    with ArtifactWriter(destination, kind=KIND, parents={**from_model, **(parents or {})}) as writer:
        body = json.dumps(report_as_dict(report, comparison), indent=1, ensure_ascii=False)
        (writer.path / "report.json").write_text(storable(body) + "\n", encoding="utf-8")
        text = storable(report_as_markdown(report, comparison))
        (writer.path / "report.md").write_text(text, encoding="utf-8")
        with (writer.path / "outcomes.jsonl").open("w", encoding="utf-8") as stream:
            for one in report.outcomes:
                stream.write(storable(json.dumps(asdict(one), ensure_ascii=False)) + "\n")
        return writer.commit(collect_provenance(), renew=True)


def read_report(location: Location) -> SafetyReport:
    """The other way. Raises IntegrityError where it is damaged, or no safety report."""
    artifact = open_artifact(location, kind=KIND)
    try:
        facts = json.loads((artifact.path / "report.json").read_text(encoding="utf-8"))
        lines = (artifact.path / "outcomes.jsonl").read_text(encoding="utf-8").split("\n")
        outcomes = tuple(_outcome(json.loads(line)) for line in lines if line)
        packs = tuple(PackFacts(**one) for one in facts["packs"])
        return SafetyReport(
            outcomes,
            packs,
            facts["judge"],
            tuple(facts["detectors"]),
            facts["model"],
            facts["model_digest"],
            facts["max_new_tokens"],
            facts["chat_template"],
            tuple(facts["notes"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(
            f"{location} cannot be read as a safety report",
            why=f"{type(error).__name__}: {error}",
            fix="make it again with this version of raytrain",
        ) from error


def _outcome(row: dict[str, Any]) -> Outcome:
    findings = tuple(Finding(**one) for one in row.pop("findings"))
    failures = tuple(row.pop("detector_failures"))
    return Outcome(**row, findings=findings, detector_failures=failures)
