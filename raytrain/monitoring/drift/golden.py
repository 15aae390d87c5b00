"""Item by item: which answers to the golden set changed, since when, and under which digest.

`raytrain check golden` puts the items to a version and leaves a report; here such reports are read one after the other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from raytrain.errors import DataError
from raytrain.release.golden import GOLDEN_KIND
from raytrain.storage.artifact import is_staging, open_artifact
from raytrain.storage.location import Location


@dataclass(frozen=True)
class GoldenReport:
    """One check of one version. Its time is ISO 8601, in UTC."""

    at: str
    subject: str
    """Digest of the version."""
    report: str
    """Digest of the report."""
    passed: bool
    num_lost: int
    changes: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class ChangedAnswer:
    """An item that comes out otherwise than when the golden set was frozen."""

    suite: str
    item_id: str
    category: str | None
    before: float
    after: float
    """As of the youngest report."""
    since: str
    """Time of the report from which on it has come out otherwise in each."""
    subject: str
    """Digest of the version that this report is of."""
    num_reports: int
    output_before: str
    output_after: str

    @property
    def lost(self) -> bool:
        return self.after < self.before


@dataclass(frozen=True)
class GoldenTrace:
    """Over all checks against one golden set, the oldest first."""

    reports: tuple[GoldenReport, ...]
    changed: tuple[ChangedAnswer, ...]
    """Losses first, the youngest first among them."""
    recovered: tuple[str, ...]
    """Ids of items that once came out otherwise and do so no more."""
    notes: tuple[str, ...] = ()


def read_golden_reports(folder: Location, baseline: str) -> tuple[list[GoldenReport], list[str]]:
    """Those against the golden set of this digest, by time; and what could not be read.

    Raises DataError where there is none.
    """
    found, notes = [], []
    for place in folder.children():
        if is_staging(place):
            continue
        try:
            artifact = open_artifact(place, kind=GOLDEN_KIND)
            told = json.loads((artifact.path / "report.json").read_text(encoding="utf-8"))
            lines = (artifact.path / "items.jsonl").read_text(encoding="utf-8").splitlines()
            changes = tuple(json.loads(one) for one in lines)
        except (ValueError, RuntimeError, OSError) as error:
            notes.append(f"{place.name} is left out: {str(error).splitlines()[0]}")
            continue
        parents = artifact.manifest.parents
        if parents.get("baseline") != baseline:
            continue
        at = str(artifact.manifest.provenance.get("created_at", ""))
        subject = parents["subject"]
        found.append(GoldenReport(at, subject, artifact.digest, told["passed"], told["num_lost"], changes))
    if not found:
        raise DataError(
            f"no report in {folder} is of this golden set",
            why="; ".join(notes) or "nothing was checked against it",
            fix="check a version: raytrain check golden MODEL",
        )
    return sorted(found, key=lambda one: (one.at, one.report)), notes


def trace_changes(reports: Sequence[GoldenReport], notes: Sequence[str] = ()) -> GoldenTrace:
    """reports: by time, at least one. An item changed since the report after the last one in which it had not."""
    by_report = [{(one["suite"], one["item_id"]): one for one in report.changes} for report in reports]
    changed = []
    for key, last in by_report[-1].items():
        first = len(reports) - 1
        while first and key in by_report[first - 1]:
            first -= 1
        since = reports[first]
        changed.append(
            ChangedAnswer(
                suite=last["suite"],
                item_id=last["item_id"],
                category=last["category"],
                before=last["before"],
                after=last["after"],
                since=since.at,
                subject=since.subject,
                num_reports=len(reports) - first,
                output_before=last["output_before"],
                output_after=last["output_after"],
            )
        )
    changed.sort(key=lambda one: (not one.lost, one.num_reports, one.suite, one.item_id))
    once = {key for one in by_report[:-1] for key in one} - by_report[-1].keys()
    return GoldenTrace(tuple(reports), tuple(changed), tuple(sorted(item for _, item in once)), tuple(notes))
