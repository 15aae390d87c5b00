"""An audit as an artifact: report.json, report.md, and one row an item in items.parquet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from raytrain.evaluation.contamination.audit import Audit, ItemFinding
from raytrain.evaluation.contamination.rescoring import Rescored
from raytrain.evaluation.records import storable
from raytrain.storage.artifact import Artifact, ArtifactWriter
from raytrain.storage.location import Location
from raytrain.storage.provenance import collect_provenance

REPORT_KIND = "contamination_report"
_MOST_TOLD = 50


def summary(audit: Audit, rescored: Rescored | None = None) -> dict[str, Any]:
    """What report.json holds; suspects with their reasons."""
    suspects = [one for one in audit.findings if one.suspicion]
    return {
        "suite": {
            "name": audit.suite.section.suite,
            "version": audit.suite.section.version,
            "digest": audit.suite.digest,
        },
        "num_items": len(audit.findings),
        "num_suspects": len(suspects),
        "num_rows": audit.num_rows,
        "splits": list(audit.splits),
        "thresholds": asdict(audit.thresholds),
        "suspects": [
            {"id": one.item.id, "reasons": list(one.suspicion.reasons), **_told(one)} for one in suspects
        ],
        "scores": None if rescored is None else asdict(rescored),
        "notes": list(audit.notes),
    }


def write_report(
    audit: Audit,
    rescored: Rescored | None,
    destination: Location,
    *,
    parents: Mapping[str, str],
    config: dict[str, Any],
) -> Artifact:
    """The same findings from the same parents have the same digest."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with ArtifactWriter(destination, kind=REPORT_KIND, parents=parents) as writer:
        text = json.dumps(summary(audit, rescored), indent=1, ensure_ascii=True)
        (writer.path / "report.json").write_text(text + "\n", encoding="utf-8")
        (writer.path / "report.md").write_text(storable(render(audit, rescored)), encoding="utf-8")
        rows = [_row(one) for one in audit.findings]
        pq.write_table(pa.Table.from_pylist(rows, schema=_schema()), writer.path / "items.parquet")
        return writer.commit(collect_provenance(config=config), renew=True)


def render(audit: Audit, rescored: Rescored | None = None) -> str:
    """For people, in Markdown."""
    suspects = [one for one in audit.findings if one.suspicion]
    lines = [
        f"# Contamination: {audit.suite.section.suite}",
        "",
        f"{len(suspects):,} of {len(audit.findings):,} items are suspected, held against {audit.num_rows:,} rows "
        f"({', '.join(audit.splits)}).",
        "",
        *([f"{rescored.sentence()}.", ""] if rescored else []),
        *(f"- {note}." for note in audit.notes),
    ]
    for one in suspects[:_MOST_TOLD]:
        lines += ["", f"## {one.item.id}", "", *(f"- {reason}" for reason in one.suspicion.reasons)]
        lines += ["", f"> {one.best.snippet}"] if one.best is not None else []
    if len(suspects) > _MOST_TOLD:
        lines += ["", f"{len(suspects) - _MOST_TOLD:,} more stand in items.parquet."]
    return "\n".join(lines) + "\n"


def _told(finding: ItemFinding) -> dict[str, Any]:
    best = finding.best
    return {
        "best": None
        if best is None
        else {
            "measure": best.measure,
            "role": best.role,
            "share": round(best.share, 4),
            "anywhere": best.anywhere,
            "row": asdict(best.row),
            "snippet": storable(best.snippet),
        },
        "loss_ratio": finding.loss.ratio if finding.loss else None,
        "answer_loss_ratio": finding.loss.answer_ratio if finding.loss else None,
        "min_k": finding.loss.min_k if finding.loss else None,
    }


def _row(finding: ItemFinding) -> dict[str, Any]:
    told = _told(finding)
    best = told.pop("best") or {}
    place = best.pop("row", {})
    return {
        "item_id": storable(finding.item.id),
        "item_digest": finding.item.digest(),
        "is_suspect": bool(finding.suspicion),
        "reasons": [storable(one) for one in finding.suspicion.reasons],
        **best,
        "row_split": place.get("split"),
        "row_number": place.get("number"),
        "row_id": place.get("row_id"),
        **told,
        "loss_error": finding.loss_error,
    }


def _schema() -> Any:
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    return pa.schema(
        [
            ("item_id", text), ("item_digest", text), ("is_suspect", pa.bool_()), ("reasons", pa.list_(text)),
            ("measure", text), ("role", text), ("share", number), ("anywhere", number), ("snippet", text),
            ("row_split", text), ("row_number", pa.int64()), ("row_id", text),
            ("loss_ratio", number), ("answer_loss_ratio", number), ("min_k", number), ("loss_error", text),
        ]
    )  # fmt: skip
