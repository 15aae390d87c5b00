"""Watching: the windows that are whole and not judged yet, each judged once, whoever watches."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from raytrain.monitoring.drift.columns import Column
from raytrain.monitoring.drift.features import EMBEDDING, Embed
from raytrain.monitoring.drift.freezing import embedder_of, read_rows, reference_place
from raytrain.monitoring.drift.judged import Judged, Past
from raytrain.monitoring.drift.judging import check_rules, judge
from raytrain.monitoring.drift.reference import Reference, open_reference
from raytrain.monitoring.drift.report import past_of, read_reports, record_of, write_report
from raytrain.monitoring.drift.rows import Rows
from raytrain.monitoring.drift.section import WatchSection
from raytrain.monitoring.drift.windows import Window, choose_windows
from raytrain.runs.carrying import carried
from raytrain.runs.records import Records
from raytrain.runs.run_claims import AlreadyRunningError
from raytrain.storage.artifact import Artifact
from raytrain.storage.location import Location
from raytrain.storage.manifest import short_digest

Reports = list[tuple[dict[str, Any], Artifact]]


@dataclass(frozen=True)
class Look:
    """What one look at the rows has come to."""

    run_id: str
    reports: tuple[tuple[Judged, Artifact], ...]
    """Of the windows that this look judged, the oldest first."""
    num_judged: int
    """Windows that are judged in all."""
    num_waiting: int
    """Rows that no whole window holds yet."""
    notes: tuple[str, ...]
    held_by: str | None = None
    """Where another watcher is at it, who: nothing was looked at."""

    @property
    def alarms(self) -> list[str]:
        return [f"window {one.number}: {why}" for one, _ in self.reports for why in one.alarms]


def metrics_of(section: WatchSection) -> set[str] | None:
    """What it may record of a window, by its reference's features; None where none is frozen yet. Raises as
    open_reference does."""
    if not reference_place(section).exists():
        return None
    features = open_reference(reference_place(section)).features
    told = {"drift/score", "drift/alarm", "drift/rows"}
    told |= {f"mean/{one.name}" for one in features if one.kind == "numeric"}
    calibrated = (
        set() if section.level is None else {"drift/p_value", *(f"drift/{one.name}" for one in features)}
    )
    return told | calibrated


def reports_folder(section: WatchSection, reference: Reference) -> Location:
    return reference_place(section).parent / short_digest(reference.artifact.digest)


def look(
    section: WatchSection,
    records: Records,
    *,
    now: float,
    tell: Callable[[Judged, Artifact], None] = lambda *_: None,
) -> Look:
    """Judge every window that is whole and not judged yet, and write a report of each.

    Of several watchers at one log one acts: a run in the records is claimed, and windows are found anew once it is.
    Raises DataError where the reference or the rows cannot be used; ConfigError where a rule names an unknown feature.
    """
    reference = open_reference(reference_place(section))
    check_rules(section, reference)
    folder = reports_folder(section, reference)
    run_id = f"watch-{section.watch}-{folder.name}"
    config = section.model_dump(mode="json")
    records.create_run(run_id, kind="watch", name=section.watch, config=config, storage_uri=str(folder))
    one = _Watcher(section, reference, folder, records, run_id, tell)
    try:
        with carried(records, run_id, lambda: one.num_judged):
            found = one.judge_all(now)
            records.set_state(run_id, "succeeded", global_step=one.num_judged)
    except AlreadyRunningError as error:
        return Look(run_id, (), one.num_judged, 0, (), held_by=error.why)
    return found


@dataclass
class _Watcher:
    """Holds the run while it looks."""

    section: WatchSection
    reference: Reference
    folder: Location
    records: Records
    run_id: str
    tell: Callable[[Judged, Artifact], None]
    reports: Reports = field(default_factory=list)

    @property
    def num_judged(self) -> int:
        return int(self.reports[-1][0]["window"]["number"]) if self.reports else 0

    def judge_all(self, now: float) -> Look:
        self.reports = read_reports(self.folder)
        self._record_what_is_not()
        # Streams read all rows since the reference.
        rows = read_rows(self.section, now, None if self.section.streams else self._judged_until)
        windows, waiting = self._windows(rows, now)
        has_embedding = any(one.measure == EMBEDDING for one in self.reference.features)
        embed = (
            embedder_of(self.section, self.reference.embedding_model) if windows and has_embedding else None
        )
        made = []
        for window in windows:
            written = self._judge(rows, window, embed)
            if written is not None:
                made.append(written)
        return Look(self.run_id, tuple(made), self.num_judged, waiting, tuple(rows.notes))

    @property
    def _judged_until(self) -> float | None:
        ends_at: float | None = (
            self.reports[-1][0]["window"]["ends_at"] if self.reports else self.reference.ends_at
        )
        return ends_at

    def _windows(self, rows: Rows, now: float) -> tuple[list[Window], int]:
        if rows.times is None:
            return [Window(0, len(rows), now, now)], 0
        after = self._judged_until
        windows = choose_windows(rows.times, after, self.section.window, now)
        judged = windows[-1].ends_at if windows else after
        waiting = len(rows) if judged is None else int((rows.times > judged).sum())
        return windows, waiting

    def _judge(self, rows: Rows, window: Window, embed: Embed | None) -> tuple[Judged, Artifact] | None:
        """None where these very rows were judged last, which of rows without a time alone can be."""
        number = self.num_judged + 1
        judged, columns = judge(self.section, self.reference, rows, window, number, embed)
        parents = {"reference": self.reference.artifact.digest, "rows": _digest_of(columns)}
        if rows.times is None and self.reports and self.reports[-1][1].manifest.parents == parents:
            return None
        past = [past_of(*one) for one in self.reports]
        now = Past(number, judged.ends_at, judged.score, bool(judged.alarms), "this one")
        config = self.section.model_dump(mode="json")
        artifact = write_report(self.folder / f"{number:06d}", judged, [*past, now], parents, config)
        self.reports.append((record_of(judged), artifact))
        self._record(*self.reports[-1])
        self.tell(judged, artifact)
        return judged, artifact

    def _record_what_is_not(self) -> None:
        """Of a watcher that was killed when its report was written and its records were not."""
        last = self.records.last_value(self.run_id, "drift/score")
        for report, artifact in self.reports:
            if last is None or report["window"]["number"] > last.global_step:
                self._record(report, artifact)

    def _record(self, report: dict[str, Any], artifact: Artifact) -> None:
        """Metrics last: where they are, the rest is."""
        number, alarms = report["window"]["number"], report["alarms"]
        place, parents = str(artifact.location), artifact.manifest.parents
        self.records.add_artifact(
            self.run_id, "report", "written", artifact.kind, artifact.digest, place, parents
        )
        if alarms:
            data = {"window": number, "report": artifact.digest, "alarms": alarms}
            self.records.add_event(self.run_id, "drift", f"window {number}: {alarms[0]}", data)
        told = {f"mean/{name}": value for name, value in report["means"].items()}
        if report["calibrated"] is not None:
            told |= {f"drift/{one['name']}": one["value"] for one in report["calibrated"]["features"]}
            told["drift/p_value"] = report["calibrated"]["p_value"]
        told |= {
            "drift/score": report["score"],
            "drift/alarm": float(bool(alarms)),
            "drift/rows": float(report["window"]["num_rows"]),
        }
        self.records.add_metrics(self.run_id, [(number, time.time(), told)])


def _digest_of(columns: Sequence[Column]) -> str:
    """Of what was judged, value by value."""
    found = hashlib.sha256()
    for one in columns:
        found.update(f"{one.name}\x1f{one.kind}\x1f{len(one)}\x1e".encode())
        if one.kind == "categorical":
            found.update(repr(one.values.to_pylist()).encode())
        else:
            found.update(np.ascontiguousarray(one.values).tobytes())
    return f"sha256:{found.hexdigest()}"
