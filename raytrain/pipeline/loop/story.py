"""What has happened around a released name: how good its answers were, how far its requests drifted, who answered."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from raytrain.evaluation.statistics.proportions import wilson_interval
from raytrain.monitoring.learning.pool import InteractionPool
from raytrain.monitoring.request_log import read_request_log
from raytrain.monitoring.times import as_seconds
from raytrain.monitoring.triggers.falls import Answered, answered_of
from raytrain.monitoring.triggers.observing import WATCH_KIND
from raytrain.monitoring.triggers.store import TriggerStore
from raytrain.pipeline.loop.chain_record import KIND as CHAIN_KIND
from raytrain.pipeline.loop.guarding import without_poison
from raytrain.pipeline.loop.section import Loop
from raytrain.pipeline.steps import Release
from raytrain.release.gate.record import PROMOTION_KIND, ROLLBACK_KIND
from raytrain.release.gate.recorded import kind_of_move
from raytrain.release.registry.journal import Entry
from raytrain.release.registry.state import PRODUCTION
from raytrain.runs.record_types import ArtifactUse, RunRecord
from raytrain.runs.records import Records
from raytrain.storage.manifest import digest_of

EventKind = Literal[
    "alarm", "reference", "order", "outcome", "promotion", "override", "rollback", "quarantine"
]


@dataclass(frozen=True)
class Quality:
    """Of some rated answers in a row, all of one version."""

    begins_at: float
    ends_at: float
    version: str
    digest: str
    num_good: int
    num_rated: int

    @property
    def share(self) -> float:
        return self.num_good / self.num_rated

    @property
    def interval(self) -> tuple[float, float]:
        found = wilson_interval(self.num_good, self.num_rated)
        return found.low, found.high


@dataclass(frozen=True)
class Drifted:
    """A window's score; 1 is the threshold."""

    time: float
    score: float
    is_alarm: bool
    digest: str
    """Of its report."""


@dataclass(frozen=True)
class Event:
    """Something that happened, and the digest by which it is proven."""

    time: float
    kind: EventKind
    told: str
    digest: str


@dataclass(frozen=True)
class Story:
    """All of it, by time."""

    name: str
    quality: tuple[Quality, ...]
    drift: tuple[Drifted, ...]
    events: tuple[Event, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "quality": [{**asdict(one), "share": one.share, "interval": one.interval} for one in self.quality],
            "drift": [asdict(one) for one in self.drift],
            "events": [asdict(one) for one in self.events],
        }  # fmt: skip


def gather(loop: Loop, release: Release, records: Records, *, rated_each: int) -> Story:
    """rated_each: rated answers that make one point of quality."""
    drift = tuple(_drift(loop, records))
    events = [
        *(Event(one.time, "alarm", f"drift: score {one.score:.2f}", one.digest) for one in drift if one.is_alarm),
        *_references(loop, records),
        *_orders(loop, records),
        *_moves(release),
        *_quarantined(records),
    ]  # fmt: skip
    return Story(
        release.name,
        tuple(_quality(loop, release, InteractionPool(records.engine), rated_each)),
        drift,
        tuple(sorted(events, key=lambda one: one.time)),
    )


def _quality(loop: Loop, release: Release, pool: InteractionPool, rated_each: int) -> Iterator[Quality]:
    versions = {one.digest: str(one.version) for one in release.desk.registry.released(release.name)}
    rows = without_poison(read_request_log(loop.log).answers(), pool)
    by_version: dict[str, list[Answered]] = defaultdict(list)
    stretch = ""
    for request, feedback in sorted(rows, key=lambda one: as_seconds(one[0].get("at"))):
        digest = str(request.get("digest"))
        answered = answered_of(request, feedback, as_seconds(request.get("at")))
        if digest not in versions or answered.approval is None:
            continue
        if digest != stretch:  # what a version answered before another did is told by itself
            yield from _told(by_version, versions, stretch)
            stretch = digest
        by_version[digest].append(answered)
        if len(by_version[digest]) == rated_each:
            yield from _told(by_version, versions, digest)
    yield from _told(by_version, versions, stretch)


def _told(by_version: dict[str, list[Answered]], versions: dict[str, str], digest: str) -> Iterator[Quality]:
    rows = by_version.pop(digest, [])
    if rows:
        good = sum(one.approval is True for one in rows)
        yield Quality(rows[0].at, rows[-1].at, versions[digest], digest, good, len(rows))


def _drift(loop: Loop, records: Records) -> Iterator[Drifted]:
    found = []
    for run in _watches(loop, records):
        series = records.metrics(run.id, ["drift/score", "drift/alarm"])
        alarms = {step: value for step, value, _ in series.get("drift/alarm", ())}
        reports = {_number(one.uri): one.digest for one in records.artifacts(run.id) if one.role == "report"}
        for step, score, time in series.get("drift/score", ()):
            found.append(Drifted(time, score, bool(alarms.get(step)), reports.get(step, "")))
    yield from sorted(found, key=lambda one: one.time)


def _watches(loop: Loop, records: Records) -> list[RunRecord]:
    """One for each reference, the oldest first."""
    watch = loop.triggers.watch
    if watch is None:
        return []
    runs = records.list_runs(kind=WATCH_KIND, name=watch, limit=1_000).runs
    return [one for one in reversed(runs) if one.name == watch]  # `name` may be a part


def _references(loop: Loop, records: Records) -> Iterator[Event]:
    """What was usual, from when on; told once a window was held against it."""
    for run in _watches(loop, records):
        reports = (one.digest for one in records.artifacts(run.id) if one.role == "report")
        report = next((records.find_artifact(one) for one in reports), None)
        if report is not None and "reference" in report.parents:
            told = f"the windows of {run.name} are held against this reference from here on"
            yield Event(run.created_at, "reference", told, report.parents["reference"])


def _number(uri: str | None) -> int:
    last = (uri or "").rpartition("/")[2]
    return int(last) if last.isdigit() else -1


def _orders(loop: Loop, records: Records) -> Iterator[Event]:
    for one in TriggerStore(records.engine).orders(loop.triggers.triggers, limit=1_000):
        order = one.order
        digest = digest_of({**asdict(order), "reasons": list(order.reasons)})
        yield Event(order.time, "order", f"{order.id}: {'; '.join(order.reasons)}", digest)
        if one.outcome is not None and one.settled_at is not None:
            made = [use.digest for use in _uses(records, order.id) if use.kind == CHAIN_KIND]
            # One that failed on a full disk has left no record; then what is proven is what was said of it.
            made = made or [digest_of({"order": digest, "outcome": one.outcome, "why": one.why})]
            told = f"{order.id} {one.outcome.replace('_', ' ')}: {one.why}"
            yield Event(one.settled_at, "outcome", told, made[-1])


def _uses(records: Records, run_id: str) -> list[ArtifactUse]:
    known = records.list_runs(kind="retrain", limit=1_000).runs
    return records.artifacts(run_id) if any(one.id == run_id for one in known) else []


def _moves(release: Release) -> Iterator[Event]:
    for entry in release.desk.registry.entries(release.name):
        if entry.moves(PRODUCTION):
            told = f"{PRODUCTION} is {entry.details['version']}: {entry.why}"
            decision = entry.details.get("decision") or digest_of(
                asdict(entry)
            )  # without one: the entry's own
            yield Event(entry.written_at, _kind_of(release, entry), told, str(decision))


def _kind_of(release: Release, entry: Entry) -> EventKind:
    if entry.why.startswith("OVERRIDE"):
        return "override"
    kind = kind_of_move(release.desk.registry, release.name, entry)
    kinds: dict[str | None, EventKind] = {PROMOTION_KIND: "promotion", ROLLBACK_KIND: "rollback"}
    return kinds.get(kind, "promotion")


def _quarantined(records: Records) -> Iterator[Event]:
    """Rows that were set aside, by what was suspected of them."""
    rows = InteractionPool(records.engine).rows("quarantined")
    groups: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        groups[(row.reason or "").partition(":")[0]].append(row)
    for reason, found in sorted(groups.items()):
        digest = digest_of(sorted(row.id for row in found))
        yield Event(
            max(row.at for row in found), "quarantine", f"{len(found)} rows set aside: {reason}", digest
        )
