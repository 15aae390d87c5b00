"""One look at everything: windows judged, interactions collected, a fall taken back, a retraining ordered and queued.

Each part stands by itself: where one cannot be done, it is told, and the others are. Of several who look at once each
part lets one act.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from raytrain.errors import ConfigError, PlatformError
from raytrain.monitoring.alerts.alert import Alert
from raytrain.monitoring.alerts.spool import raise_alert
from raytrain.monitoring.drift.freezing import freeze, read_rows, reference_place
from raytrain.monitoring.drift.reference import open_reference
from raytrain.monitoring.drift.watching import look as watch_look
from raytrain.monitoring.learning.collect import collect
from raytrain.monitoring.learning.known import known_rows
from raytrain.monitoring.learning.pool import InteractionPool
from raytrain.monitoring.triggers.observing import look
from raytrain.monitoring.triggers.state import Seen
from raytrain.monitoring.triggers.store import Ordered, TriggerStore
from raytrain.monitoring.triggers.telling import alerts_of
from raytrain.pipeline.loop.canary import lost_trial
from raytrain.pipeline.loop.chain import APPROVAL
from raytrain.pipeline.loop.guarding import guard
from raytrain.pipeline.loop.planning import num_waiting
from raytrain.pipeline.loop.production import find_production
from raytrain.pipeline.loop.retraining import given_up, settled
from raytrain.pipeline.loop.section import Loop
from raytrain.pipeline.loop.telling import ended_badly, ended_well
from raytrain.pipeline.steps import Release
from raytrain.release.registry.state import PRODUCTION
from raytrain.runs.queue.job import Job
from raytrain.runs.queue.store import QueueStore
from raytrain.runs.record_types import RunRecord
from raytrain.runs.records import Records

JobOf = Callable[[Ordered], Job]
"""The job that carries an order out; its id is the order's."""


@dataclass
class Round:
    """What one look came to. Each part tells for itself; `blind` are those that could not be done, and why."""

    windows: list[dict[str, Any]] = field(default_factory=list)
    reference: str | None = None
    """Digest of one that was frozen anew."""
    waits_for_rows: int | None = None
    """Answers that a new reference still waits for."""
    collected: dict[str, Any] | None = None
    guarded: dict[str, Any] | None = None
    lost_trial: str | None = None
    """Candidate that is surely worse than production, where the triggers ask for that."""
    decision: dict[str, Any] | None = None
    queued: str | None = None
    """Order whose job waits since this look."""
    settled: list[str] = field(default_factory=list)
    blind: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Looker:
    """Looks, as often as it is asked to."""

    loop: Loop
    release: Release
    records: Records
    job_of: JobOf

    def look(self, now: float) -> Round:
        """Raises nothing that another look may not meet."""
        done = Round()
        parts: list[tuple[str, Callable[[Round, float], None]]] = [
            ("watch", self._watch),
            ("collect", self._collect),
            ("guard", self._guard),
            ("settle", self._settle_dead),
            ("compare", self._compare),
            ("decide", self._decide),
            ("queue", self._queue),
        ]
        for name, part in parts:
            try:
                part(done, now)
            except PlatformError as error:
                done.blind.append(f"{name}: {error.line}")
                raise_alert(_blind(self.loop.section.loop, name, str(error), now))
            except Exception as error:  # noqa: BLE001 - one fault of ours must not keep the rest from its work for good
                told = f"{type(error).__name__}: {error}"
                done.blind.append(f"{name}: {told}")
                raise_alert(_blind(self.loop.section.loop, name, f"a fault of raytrain: {told}", now))
        return done

    def _watch(self, done: Round, now: float) -> None:
        section = self.loop.watch
        if section is None or not self._reference_stands(done, now):
            return
        found = watch_look(section, self.records, now=now)
        done.windows = [
            {"number": one.number, "score": one.score, "alarms": list(one.alarms), "report": artifact.digest}
            for one, artifact in found.reports
        ]

    def _reference_stands(self, done: Round, now: float) -> bool:
        """After production has changed, what was usual before is no measure: a new reference is frozen of what came
        since, once there is enough of it, and until then nothing is judged."""
        watch, wanted = self.loop.watch, self.loop.section.new_reference_rows
        assert watch is not None, "asked before"
        moved = self.release.desk.registry.state(self.release.name).moved.get(PRODUCTION)
        if wanted is None or moved is None:
            return True
        since = moved.written_at
        place = reference_place(watch)
        begins_at = open_reference(place).begins_at if place.exists() else None
        if begins_at is not None and begins_at > since:
            return True
        settled_at = now - watch.window.settle_s  # later ones may lack rows of a server's other processes
        rows = read_rows(watch, now, since)
        num_rows = 0 if rows.times is None else int(((rows.times > since) & (rows.times <= settled_at)).sum())
        if num_rows < wanted:
            done.waits_for_rows = wanted - num_rows
            return False
        frozen = freeze(watch, now=now, replace=True, since=since, most=wanted)
        done.reference = frozen.artifact.digest
        return True

    def _guard(self, done: Round, now: float) -> None:
        found = guard(self.loop, self.release, InteractionPool(self.records.engine), now)
        if found is not None:
            done.guarded = {
                "version": found.version,
                "signals": [one.told() for one in found.falls],
                "rolled_back_to": None if found.rollback is None else str(found.rollback.after),
            }

    def _collect(self, done: Round, _now: float) -> None:
        section = self.loop.section.learning
        if section is None:
            return
        release = self.release
        production = find_production(release.desk.registry, release.name, release.ring, self.records)
        known = known_rows(production.spec.data.model_copy(update={"sources": list(production.sources)}))
        pool = InteractionPool(self.records.engine)
        found = collect(self.loop.log, pool, known, section, self.release.name)
        done.collected = found.as_dict()

    def _settle_dead(self, done: Round, now: float) -> None:
        """Orders whose job has failed for good, or was cancelled: nobody carries them out any more."""
        store, jobs = TriggerStore(self.records.engine), QueueStore(self.records.engine)
        for one in self._open(store):
            job = _job(jobs, one.order.id)
            if job is None or job.state not in ("failed", "cancelled"):
                continue
            run = self._run_of(one.order.id)
            if run is not None and run.state != "succeeded" and _goes_on(run):
                continue
            why, has_failed = f"job {job.id} {job.state}: {job.exit_reason or 'see its log'}", False
            if run is None or run.state != "succeeded":
                outcome = given_up(self.loop, one.order.id, why, self.release, self.records)
                has_failed = outcome == "failed"
            if has_failed:
                raise_alert(ended_badly(one.order.id, why, now))
            else:
                raise_alert(ended_well(settled(self.loop, one.order.id, self.release, self.records), now))
            done.settled.append(one.order.id)

    def _run_of(self, order_id: str) -> RunRecord | None:
        try:
            return self.records.get_run(order_id)
        except ConfigError:
            return None  # its job has never come so far

    def _compare(self, done: Round, now: float) -> None:
        if any(one.name == "canary_loss" for one in self.loop.triggers.when.leaves()):
            done.lost_trial = lost_trial(self.loop, self.release, self.records, now)

    def _decide(self, done: Round, now: float) -> None:
        num_new = InteractionPool(self.records.engine).num_free(self.release.name)
        num_new += num_waiting(self.loop, self.release, self.records)
        losses = frozenset(() if done.lost_trial is None else (done.lost_trial,))
        seen = look(self.loop.triggers, self.records, now, Seen(new_rows=num_new, canary_losses=losses))
        decision = TriggerStore(self.records.engine).decide(self.loop.triggers, seen, now)
        for alert in alerts_of(self.loop.triggers, decision, now):
            raise_alert(alert)
        done.decision = {
            "order": None if decision.order is None else decision.order.id,
            "reasons": list(decision.reasons),
            "blocked": list(decision.blocked),
            "notes": list(decision.notes),
        }

    def _queue(self, done: Round, _now: float) -> None:
        """Also an order whose looker was killed before its job was there."""
        jobs = QueueStore(self.records.engine)
        for one in self._open(TriggerStore(self.records.engine)):
            if _job(jobs, one.order.id) is None:
                try:
                    jobs.submit(self.job_of(one))
                except PlatformError:
                    if _job(jobs, one.order.id) is None:
                        raise
                    continue  # another looker was faster
                done.queued = one.order.id

    def _open(self, store: TriggerStore) -> list[Ordered]:
        return [one for one in store.orders(self.loop.triggers.triggers, limit=100) if one.is_open]


def _goes_on(run: RunRecord) -> bool:
    """Somebody carries it out by hand, or people are to say a word first."""
    return run.state == "running" or (run.error or {}).get("kind") == APPROVAL


def _job(jobs: QueueStore, job_id: str) -> Job | None:
    try:
        found = jobs.get(job_id)
    except ConfigError:
        return None
    return found if found.id == job_id else None


def _blind(loop: str, part: str, told: str, now: float) -> Alert:
    return Alert(
        kind="watching",
        subject=f"{loop} {part}",
        severity="warning",
        title=f"the loop {loop} cannot {part}",
        text=told,
        time=now,
    )
