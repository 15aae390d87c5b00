"""The records of all runs: one object over the database that commands and the trainer share.

What each transaction does stands beside its tables: runs (`run_rows`, `run_claims`, `run_search`), `run_events`,
`series`, `artifact_index`. The run folders and manifests hold the same facts (`folder`), so the database can be
lost and rebuilt.
"""

from __future__ import annotations

import socket
import time as clock
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import sqlalchemy

from raytrain.runs import artifact_index, folder, run_claims, run_events, run_rows, run_search, series
from raytrain.runs.owner_watch import OwnerWatch
from raytrain.runs.ownership import Owner, StartTimeOf, process_start_time
from raytrain.runs.record_types import (
    ArtifactRecord,
    ArtifactUse,
    Direction,
    EventRecord,
    LineageNode,
    MetricPoint,
    MetricRow,
    RunPage,
    RunRecord,
    RunState,
)
from raytrain.runs.schema import ensure_schema
from raytrain.storage.database import open_database, translated_database_errors
from raytrain.storage.manifest import digest_of, short_digest

_ENDED: tuple[RunState, ...] = ("succeeded", "failed", "cancelled")


def open_records(url: str | None = None) -> Records:
    """Open the database, making its tables where it has none or older ones (`schema`).

    Raises StorageError where it cannot be opened or is newer; DamagedDatabaseError where damaged.
    """
    engine = open_database(url)
    with translated_database_errors(engine):
        ensure_schema(engine)
    return Records(engine)


class Records:
    """Safe to share between threads. Every method raises StorageError where the database cannot be used, and
    ConfigError where it is given a run that does not exist."""

    def __init__(
        self,
        engine: sqlalchemy.Engine,
        *,
        this_host: str | None = None,
        start_time_of: StartTimeOf = process_start_time,
    ) -> None:
        self.engine = engine
        self._owners = OwnerWatch(this_host or socket.gethostname(), start_time_of)

    def close(self) -> None:
        self.engine.dispose()

    @contextmanager
    def _begin(self) -> Iterator[sqlalchemy.Connection]:
        with translated_database_errors(self.engine), self.engine.begin() as connection:
            yield connection

    # The life of a run

    def create_run(
        self,
        run_id: str,
        *,
        kind: str,
        name: str,
        config: dict[str, Any],
        config_digest: str | None = None,
        storage_uri: str | None = None,
        max_steps: int | None = None,
        created_at: float | None = None,
    ) -> RunRecord:
        """Record a queued run and make its folder; one that is there already is returned as it is."""
        run_rows.check_id(run_id)
        digest = config_digest or digest_of(config)
        created_at = clock.time() if created_at is None else created_at
        queued = RunRecord(
            run_id, kind, name, "queued", config, digest, created_at, storage_uri, max_steps=max_steps
        )
        with self._begin() as connection:
            run_rows.add_unless_known(connection, queued)
        run = self.get_run(run_id)
        folder.describe_run(run)
        return run

    def claim_run(self, run_id: str, owner: Owner, now: float | None = None) -> RunRecord:
        """Make `owner` the one process that carries the run; of several that try at once, one wins.

        Raises TrainingError where another process that lives holds it.
        """
        now = clock.time() if now is None else now
        before = run_claims.claim(self._begin, self._owners, run_id, owner, now)
        folder.describe_run(before)
        again = f" again, from step {before.global_step}" if before.started_at else ""
        data = {"state": "running", "owner": asdict(owner)}
        place = f"process {owner.pid} on {owner.host}"
        self.add_event(run_id, "state", f"started{again} by {place}", data, time=now)
        return self.get_run(run_id)

    def heartbeat(
        self,
        run_id: str,
        owner: Owner,
        *,
        global_step: int | None = None,
        max_steps: int | None = None,
        now: float | None = None,
    ) -> bool:
        """Say every 10 s or so that `owner` lives, and how far it is. False: another took the run over."""
        now = clock.time() if now is None else now
        with self._begin() as connection:
            return run_claims.beat(connection, run_id, owner, now, global_step, max_steps)

    def set_state(
        self,
        run_id: str,
        state: RunState,
        exit_reason: str | None = None,
        error: dict[str, Any] | None = None,
        *,
        global_step: int | None = None,
        now: float | None = None,
    ) -> None:
        """`error` is `PlatformError.as_dict()`. An ended run is held by nobody."""
        now = clock.time() if now is None else now
        ended_at = now if state in _ENDED else None
        values = {"state": state, "exit_reason": exit_reason, "error": error, "ended_at": ended_at}
        if global_step is not None:
            values["global_step"] = global_step
        with self._begin() as connection:
            if not run_rows.change(connection, run_id, values):
                raise run_rows.unknown_run(connection, run_id)
        message = state if exit_reason is None else f"{state}: {exit_reason}"
        data = {"state": state, "exit_reason": exit_reason, "error": error, "global_step": global_step}
        self.add_event(run_id, "state", message, data, time=now)

    def request_stop(self, run_id: str) -> bool:
        """Ask a run to save and end; False where it is not going on, so that nothing is left to stop."""
        if self.get_run(run_id).state != "running":
            return False
        with self._begin() as connection:
            stopped = run_claims.ask_to_stop(connection, run_id)
        if stopped:
            self.add_event(run_id, "stop", "asked to save and stop")
        return stopped

    def stop_requested(self, run_id: str) -> bool:
        with self._begin() as connection:
            return run_claims.was_asked_to_stop(connection, run_id)

    def restore_run(self, run: RunRecord, events: Sequence[EventRecord]) -> None:
        """Put a run as it stands into a database that does not know it; for rebuild."""
        with self._begin() as connection:
            run_rows.add(connection, run)
            run_events.add(connection, run.id, events)

    def raise_global_step(self, run_id: str, global_step: int) -> None:
        """Only upwards; for rebuild, which learns the step from the metrics."""
        with self._begin() as connection:
            run_rows.raise_global_step(connection, run_id, global_step)

    # Finding runs

    def get_run(self, run_id: str) -> RunRecord:
        with self._begin() as connection:
            row = run_rows.read(connection, run_id)
        return self._owners.as_it_stands(run_rows.record_of(row), clock.time())

    def list_runs(
        self,
        *,
        state: RunState | None = None,
        kind: str | None = None,
        name: str | None = None,
        since: float | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> RunPage:
        """Runs that fit all filters, newest first. `name` may be a part; `since` is a time of creation."""
        wanted = run_search.fits(kind, name, since)
        if state is not None:
            wanted.append(run_search.in_state(state, self._runs_without_owner()))
        with self._begin() as connection:
            page = run_search.page(connection, wanted, limit, offset)
        now = clock.time()
        return replace(page, runs=[self._owners.as_it_stands(run, now) for run in page.runs])

    def _runs_without_owner(self) -> list[str]:
        with self._begin() as connection:
            running = run_search.stored_as_running(connection)
        now = clock.time()
        return [run.id for run in running if not self._owners.is_alive(run, now)]

    def run_with_prefix(self, prefix: str) -> RunRecord:
        """The run with this id, or the only one whose id begins so; `latest` is the newest.

        Raises ConfigError: it lists the candidates where several begin so, the nearest where none does.
        """
        with self._begin() as connection:
            run_id = run_search.id_with_prefix(connection, prefix)
        return self.get_run(run_id)

    # Metrics

    def add_metrics(
        self, run_id: str, rows: Iterable[MetricRow | tuple[int, float, Mapping[str, float]]]
    ) -> None:
        """Store many values in one transaction; a value for a step that has one replaces it."""
        with self._begin() as connection:
            series.add(connection, run_id, rows)

    def forget_metrics_after(self, run_id: str, global_step: int) -> None:
        """A resumed run measures these steps again; its series keep one value a step."""
        with self._begin() as connection:
            series.forget_after(connection, run_id, global_step)

    def metrics(
        self, run_id: str, keys: Sequence[str] | None = None, since_step: int | None = None
    ) -> dict[str, list[MetricPoint]]:
        """Time series by key, in the order of steps; of the wanted keys, those that were measured."""
        with self._begin() as connection:
            return series.read(connection, run_id, keys, since_step)

    def latest_metrics(self, run_id: str) -> dict[str, MetricPoint]:
        """The value of the greatest step, by key."""
        with self._begin() as connection:
            return series.latest(connection, run_id)

    def last_value(self, run_id: str, key: str) -> MetricPoint | None:
        with self._begin() as connection:
            return series.last(connection, run_id, key)

    # Events

    def add_event(
        self,
        run_id: str,
        kind: str,
        message: str,
        data: dict[str, Any] | None = None,
        *,
        time: float | None = None,
    ) -> None:
        """Also appended to events.jsonl where the run's folder is on this machine."""
        event = EventRecord(clock.time() if time is None else time, kind, message, data or {})
        with self._begin() as connection:
            run_events.add(connection, run_id, [event])
        run_events.append_to_folder(run_id, event)

    def events(self, run_id: str) -> list[EventRecord]:
        with self._begin() as connection:
            return run_events.read(connection, run_id)

    # Artifacts

    def add_artifact(
        self,
        run_id: str,
        role: str,
        direction: Direction,
        kind: str,
        digest: str,
        uri: str | None,
        parents: Mapping[str, str] | None = None,
    ) -> None:
        """Record what a run read or wrote; `parents` (from the manifest) make up its lineage."""
        use = ArtifactUse(run_id, role, direction, kind, digest, uri, clock.time())
        if self.index_artifact(use, parents):
            message = f"{direction} {role}: {kind} {short_digest(digest)} at {uri}"
            self.add_event(run_id, "artifact", message, {**asdict(use), "parents": dict(parents or {})})

    def index_artifact(self, use: ArtifactUse, parents: Mapping[str, str] | None) -> bool:
        """Put a use and its artifact into the tables without an event; False where it was there already."""
        with self._begin() as connection:
            return artifact_index.add(connection, use, parents)

    def know_artifact(self, kind: str, digest: str, uri: str, parents: Mapping[str, str]) -> None:
        """Where an artifact lies that no run has read or written."""
        with self._begin() as connection:
            artifact_index.know(connection, kind, digest, uri, parents)

    def artifacts(self, run_id: str) -> list[ArtifactUse]:
        """What the run read and wrote, in order of time."""
        with self._begin() as connection:
            return artifact_index.uses_of_run(connection, run_id)

    def artifact_of(self, run_id: str, role: str = "model") -> str | None:
        """URI of the newest artifact that the run wrote in this role."""
        written = [use for use in self.artifacts(run_id) if use.direction == "written" and use.role == role]
        return written[-1].uri if written else None

    def find_artifact(self, digest: str) -> ArtifactRecord | None:
        """The artifact with this digest, or the only one that begins so (`sha256:` may be left out)."""
        with self._begin() as connection:
            return artifact_index.find(connection, digest)

    def all_artifacts(self) -> dict[str, tuple[str, dict[str, str]]]:
        """Kind and parents of every artifact, by its digest."""
        with self._begin() as connection:
            return artifact_index.all_artifacts(connection)

    def lineage(self, digest: str) -> LineageNode:
        """What the artifact was made from, back to the first rows: a walk over parents."""
        with self._begin() as connection:
            return artifact_index.lineage(connection, digest)
